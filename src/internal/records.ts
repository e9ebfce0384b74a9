/**
 * The sessions of one class in a store: what stands under a key, and how it is changed.
 *
 * Whatever stands under a key is a session, or a tombstone that leads on to its successor, and is changed by one
 * compare-and-set loop, {@link compareAndSet}. Nothing is ever deleted blindly that somebody may have a token of: a
 * blind delete would remove a tombstone, be confirmed as a log-out, and leave the successor alive.
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

/** The part of a store that a session in memory uses. */
export interface Store extends Pick<SessionStore["Service"], "find" | "create" | "replace" | "delete"> {
  /** Makes what waits as interruptible as the operations of this store are. */
  readonly restore?: Restore
}

/** What sessions of one value belong together. */
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

/** What to do about what was found: write something in its place, look again at once or after a moment, or leave it. */
export type Step<B> =
  | {
      readonly _tag: "Write"
      /** `undefined` for nothing. */
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

/** To look again after a moment, as something is under way that may be called off. */
export const wait: Step<never> = { _tag: "Wait" }

export const write = <B>(expected: string | undefined, text: string, expiry: DateTime.Utc, result: B): Step<B> => ({
  _tag: "Write",
  expected,
  text,
  expiry,
  result
})

/** To replace what is there by nothing that expired long ago is to compare and delete it. */
export const remove = <B>(expected: string, result: B): Step<B> => write(expected, "", longAgo, result)

export const longAgo = DateTime.makeUnsafe(-1)

/** How long a tombstone stands, and how long a renewal may take, in milliseconds. */
const tombstoneTime = 60_000

// An idle timeout of a session's own may be shorter than the interval of its class. Without one there is nothing to move.
const touchIntervalOf = (touchInterval: number | undefined, idleTimeout: number): number =>
  touchInterval !== undefined && touchInterval < idleTimeout && Number.isFinite(idleTimeout)
    ? touchInterval
    : idleTimeout / 20

/** How many commits of one session may wait in one process. */
export const longestQueue = 1_000

/** A loser's first new try comes at once, each further one after up to twice as long as the one before. */
export const backoff = (losses: number): Effect.Effect<void> =>
  losses < 2
    ? Effect.void
    : Effect.suspend(() => Effect.sleep(Duration.millis(Math.random() * Math.min(2 ** (losses - 1), 100))))

interface RecordsOptions<A> {
  readonly key: string
  readonly schema: Schema.Codec<A, unknown>
  readonly initial: () => A
  /** In milliseconds, as is what follows. */
  readonly lifetime: number
  readonly idleTimeout: number | null
  /** `undefined` for a part of the idle timeout. */
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

  /** What a session holds that begins now. */
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

  // A clock may have fractions of a millisecond, which the envelope has not.
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

  /** Whether it is so long since the last use that was noted, that this one has to be. */
  isTouchDue(contents: Contents<A>, now: number): boolean {
    const idle = this.#idleTimeoutOf(contents)
    return now - contents.usedAt >= touchIntervalOf(this.#touchInterval, idle)
  }

  #idleTimeoutOf({ idleTimeout }: Contents<A>): number {
    return (idleTimeout === undefined ? this.#idleTimeout : idleTimeout) ?? Number.POSITIVE_INFINITY
  }

  /** What stands under a key. Warns of what does not decode, or fails if the class was told to. */
  find(store: Pick<Store, "find">, key: string): Effect.Effect<Found<A>, SessionError> {
    return Effect.flatMap(store.find(key), (held) => this.#read(held))
  }

  /** The same, for whoever opens the session, and what is made of it: shared with others if it is being changed. */
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

  /** A session that is to be listed, if this is one. One that does not decode is passed over, with a warning. */
  list(text: string, now: number): Effect.Effect<FoundSession<A> | undefined> {
    return this.envelope.decode(text).pipe(
      Effect.mapEager((found) => (found._tag !== "Foreign" && this.isActive(found, now) ? found : undefined)),
      Effect.catchEager((error) => Effect.as(this.#passOver(error), undefined))
    )
  }

  /** Whether this is a session, neither over nor part of a renewal that may still be called off. */
  isActive(found: Found<A>, now: number): found is FoundSession<A> {
    // A store whose clock is behind may still have what is over.
    return found._tag === "Session" && !found.isPending && now <= this.endOf(found.contents)
  }

  /** What is known of a session, unless it is over by now: others may have kept it alive, so that it takes a look. */
  known(kept: Kept<A>, now: number): Found<A> | undefined {
    const found = asFound(kept)
    return this.isActive(found, now) ? found : undefined
  }

  /** What that is which stands under a key, if it is to be ended and need not decode. */
  inspect(held: Option.Option<string>): Effect.Effect<Found<A>> {
    return Option.isNone(held)
      ? Effect.succeed(nothing)
      : Effect.catchEager(this.#decode(held.value), () => Effect.succeed(asUndecodable(held.value)))
  }

  /** A session of another class is nothing to this one. */
  #decode(text: string): Effect.Effect<Found<A>, SessionDecodeError> {
    return Effect.flatMapEager(
      this.envelope.decode(text),
      (decoded): Effect.Effect<Found<A>> =>
        decoded._tag === "Foreign" ? Effect.as(this.#warnOfForeign, nothing) : Effect.succeed(decoded)
    )
  }

  /** What to go on with in place of a session that does not decode, unless the class was told to fail. */
  #insteadOf(error: SessionDecodeError, text: string): Effect.Effect<Found<A>, SessionDecodeError> {
    return this.#undecodable === "fail"
      ? Effect.andThen(this.telemetry.undecodable, Effect.fail(error))
      : Effect.as(this.#passOver(error), asUndecodable(text))
  }

  #passOver(error: SessionDecodeError): Effect.Effect<void> {
    return Effect.andThen(this.telemetry.undecodable, Effect.logWarning(`${error.message}; ${howToGoOn}`))
  }

  /** Changes what stands under a key, by {@link compareAndSet}. */
  readonly change: <B, E>(
    store: Store,
    key: string,
    known: Found<A> | undefined,
    decide: (found: Found<A>, isFresh: boolean) => Effect.Effect<Step<B>, E>
  ) => Effect.Effect<B, E | SessionError> = (store, key, known, decide) =>
    compareAndSet(store, key, this.find(store, key), decide, known)

  /**
   * Ends the session under a key, and those that took over from it, and says whether there was one. What is known of it
   * saves a look.
   */
  readonly end: (store: Store, key: string, known: Found<A> | undefined) => Effect.Effect<boolean, SessionStoreError> =
    (store, key, known) => endLine(this, store, key, known)

  /** Ends what only this session has the token of, and whatever it has sent there that did not arrive yet. */
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

/** What is known of a key that nobody can have used yet. */
export const nothing: { readonly _tag: "Nothing" } = { _tag: "Nothing" }

const asUndecodable = (text: string) => ({ _tag: "Undecodable", text }) as const

/** A session that was found, with its key. */
export const asKept = <A>(key: string, { contents, isPending, text }: FoundSession<A>): Kept<A> => ({
  key,
  text,
  contents,
  isPending
})

/** What is known of a session, as if it had just been found. */
export const asFound = <A>({ contents, isPending, text }: Kept<A>): Found<A> => ({
  _tag: "Session",
  text,
  contents,
  isPending
})

/** When a tombstone goes that is set up now. */
export const graveEnd = (now: number): DateTime.Utc => DateTime.makeUnsafe(now + tombstoneTime)

/**
 * The one compare-and-set loop: does what `decide` says of what stands under a key, and asks it again as long as others
 * are faster. Begins with what is known of it, if anything is, rather than with a look.
 *
 * In few steps, as every request that changes something comes by here.
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
  // Two sessions that are being merged into each other are each other's successors.
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
  /** The session that has ended, by the id that it was last known by. */
  readonly id: string | undefined
  readonly next?: string | undefined
}

/**
 * A tombstone is sealed before its successor ends, so that a renewal which is under way cannot go through after that. A
 * session leaves a tombstone too: if nothing stood there, a renewal or a merge that is tried again could not tell whether
 * it was ended or never arrived.
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
      // To remove what a renewal has not handed out yet ends nothing, but the session that was to be renewed.
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
