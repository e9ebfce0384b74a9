/**
 * Is there an order in which the operations on one session, a register with compare-and-set, can have happened, each at one
 * moment between its call and its answer?
 *
 * The search is that of Wing and Gong, "Testing and verifying concurrent objects" (1993): every operation that was
 * called before the first outstanding answer may be next. As in the paper of Lowe (2017), what was reached before is
 * not searched again.
 *
 * An operation without an answer, because it failed or its caller gave up or was killed, may happen at any moment after its
 * call, or never.
 */

/** The content of a register: the data of a session, or nothing. */
export type Value = string | null

export type Input =
  | { readonly name: "find" }
  | { readonly name: "create"; readonly data: string }
  | { readonly name: "commit"; readonly data: string }
  | { readonly name: "replace"; readonly expected: string; readonly data: string }
  | { readonly name: "delete" }

/** The found value, or whether the write happened. */
export type Output = Value | boolean

export interface Operation<I, O> {
  readonly client: string
  /** The token of the session. */
  readonly on: string
  readonly input: I
  /** In nanoseconds, of a clock that all clients share. */
  readonly called: number
  /** When the answer came, and its value. */
  readonly answer?: { readonly at: number; readonly output: O } | undefined
}

export type RegisterOperation = Operation<Input, Output>

/** The effect of an operation on a register, and its answer. */
export const step = (state: Value, input: Input): readonly [output: Output, state: Value] => {
  switch (input.name) {
    case "find":
      return [state, state]
    case "create":
      return state === null ? [true, input.data] : [false, state]
    case "commit":
      return [true, input.data]
    case "replace":
      return state === input.expected ? [true, input.data] : [false, state]
    case "delete":
      return [true, null]
  }
}

interface Answered extends RegisterOperation {
  readonly answer: { readonly at: number; readonly output: Output }
}

const isAnswered = (operation: RegisterOperation): operation is Answered => operation.answer !== undefined

/** How far a search has come. */
interface Place {
  /** All answered operations before this one have happened, in the order of their calls. */
  readonly first: number
  /** The answered operations after that which have happened too. */
  readonly ahead: ReadonlyArray<number>
  /** The operations without an answer that have happened. */
  readonly unanswered: ReadonlyArray<number>
  readonly state: Value
}

const keyOf = ({ ahead, first, state, unanswered }: Place): string => JSON.stringify([first, ahead, unanswered, state])

const withNumber = (numbers: ReadonlyArray<number>, added: number): ReadonlyArray<number> =>
  [...numbers, added].sort((a, b) => a - b)

const advance = (place: Place, index: number, state: Value): Place => {
  const done = new Set([...place.ahead, index])
  let first = place.first
  while (done.delete(first)) first++
  return { ...place, first, ahead: [...done].sort((a, b) => a - b), state }
}

/** The answered operations that may be next, and the first answer that is still to come. */
const open = (answered: ReadonlyArray<Answered>, { ahead, first }: Place) => {
  const done = new Set(ahead)
  const indexes: Array<number> = []
  let until = Number.POSITIVE_INFINITY
  for (let index = first; index < answered.length; index++) {
    const operation = answered[index]
    if (operation === undefined || operation.called > until) break
    if (done.has(index)) continue
    indexes.push(index)
    until = Math.min(until, operation.answer.at)
  }
  return { indexes: indexes.filter((index) => (answered[index]?.called ?? 0) <= until), until }
}

/** Where a search may continue from a place, the most likely last. */
const next = (
  answered: ReadonlyArray<Answered>,
  unanswered: ReadonlyArray<RegisterOperation>,
  place: Place
): ReadonlyArray<Place> => {
  const { indexes, until } = open(answered, place)
  const places: Array<Place> = []
  for (const index of indexes) {
    const operation = answered[index]
    if (operation === undefined) continue
    const [output, state] = step(place.state, operation.input)
    if (output !== operation.answer.output) continue
    // An operation that fits and never writes disturbs no other: if there is an order, there is one with it here.
    if (operation.input.name === "find" || output === false) return [advance(place, index, state)]
    places.unshift(advance(place, index, state))
  }
  for (const [index, operation] of unanswered.entries()) {
    if (operation.called > until || place.unanswered.includes(index)) continue
    const [, state] = step(place.state, operation.input)
    // One that changes nothing might as well never happen.
    if (state === place.state) continue
    places.unshift({ ...place, unanswered: withNumber(place.unanswered, index), state })
  }
  return places
}

export interface Verdict {
  /** `undefined` if the search took too long. */
  readonly isLinearizable: boolean | undefined
  /** How far the longest order went: what stood there then, and what could not be next. */
  readonly stuck: { readonly state: Value; readonly operations: ReadonlyArray<RegisterOperation> }
}

/** Searches for an order of the operations on one register, which has nothing in it at first. */
export const check = (operations: ReadonlyArray<RegisterOperation>, mostPlaces = 1_000_000): Verdict => {
  const sorted = operations.toSorted((a, b) => a.called - b.called)
  const answered = sorted.filter(isAnswered)
  const unanswered = sorted.filter((operation) => !isAnswered(operation) && operation.input.name !== "find")
  let furthest: Place = { first: 0, ahead: [], unanswered: [], state: null }
  const stack: Array<Place> = [furthest]
  const seen = new Set<string>()
  const verdict = (isLinearizable: boolean | undefined): Verdict => {
    const stuckAt = open(answered, furthest).indexes.flatMap((index) => answered[index] ?? [])
    return { isLinearizable, stuck: { state: furthest.state, operations: stuckAt } }
  }
  for (let place = stack.pop(); place !== undefined; place = stack.pop()) {
    if (place.first === answered.length) return verdict(true)
    if (place.first + place.ahead.length > furthest.first + furthest.ahead.length) furthest = place
    const key = keyOf(place)
    if (seen.has(key)) continue
    if (seen.size === mostPlaces) return verdict(undefined)
    seen.add(key)
    stack.push(...next(answered, unanswered, place))
  }
  return verdict(false)
}
