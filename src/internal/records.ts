/**
 * The sessions of one class in a store: what is under a key, and how it changes.
 *
 * A key holds a session, or a tombstone that leads to its successor. One compare-and-set loop, {@link compareAndSet},
 * makes every change. A key whose token a client may have is never deleted blindly: a blind delete could remove a
 * tombstone, report a log-out, and leave the successor alive.
 */
import { Clock, DateTime, Duration, Effect, Option, type Schema } from "effect"
import type { SessionStore, SessionStoreError } from "../SessionStore.ts"
import { type Decoded, type Envelope, makeEnvelope, makeSealed } from "./envelope.ts"
import type { SessionDecodeError, SessionError } from "./errors.ts"
import { share } from "./looks.ts"
import type { Along, Contents, Kept } from "./state.ts"
import { makeTelemetry, publish, type Telemetry } from "./telemetry.ts"
import { Queues, type Restore } from "./turns.ts"
import { Hubs } from "./watches.ts"

/** The part of a store that a session uses. */
export interface Store extends Pick<SessionStore["Service"], "find" | "create" | "replace" | "delete"> {
  /** Makes waiting as interruptible as the operations of this store. */
  readonly restore?: Restore
}

/** Which sessions belong together, and how many may. */
export interface IndexOptions<A> {
  readonly indexedBy: (value: A) => string | undefined
  /** How many sessions one value may have. */
  readonly max: number
}

/** A session that was found. */
export type FoundSession<A> = Extract<Decoded<A>, { readonly _tag: "Session" }>

/** What was found under a key. */
export type Found<A> =
  | Exclude<Decoded<A>, { readonly _tag: "Foreign" }>
  | { readonly _tag: "Undecodable"; readonly text: string }
  | { readonly _tag: "Nothing" }

/** What to do about what was found: replace it, look again now or after a moment, or leave it. */
export type Step<B> =
  | {
      readonly _tag: "Write"
      /** `undefined` if nothing is there. */
      readonly expected: string | undefined
      readonly text: string
      readonly expiry: DateTime.Utc
      readonly result: B
    }
  | { readonly _tag: "Look" }
  | { readonly _tag: "Wait" }
  | { readonly _tag: "Done"; readonly result: B }

export const done = <B>(result: B): Step<B> => ({ _tag: "Done", result })

export const look: Step<never> = { _tag: "Look" }

/** Looks again after a moment, because something is in progress that may be cancelled. */
export const wait: Step<never> = { _tag: "Wait" }

export const write = <B>(expected: string | undefined, text: string, expiry: DateTime.Utc, result: B): Step<B> => ({
  _tag: "Write",
  expected,
  text,
  expiry,
  result
})

/** A compare-and-delete: replaces what is there with an empty text that expired long ago. */
export const remove = <B>(expected: string, result: B): Step<B> => write(expected, "", longAgo, result)

export const longAgo = DateTime.makeUnsafe(-1)

/** How long a tombstone stays, and how long a renewal may take, in milliseconds. */
const tombstoneTime = 60_000

// The idle timeout of a session may be shorter than the touch interval of its class. Without an idle timeout, there is
// no expiry to move.
const touchIntervalOf = (touchInterval: number | undefined, idleTimeout: number): number =>
  touchInterval !== undefined && touchInterval < idleTimeout && Number.isFinite(idleTimeout)
    ? touchInterval
    : idleTimeout / 20

/** How many commits of one session may wait in one process. */
export const longestQueue = 1_000

/**
 * The first retry of a commit that lost comes immediately, each later one after up to twice as long as the one before.
 */
export const backoff = (losses: number): Effect.Effect<void> =>
  losses < 2
    ? Effect.void
    : Effect.suspend(() => Effect.sleep(Duration.millis(Math.random() * Math.min(2 ** (losses - 1), 100))))

interface RecordsOptions<A> {
  readonly key: string
  readonly schema: Schema.Codec<A, unknown>
  readonly initial: () => A
  /** In milliseconds, like the times below. */
  readonly lifetime: number
  readonly idleTimeout: number | null
  /** `undefined` for a fraction of the idle timeout. */
  readonly touchInterval: number | undefined
  readonly undecodable: "renew" | "fail"
  readonly indexes: ReadonlyMap<string, IndexOptions<A>>
  readonly recheckInterval: number
}

const howToGoOn =
  "it is taken as ended. If its schema changed, give new fields a default, such as by Schema.withDecodingDefaultKey; the " +
  'class option undecodable: "fail" tells where it does not fit'

export class Records<A> {
  readonly key: string
  readonly initial: () => A
  readonly envelope: Envelope<A>
  readonly telemetry: Telemetry
  readonly queues = new Queues<Kept<A>, Along<A>>()
  readonly hubs = new Hubs()
  readonly indexes: ReadonlyMap<string, IndexOptions<A>>
  readonly recheckInterval: number
  readonly #lifetime: number
  readonly #idleTimeout: number | null
  readonly #touchInterval: number | undefined
  readonly #undecodable: "renew" | "fail"
  #isWarnedOfForeign = false

  constructor(options: RecordsOptions<A>) {
    this.key = options.key
    this.initial = options.initial
    this.envelope = makeEnvelope(options.key, options.schema)
    this.telemetry = makeTelemetry(options.key)
    this.indexes = options.indexes
    this.recheckInterval = options.recheckInterval
    this.#lifetime = options.lifetime
    this.#idleTimeout = options.idleTimeout
    this.#touchInterval = options.touchInterval
    this.#undecodable = options.undecodable
  }

  /** The contents of a session that begins now. */
  contentsAt(now: number): Contents<A> {
    const instant = Math.floor(now)
    return {
      value: this.initial(),
      createdAt: instant,
      issuedAt: instant,
      usedAt: instant,
      deadline: this.deadlineAt(now),
      idleTimeout: undefined,
      rememberMe: false,
      memberOf: [],
      former: undefined
    }
  }

  // A clock may return fractions of a millisecond; the envelope has none.
  deadlineAt(now: number): number {
    return Math.ceil(now + this.#lifetime)
  }

  /** When the session ends by itself, in milliseconds since 1970. */
  endOf(contents: Contents<A>): number {
    return Math.min(contents.deadline, contents.usedAt + this.#idleTimeoutOf(contents))
  }

  expiryOf(contents: Contents<A>): DateTime.Utc {
    return DateTime.makeUnsafe(this.endOf(contents))
  }

  /** Whether the last noted use is so long ago that this one has to be noted. */
  isTouchDue(contents: Contents<A>, now: number): boolean {
    const idle = this.#idleTimeoutOf(contents)
    return now - contents.usedAt >= touchIntervalOf(this.#touchInterval, idle)
  }

  #idleTimeoutOf({ idleTimeout }: Contents<A>): number {
    return (idleTimeout === undefined ? this.#idleTimeout : idleTimeout) ?? Number.POSITIVE_INFINITY
  }

  /** What is under a key. If it does not decode, warns, or fails if the class says so. */
  find(store: Pick<Store, "find">, key: string): Effect.Effect<Found<A>, SessionError> {
    return Effect.flatMap(store.find(key), (held) => this.#read(held))
  }

  /**
   * Finds a session to open it, and maps it with `f`. If it is being changed, the look-up is shared with other
   * requests.
   */
  findToOpen<B>(store: Pick<Store, "find">, key: string, f: (found: Found<A>) => B): Effect.Effect<B, SessionError> {
    const queue = this.queues.peek(store, key)
    const look = store.find(key)
    return Effect.flatMap(queue === undefined ? look : share(queue.looks, look), (held) =>
      Effect.mapEager(this.#read(held), f)
    )
  }

  #read(held: Option.Option<string>): Effect.Effect<Found<A>, SessionDecodeError> {
    return Option.isNone(held)
      ? Effect.succeed(nothing)
      : Effect.catchEager(this.#decode(held.value), (error) => this.#insteadOf(error, held.value))
  }

  /** The session to list, if the text is one. If it does not decode, it is skipped with a warning. */
  list(text: string, now: number): Effect.Effect<FoundSession<A> | undefined> {
    return this.envelope.decode(text).pipe(
      Effect.mapEager((found) => (found._tag !== "Foreign" && this.isActive(found, now) ? found : undefined)),
      Effect.catchEager((error) => Effect.as(this.#passOver(error), undefined))
    )
  }

  /** Whether this is a session that is neither over nor part of a renewal that may still be cancelled. */
  isActive(found: Found<A>, now: number): found is FoundSession<A> {
    // A store whose clock is behind may still hold an expired session.
    return found._tag === "Session" && !found.isPending && now <= this.endOf(found.contents)
  }

  /** What is known about a session, unless it is over by now: others may have kept it alive, so look it up. */
  known(kept: Kept<A>, now: number): Found<A> | undefined {
    const found = asFound(kept)
    return this.isActive(found, now) ? found : undefined
  }

  /** What is under a key, for ending it: its value need not decode. */
  inspect(held: Option.Option<string>): Effect.Effect<Found<A>> {
    return Option.isNone(held)
      ? Effect.succeed(nothing)
      : Effect.catchEager(this.#decode(held.value), () => Effect.succeed(asUndecodable(held.value)))
  }

  /** A session of another class counts as nothing. */
  #decode(text: string): Effect.Effect<Found<A>, SessionDecodeError> {
    return Effect.flatMapEager(
      this.envelope.decode(text),
      (decoded): Effect.Effect<Found<A>> =>
        decoded._tag === "Foreign" ? Effect.as(this.#warnOfForeign, nothing) : Effect.succeed(decoded)
    )
  }

  /** What replaces a session that does not decode, unless the class says to fail. */
  #insteadOf(error: SessionDecodeError, text: string): Effect.Effect<Found<A>, SessionDecodeError> {
    return this.#undecodable === "fail"
      ? Effect.andThen(this.telemetry.undecodable, Effect.fail(error))
      : Effect.as(this.#passOver(error), asUndecodable(text))
  }

  #passOver(error: SessionDecodeError): Effect.Effect<void> {
    return Effect.andThen(this.telemetry.undecodable, Effect.logWarning(`${error.message}; ${howToGoOn}`))
  }

  /** Changes what is under a key, by {@link compareAndSet}. */
  readonly change: <B, E>(
    store: Store,
    key: string,
    known: Found<A> | undefined,
    decide: (found: Found<A>, isFresh: boolean) => Effect.Effect<Step<B>, E>
  ) => Effect.Effect<B, E | SessionError> = (store, key, known, decide) =>
    compareAndSet(store, key, this.find(store, key), decide, known)

  /**
   * Ends the session under a key and its successors, and returns whether there was one. `known` saves a look-up.
   */
  readonly end: (store: Store, key: string, known: Found<A> | undefined) => Effect.Effect<boolean, SessionStoreError> =
    (store, key, known) => endLine(this, store, key, known)

  /** Ends a session whose token nobody else has, including its writes that have not arrived yet. */
  bury(store: Store, key: string): Effect.Effect<void, SessionStoreError> {
    return Effect.clockWith((clock) => {
      const grave = graveEnd(clock.currentTimeMillisUnsafe())
      const sealed = makeSealed(this.key)
      const find = Effect.flatMap(store.find(key), (held) => this.inspect(held))
      const decide = (found: Found<A>): Step<void> =>
        found._tag === "Tombstone"
          ? done(undefined)
          : write(found._tag === "Nothing" ? undefined : found.text, sealed, grave, undefined)
      return compareAndSet(store, key, find, (found) => Effect.succeed(decide(found)), nothing)
    })
  }

  get #warnOfForeign(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#isWarnedOfForeign) return Effect.void
      this.#isWarnedOfForeign = true
      return Effect.logWarning(
        `${this.key}: a token opens a session of another class, and so none here. Do two classes share the name of a ` +
          `cookie, or was the key of this one changed?`
      )
    })
  }
}

/** What is known about a key that nobody has used yet. */
export const nothing: { readonly _tag: "Nothing" } = { _tag: "Nothing" }

const asUndecodable = (text: string) => ({ _tag: "Undecodable", text }) as const

/** A session that was found, with its key. */
export const asKept = <A>(key: string, { contents, isPending, text }: FoundSession<A>): Kept<A> => ({
  key,
  text,
  contents,
  isPending
})

/** A session in memory, as if it had just been found. */
export const asFound = <A>({ contents, isPending, text }: Kept<A>): Found<A> => ({
  _tag: "Session",
  text,
  contents,
  isPending
})

/** When a tombstone that is written now expires. */
export const graveEnd = (now: number): DateTime.Utc => DateTime.makeUnsafe(now + tombstoneTime)

/**
 * The only compare-and-set loop: does what `decide` says about what is under a key, and asks again as long as others
 * are faster. It begins with what is known, if anything, instead of a look-up.
 *
 * In few steps of the fiber, because every request that changes something runs this.
 */
export const compareAndSet = <F, B, E, E2>(
  store: Pick<Store, "create" | "replace">,
  key: string,
  find: Effect.Effect<F, E2>,
  decide: (found: F, isFresh: boolean) => Effect.Effect<Step<B>, E>,
  known: F | undefined
): Effect.Effect<B, E | E2 | SessionStoreError> => {
  const again = (losses: number) => Effect.flatMap(find, (found) => act(found, true, losses))
  const act = (found: F, isFresh: boolean, losses: number): Effect.Effect<B, E | E2 | SessionStoreError> =>
    Effect.flatMapEager(decide(found, isFresh), (step) => {
      switch (step._tag) {
        case "Done":
          return Effect.succeed(step.result)
        case "Look":
          return again(losses)
        case "Wait":
          return Effect.andThen(backoff(losses + 1), again(losses + 1))
        case "Write": {
          const { expected, expiry, result, text } = step
          const written =
            expected === undefined ? store.create(key, text, expiry) : store.replace(key, expected, text, expiry)
          return Effect.flatMap(written, (isWritten) =>
            isWritten ? Effect.succeed(result) : Effect.andThen(backoff(losses + 1), again(losses + 1))
          )
        }
      }
    })
  return known === undefined ? again(0) : act(known, false, 0)
}

const endLine = Effect.fnUntraced(function* <A>(
  self: Records<A>,
  store: Store,
  first: string,
  known: Found<A> | undefined
): Effect.fn.Return<boolean, SessionStoreError> {
  const visited = new Set<string>()
  const grave = graveEnd(yield* Clock.currentTimeMillis)
  let key: string | undefined = first
  let former: string | undefined
  let found = known
  let isEnded = false
  // Two sessions that merge each other are each other's successors.
  while (key !== undefined && !visited.has(key)) {
    const at: string = key
    visited.add(at)
    const find = Effect.flatMap(store.find(at), (held) => self.inspect(held))
    const next: EndOfOne = yield* compareAndSet(
      store,
      at,
      find,
      (found) => Effect.succeed(stepToEnd(self, { key: at, former }, found, grave)),
      found
    )
    isEnded ||= next.isEnded
    if (next.id !== undefined) yield* publish({ _tag: "Destroyed", session: self.key, id: next.id })
    former = at
    key = next.next
    found = undefined
  }
  return isEnded
})

interface EndOfOne {
  readonly isEnded: boolean
  /** The last id of the session that has ended. */
  readonly id: string | undefined
  readonly next?: string | undefined
}

/**
 * A tombstone is sealed before its successor ends, so a renewal in progress cannot succeed after that. A session also
 * leaves a tombstone. Without one, a renewal or merge that is retried could not tell whether the session was ended or
 * never arrived.
 */
const stepToEnd = <A>(
  self: Records<A>,
  { former, key }: { readonly key: string; readonly former: string | undefined },
  found: Found<A>,
  grave: DateTime.Utc
): Step<EndOfOne> => {
  switch (found._tag) {
    case "Nothing":
      return done({ isEnded: false, id: undefined })
    case "Undecodable":
      return remove(found.text, { isEnded: true, id: key })
    case "Session":
      // Removing a session that a renewal has not handed out yet does not count as ending one; the session that was
      // being renewed does.
      return found.isPending
        ? remove(found.text, { isEnded: false, id: former, next: found.contents.former })
        : write(found.text, makeSealed(self.key), grave, { isEnded: true, id: key })
    case "Tombstone": {
      const { isSealed, successor, text } = found
      const result = { isEnded: false, id: found.held === undefined ? undefined : key, next: successor }
      return isSealed ? done(result) : write(text, makeSealed(self.key, successor), grave, result)
    }
  }
}
