/**
 * Faults of the package itself: its source, with one line changed. Each has to be found.
 */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { makeSubject, type Package, type Subject } from "./subject.ts"

export interface Mutant {
  readonly name: string
  readonly file: string
  readonly from: string
  readonly to: string
  /** Near one that finds it, if it is rare. */
  readonly seed?: number
}

export const mutants: ReadonlyArray<Mutant> = [
  {
    name: "a log-out does not follow a tombstone",
    seed: 110,
    file: "internal/records.ts",
    from: "key, next: successor }",
    to: "key, next: undefined }"
  },
  {
    name: "a commit does not recognise its own write",
    file: "internal/state.ts",
    from: "mine === undefined ? state.changes : without(state.changes, mine.changes)",
    to: "state.changes"
  },
  {
    name: "each try of a commit makes another token",
    file: "internal/commit.ts",
    from: "current.secret ?? makeSecret()",
    to: "makeSecret()"
  },
  {
    name: "a pending session is listed and opened",
    file: "internal/records.ts",
    from: 'found._tag === "Session" && !found.isPending && now',
    to: 'found._tag === "Session" && now'
  },
  {
    name: "a slow request writes the expiry of an earlier moment",
    seed: 2690,
    file: "internal/cell.ts",
    from: "Math.max(Math.floor(now), contents.usedAt)",
    to: "Math.floor(now)"
  },
  {
    name: "a renewal that is cut off puts nothing back",
    file: "internal/renewal.ts",
    from: "state.renewal === undefined || !state.renewal.isBurying) return Effect.void",
    to: "state.renewal !== null) return Effect.void"
  },
  {
    name: "a merge that is called off puts nothing back",
    file: "internal/merging.ts",
    from: "found === hold || found === text ?",
    to: "found === undefined ?"
  },
  {
    name: "a token is handed out without a look whether its session still is a member",
    file: "internal/indexes.ts",
    from: "(all) => all.every((members) =>",
    to: "(all) => all.every((members) => true ||"
  },
  {
    name: "a log-in that began before all were ended is saved",
    file: "internal/indexes.ts",
    from: "revokedAt >= Math.floor(openedAt)",
    to: "revokedAt < 0"
  },
  {
    name: "members are taken out before their sessions end",
    file: "internal/indexes.ts",
    from: "next: { members: next, revokedAt: Math.floor(now) },",
    to: "next: { members: next.filter(({ isRevoked }) => !isRevoked), revokedAt: Math.floor(now) },"
  },
  {
    name: "a renewal does not join the index under its new key",
    seed: 600,
    file: "internal/indexes.ts",
    from: "ids: [...new Set([...mine.ids, key])]",
    to: "ids: mine.ids"
  },
  {
    name: "the oldest do not end as one more begins",
    file: "internal/indexes.ts",
    from: "!member.ids.includes(key) && tooMany-- > 0",
    to: "!member.ids.includes(key) && tooMany-- > 99"
  },
  {
    name: "what was marked to end goes on",
    file: "internal/indexes.ts",
    from: "yield* endAll(self, store, key, revoked)\n  }",
    to: "}"
  },
  {
    name: "one more ends than is too many",
    file: "internal/indexes.ts",
    from: "count(there) - max",
    to: "count(there) - max + 1"
  },
  {
    name: "what is to be spared ends too",
    seed: 505,
    file: "internal/indexes.ts",
    from: "except !== undefined && member.ids.includes(except) ?",
    to: "except !== undefined && member.ids.length === 0 ?"
  },
  {
    name: "a renewal forgets its session in the index",
    seed: 125,
    file: "internal/indexes.ts",
    from: "(member) => (member.ids.includes(key) ? { ...member, ids: [key] } : member)",
    to: "(member) => (member.ids.includes(key) ? undefined : member)"
  },
  {
    name: "a change of user keeps the token",
    file: "internal/indexes.ts",
    from: '? "join" : "renew"',
    to: '? "join" : "join"'
  },
  {
    name: "a session is created before it joins its index",
    file: "internal/commit.ts",
    from: "const joining = { key, former: undefined, openedAt: cell.openedAt, memberOf: nothing }",
    to: "yield* store.create(key, sent.text, records.expiryOf(sent.contents))\n  const joining = { key, former: undefined, openedAt: cell.openedAt, memberOf: nothing }"
  }
]

const root = fileURLToPath(new URL("../../", import.meta.url))

/** Runs something on a copy of the package that has this fault. Fails if the line to change is gone. */
export const withMutant = async <A>({ file, from, name, to }: Mutant, body: (subject: Subject) => A): Promise<A> => {
  mkdirSync(`${root}test/.mutants`, { recursive: true })
  const folder = mkdtempSync(`${root}test/.mutants/`)
  try {
    cpSync(`${root}src`, folder, { recursive: true })
    const source = readFileSync(`${folder}/${file}`, "utf8")
    if (source.split(from).length !== 2) throw new Error(`${name}: src/${file} has no longer this line once: ${from}`)
    writeFileSync(`${folder}/${file}`, source.replace(from, to))
    const copy: Package = await import(/* @vite-ignore */ `${folder}/index.ts`)
    return body(makeSubject(copy))
  } finally {
    rmSync(folder, { recursive: true })
  }
}
