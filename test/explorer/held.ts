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
  /** Part of a renewal, or of a merge, that may still be called off. */
  | { readonly _tag: "Pending" | "Hold"; readonly value: Value; readonly deadline: number }
  | { readonly _tag: "Tombstone"; readonly successor: string }

interface Fields {
  readonly pending?: boolean
  readonly renewing?: boolean
  readonly successor?: string
  readonly held?: string
  readonly value?: Value
  readonly deadline?: number
}

const known = new Map<string, Held>()

const noValue: Value = { user: null, log: [] }

const read = (text: string): Held => {
  const { deadline = 0, held, pending, renewing, successor, value = noValue }: Fields = JSON.parse(text)
  if (held !== undefined) {
    const inner = parse(held)
    return inner._tag === "Tombstone" ? inner : { ...inner, _tag: "Hold" }
  }
  if (successor !== undefined) return { _tag: "Tombstone", successor }
  return { _tag: pending === true || renewing === true ? "Pending" : "Session", value, deadline }
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
  if (held._tag === "Tombstone") return text.includes('"ended":true') ? "a sealed tombstone" : "a tombstone"
  const kind = held._tag === "Session" ? "" : held._tag === "Pending" ? "pending " : "held for a merge "
  const user = held.value.user === null ? "" : `, user ${held.value.user}`
  return `${kind}[${held.value.log.join(", ")}]${user}`
}
