/**
 * What the text under a key is, as the explorer reads it. It knows the envelope of a session, and no code of the package.
 */

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
  /** An index record, with the keys that it names. */
  | { readonly _tag: "Index"; readonly ids: ReadonlyArray<string> }

interface Fields {
  readonly pending?: boolean
  readonly successor?: string
  readonly ended?: boolean
  readonly held?: string
  readonly value?: Value
  readonly deadline?: number
  readonly members?: ReadonlyArray<{ readonly ids: ReadonlyArray<string> }>
}

const known = new Map<string, Held>()

const noValue: Value = { user: null, log: [] }

const read = (text: string): Held => {
  const { deadline = 0, ended = false, held, members, pending, successor, value = noValue }: Fields = JSON.parse(text)
  if (members !== undefined) return { _tag: "Index", ids: members.flatMap(({ ids }) => ids) }
  if (held !== undefined && successor !== undefined) {
    const inner = parse(held)
    return !("value" in inner) ? inner : { _tag: "Hold", value: inner.value, deadline: inner.deadline, successor }
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
export const describe = (text: string): string => {
  const held = parse(text)
  if (held._tag === "Index") return `an index of ${held.ids.length} keys`
  if (held._tag === "Grave") return "the tombstone of a log-out"
  if (held._tag === "Tombstone") return held.isSealed ? "a sealed tombstone" : "a tombstone"
  const kind = held._tag === "Session" ? "" : held._tag === "Pending" ? "pending " : "held for a merge "
  const user = held.value.user === null ? "" : `, user ${held.value.user}`
  return `${kind}[${held.value.log.join(", ")}]${user}`
}
