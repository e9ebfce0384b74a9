/**
 * The format of a session in the store: contents to text and back.
 *
 * A session is JSON with the fields that `Session` documents. A tombstone is JSON with the id of the successor, if
 * there is one. Each write has a unique id, so no two writes have the same text. Finding that text in the store proves
 * that this write arrived, and a compare-and-set never mistakes a newer session for the expected one.
 */
import { Effect, Exit, Predicate, Schema } from "effect"
import { SessionDecodeError } from "./errors.ts"
import { type Contents, withValue } from "./state.ts"

/** What is found under a key, for one class of sessions. */
export type Decoded<A> =
  | { readonly _tag: "Session"; readonly text: string; readonly contents: Contents<A>; readonly isPending: boolean }
  | Tombstone
  | { readonly _tag: "Foreign" }

/** What a renewal, a merge or a log-out leaves under a key. It opens nothing, and leads a log-out to the successor. */
export interface Tombstone {
  readonly _tag: "Tombstone"
  readonly text: string
  /** The key of the successor. `undefined` if there is none, because the session was logged out. */
  readonly successor: string | undefined
  /** Whether a log-out has sealed it: the successor ends too, and nothing may be put back. */
  readonly isSealed: boolean
  /** The text of a session that is being merged, until the merge is saved or cancelled. */
  readonly held: string | undefined
  /** The id of that merge. */
  readonly merge: string | undefined
}

export interface Envelope<A> {
  /**
   * Dies if the value does not fit the schema, or nests deeper than 256 levels. A pending session belongs to a renewal
   * or a merge that is not complete yet.
   */
  readonly encode: (contents: Contents<A>, options?: { readonly isPending: boolean }) => Effect.Effect<string>
  readonly decode: (text: string) => Effect.Effect<Decoded<A>, SessionDecodeError>
}

/**
 * How deep the JSON of a value may nest. A codec recurses for each level, and freshly loaded code takes more stack than
 * code that has run for a while, so a value that one process saved might overflow the stack of another. In a fresh
 * process, a union of recursive classes decodes 800 levels but not 1,000; of all schemas tried, it takes the most
 * stack.
 */
const deepest = 256

/**
 * Whether a value nests deeper than a codec is sure to decode. It walks the value, not the text: in the text it would
 * have to read every character, and `JSON.stringify` returns parts that the first read copies into one string.
 */
const nestsDeeper = (value: unknown, levels: number): boolean => {
  if (typeof value !== "object" || value === null) return false
  if (levels === 0) return true
  // Loops, because a callback for each part, as with `some`, is six times slower.
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) if (nestsDeeper(value[i], levels - 1)) return true
  } else if (Predicate.isReadonlyObject(value)) {
    for (const key in value) if (nestsDeeper(value[key], levels - 1)) return true
  }
  return false
}

const tooDeep = "It nests too deep"

/** The JSON of a value, or the reason why it has none. `Schema.Any` accepts values that have none. */
const toJson = (value: unknown): { readonly json: string } | { readonly reason: string } => {
  let json: string | undefined
  try {
    json = JSON.stringify(value)
  } catch (cause) {
    // The error for a cycle names what is in it.
    return { reason: cause instanceof RangeError ? tooDeep : "It has no JSON" }
  }
  if (json === undefined) return { reason: "It has no JSON" }
  // Each level takes two characters.
  return json.length > 2 * deepest && nestsDeeper(value, deepest) ? { reason: tooDeep } : { json }
}

/** Runs a codec, which recurses for each level of a value, and handles a stack overflow. */
const onOverflow = <I, A, E, E2>(
  codec: (input: I) => Effect.Effect<A, E>,
  input: I,
  answer: () => Effect.Effect<never, E2>
): Effect.Effect<A, E | E2> => {
  try {
    const result = codec(input)
    if (Exit.isExit(result) && Exit.isSuccess(result)) return result
    return Effect.catchDefect(result, (defect) => (defect instanceof RangeError ? answer() : Effect.die(defect)))
  } catch (error) {
    if (error instanceof RangeError) return answer()
    throw error
  }
}

// The last fields of a session: `usedAt`, `former` and `write`.
const tailStart = ',"usedAt":'
const tailShape = /^,"usedAt":(-?\d+)(?:,"former":"[\w-]+")?,"write":"\w+"\}$/

/** The text before the fields that every write changes. The whole text, if it ends in any other way. */
const bodyOf = (text: string): string => {
  const end = text.lastIndexOf(tailStart)
  return end >= 0 && tailShape.test(text.slice(end)) ? text.slice(0, end) : text
}

/** Whether two texts are the same session, apart from the time of its use and the id of the write. */
export const isUnchanged = (one: string, other: string): boolean => {
  // Usually they are not, and then their ends need no comparison.
  const end = one.lastIndexOf(tailStart)
  if (end !== other.lastIndexOf(tailStart) || !one.startsWith(other.slice(0, Math.max(end, 0)))) return false
  return bodyOf(one) === bodyOf(other)
}

// Ids have to be unique, not secret. Made on demand, because a Worker has no random numbers before its first request.
const idsOfOneStart = 36 ** 5
let start = ""
let count = idsOfOneStart

/** Twelve characters that no other write has, in any process. */
export const makeId = (): string => {
  if (count === idsOfOneStart) {
    start = Math.random().toString(36).slice(2, 9).padEnd(7, "0")
    count = 0
  }
  return start + (count++).toString(36).padStart(5, "0")
}

/** The same session, used at this time. */
export const touch = (text: string, usedAt: number): string =>
  `${bodyOf(text)}${tailStart}${usedAt},"write":"${makeId()}"}`

/** The same session with a new write id, so no write that is still in flight finds the text that it expects. */
export const restamp = (text: string): string => {
  const usedAt = tailShape.exec(text.slice(text.lastIndexOf(tailStart)))?.[1]
  return usedAt === undefined ? text : touch(text, Number(usedAt))
}

/** The largest time that a `Date` can hold, in milliseconds. */
const farthest = 8.64e15

const isInstant = (input: unknown): input is number =>
  Number.isSafeInteger(input) && Math.abs(Number(input)) <= farthest

const isFlag = (input: unknown): input is boolean | undefined => input === undefined || typeof input === "boolean"

const isKeys = (input: unknown): input is ReadonlyArray<string> | undefined =>
  input === undefined || (Array.isArray(input) && input.every(Predicate.isString))

const isIdleTimeout = (input: unknown): input is number | null | undefined =>
  input === undefined || input === null || (Number.isFinite(input) && Number(input) > 0)

type Parsed = Readonly<Record<PropertyKey, unknown>>

/**
 * Everything except the value, or the name of the field that does not fit. Hand-written, because a schema takes four
 * times as long.
 */
const readFields = (parsed: Parsed): Omit<Contents<unknown>, "value"> | string => {
  const { createdAt, deadline, former, idleTimeout, issuedAt, memberOf, rememberMe, usedAt } = parsed
  if (!isInstant(createdAt)) return "createdAt"
  if (!isInstant(issuedAt)) return "issuedAt"
  if (!isInstant(usedAt)) return "usedAt"
  if (!isInstant(deadline)) return "deadline"
  if (!isIdleTimeout(idleTimeout)) return "idleTimeout"
  if (!isFlag(rememberMe)) return "rememberMe"
  if (!isFlag(parsed.pending)) return "pending"
  if (!isKeys(memberOf)) return "memberOf"
  if (former !== undefined && typeof former !== "string") return "former"
  return {
    createdAt,
    deadline,
    former,
    idleTimeout,
    issuedAt,
    memberOf: memberOf ?? [],
    rememberMe: rememberMe ?? false,
    usedAt
  }
}

// Joined by hand, because `JSON.stringify` of all fields takes twice as long. Joined from an array, because a chain of
// strings would be flattened later, and kept until then. `bodyOf` depends on the order of the last three fields.
const format = <A>(head: string, contents: Contents<A>, value: string, isPending: boolean): string => {
  const { createdAt, deadline, former, idleTimeout, issuedAt, memberOf, rememberMe, usedAt } = contents
  const parts: Array<string | number> = [head, createdAt, ',"issuedAt":', issuedAt, ',"deadline":', deadline]
  if (idleTimeout !== undefined) parts.push(',"idleTimeout":', JSON.stringify(idleTimeout))
  if (rememberMe) parts.push(',"rememberMe":true')
  if (isPending) parts.push(',"pending":true')
  if (memberOf.length > 0) parts.push(',"memberOf":', JSON.stringify(memberOf))
  parts.push(',"value":', value, tailStart, usedAt)
  if (former !== undefined) parts.push(',"former":', JSON.stringify(former))
  parts.push(',"write":"', makeId(), '"}')
  return parts.join("")
}

export const makeEnvelope = <A>(key: string, schema: Schema.Codec<A, unknown>): Envelope<A> => {
  const codec = Schema.toCodecJson(schema)
  const encodeValue = Schema.encodeEffect(codec)
  const decodeValue = Schema.decodeUnknownEffect(codec)

  const head = `{"version":1,"session":${JSON.stringify(key)},"createdAt":`

  const unfit = (reason: string) => Effect.die(new TypeError(`${key}: the value does not fit its schema: ${reason}`))

  const fail = (cause: unknown) => Effect.fail(new SessionDecodeError({ session: key, cause }))

  // Eager, here and below: few codecs are asynchronous, and every request decodes and encodes.
  const encode: Envelope<A>["encode"] = (contents, options) =>
    onOverflow(encodeValue, contents.value, () => unfit(tooDeep)).pipe(
      Effect.catchEager((error) => unfit(error.message)),
      Effect.flatMapEager((value) => {
        const encoded = toJson(value)
        if ("reason" in encoded) return unfit(encoded.reason)
        return Effect.succeed(format(head, contents, encoded.json, options?.isPending ?? false))
      })
    )

  const decodeSession = (text: string, parsed: Parsed): Effect.Effect<Decoded<A>, SessionDecodeError> => {
    const fields = readFields(parsed)
    if (typeof fields === "string") return fail(new Error(`The field ${fields} does not fit`))
    const isPending = parsed.pending === true
    return onOverflow(decodeValue, parsed.value, () => fail(new Error("The data nests too deep"))).pipe(
      Effect.mapEager(
        (value): Decoded<A> => ({ _tag: "Session", text, isPending, contents: withValue(fields, value) })
      ),
      Effect.catchEager(fail)
    )
  }

  const decode: Envelope<A>["decode"] = (text) => {
    let parsed: unknown
    try {
      parsed = JSON.parse(text)
    } catch {
      // The thrown error would quote the data.
      return fail(new Error("The data is not JSON"))
    }
    if (!Predicate.isReadonlyObject(parsed)) return fail(new Error("The data is not an object"))
    const { ended, held, index, merge, session, successor, version } = parsed
    // An index record or a session of another class: the other fields do not matter.
    if (typeof index === "string" || (typeof session === "string" && session !== key))
      return Effect.succeed({ _tag: "Foreign" })
    if (version !== 1 || session !== key) return fail(new Error("The data is not a session of version 1"))
    if (typeof successor !== "string" && ended !== true) return decodeSession(text, parsed)
    return Effect.succeed({
      _tag: "Tombstone",
      text,
      successor: typeof successor === "string" ? successor : undefined,
      isSealed: ended === true,
      held: typeof held === "string" ? held : undefined,
      merge: typeof merge === "string" ? merge : undefined
    })
  }

  return { encode, decode }
}

/** The same text every time, so a tombstone can be recognised by its successor. */
export const makeTombstone = (session: string, successor: string): string =>
  JSON.stringify({ version: 1, session, successor })

/** What a log-out leaves in place of a tombstone, or of a session, which has no successor. */
export const makeSealed = (session: string, successor?: string | undefined): string =>
  JSON.stringify({ version: 1, session, successor, ended: true })

/** The tombstone of a session while it is being merged into another. Each one has a unique write id, like a session. */
export const makeHold = (session: string, successor: string, merge: string, held: string): string =>
  JSON.stringify({ version: 1, session, successor, merge, held, write: makeId() })
