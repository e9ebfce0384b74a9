/**
 * What the text under a key is, as the explorer reads it. It knows the envelope of a session, and no code of the package.
 */

import { createHash } from "node:crypto"

export interface Value {
  readonly user: number | null
  /** The numbers of the changes that were made. */
  readonly log: ReadonlyArray<number>
}

export type Held =
  | { readonly _tag: "Session"; readonly value: Value; readonly deadline: number }
  /** Part of a renewal that may still be called off. */
  | { readonly _tag: "Pending"; readonly value: Value; readonly deadline: number }
  /** What is being merged into another session. */
  | { readonly _tag: "Hold"; readonly value: Value; readonly deadline: number; readonly successor: string }
  | { readonly _tag: "Tombstone"; readonly successor: string; readonly isSealed: boolean }
  /** A tombstone without a successor, of a session that was logged out. */
  | { readonly _tag: "Grave" }
  /** The record of one value of the index. */
  | { readonly _tag: "Index"; readonly members: ReadonlyArray<Member>; readonly revokedAt: number | undefined }

/** A session that an index record names: while it is being renewed, by its old key and its new one. */
export interface Member {
  readonly ids: ReadonlyArray<string>
  /** It is to end, and counts no more. */
  readonly isRevoked: boolean
  readonly addedAt: number
  readonly deadline: number
}

/** The name of both session classes, which are one class in two processes. */
export const className = "explorer/UserSession"

/** The user of a session: two of three users count as one, so a few requests collide. */
export const indexOf = ({ user }: Value): string | undefined => (user === null ? undefined : user % 3 === 0 ? "a" : "b")

export const indexed = ["a", "b"] as const

const indexKeys = new Map(
  indexed.map((value) => {
    const name = JSON.stringify([className, "user", value])
    return [`index:${createHash("sha256").update(name).digest("base64url")}`, value]
  })
)

/** The value that an index record is for. */
export const recordOf = (key: string): string | undefined => indexKeys.get(key)

/** The key of the record of a value. */
export const recordKeyOf = (value: string): string =>
  [...indexKeys].find(([, indexed]) => indexed === value)?.[0] ?? "no index"

interface Fields {
  readonly pending?: boolean
  readonly successor?: string
  readonly ended?: boolean
  readonly held?: string
  readonly value?: Value
  readonly deadline?: number
  readonly members?: ReadonlyArray<Member>
  readonly revokedAt?: number
}

const known = new Map<string, Held>()

const noValue: Value = { user: null, log: [] }

const read = (text: string): Held => {
  const fields: Fields = JSON.parse(text)
  const { deadline = 0, ended = false, held, members, pending, revokedAt, successor, value = noValue } = fields
  if (members !== undefined) return { _tag: "Index", members, revokedAt }
  if (held !== undefined && successor !== undefined) {
    const inner = parse(held)
    return inner._tag === "Tombstone" || inner._tag === "Grave" || inner._tag === "Index"
      ? inner
      : { _tag: "Hold", value: inner.value, deadline: inner.deadline, successor }
  }
  if (successor !== undefined) return { _tag: "Tombstone", successor, isSealed: ended }
  if (ended) return { _tag: "Grave" }
  return { _tag: pending === true ? "Pending" : "Session", value, deadline }
}

export const parse = (text: string): Held => {
  const found = known.get(text)
  if (found !== undefined) return found
  // The texts of one schedule are few, and asked for often.
  if (known.size > 2000) known.clear()
  const held = read(text)
  known.set(text, held)
  return held
}

/** For a history. */
export const describe = (text: string, nameOf: (key: string) => string = (key) => key): string => {
  const held = parse(text)
  if (held._tag === "Index") {
    const names = held.members.map(({ ids, isRevoked }) => `${isRevoked ? "ending " : ""}${ids.map(nameOf).join("/")}`)
    return `{${names.join(", ")}}`
  }
  if (held._tag === "Grave") return "the tombstone of a log-out"
  if (held._tag === "Tombstone") return held.isSealed ? "a sealed tombstone" : "a tombstone"
  const kind = held._tag === "Session" ? "" : held._tag === "Pending" ? "pending " : "held for a merge "
  const user = held.value.user === null ? "" : `, user ${held.value.user}`
  return `${kind}[${held.value.log.join(", ")}]${user}`
}
