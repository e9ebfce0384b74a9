/**
 * Typed sessions on any {@link SessionStore}, with no HTTP in them.
 *
 * {@link Service} makes a service tag from a schema. The {@link Session} behind it has the vocabulary of a `Ref`: `get`,
 * `set`, `update` and `modify` work on a value in memory, and `commit` writes what was changed. A commit is a
 * compare-and-set: where another request was faster, the changes of this one are applied again to the newer value, and
 * where the session has ended in the meantime, nothing is written. So no update is lost, and no log-out comes undone.
 *
 * In the store a session is UTF-8 JSON with these fields:
 *
 * - `version`: 1
 * - `session`: the key of its class; a session never opens as one of another class
 * - `deadline`: the end of its lifetime, in milliseconds since 1970
 * - `idleTimeout`: in milliseconds, `null` for none; only where `setIdleTimeout` set one of its own
 * - `rememberMe`: only where it is `true`
 * - `value`: the value, encoded by the JSON codec of its schema
 */
import { createHash } from "node:crypto"
import {
  Bytes,
  Clock,
  Context,
  DateTime,
  Duration,
  Effect,
  Formatter,
  Metric,
  Option,
  Redacted,
  Result,
  Schema,
  Semaphore,
  Stream
} from "effect"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Base64Url from "effect/encoding/Base64Url"
import { SessionStore, type SessionStoreError } from "./SessionStore.ts"

/**
 * What was done to a session since it was opened or last committed: nothing, something that a commit would save, or
 * `destroy` and nothing after it.
 */
export type Status = "unmodified" | "modified" | "destroyed"

/**
 * What a commit hands to whoever carries the token to the client and back.
 */
export interface Committed {
  /** The token of the session, a secret. */
  readonly token: Redacted.Redacted<string>
  /** When the session will expire: the earlier of its deadline and the end of its idle timeout. */
  readonly expiry: DateTime.Utc
  /** What `rememberMe` was last set to, `false` by default. */
  readonly rememberMe: boolean
  /** Whether the session was opened without this token, because it is new or was renewed. */
  readonly isTokenNew: boolean
  /** Whether the expiry has moved since the session was opened. */
  readonly isExpiryNew: boolean
  /** Whether `rememberMe` was turned on or off since the session was opened. */
  readonly isRememberMeNew: boolean
}

/**
 * One session: a typed value, and what belongs to it.
 *
 * A session in memory belongs to one request (or job, or connection). Its operations may be used from several fibers.
 *
 * **Gotchas**: changes are applied at once, and may be applied again, to a newer value, when the session is committed
 * while another request was faster. So they must be pure functions. `update((n) => n + 1)` counts every request;
 * `get`, then `set(n + 1)` overwrites what others counted in between.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { MemStore, Session } from "effect-sessions"
 *
 * class Visits extends Session.Service<Visits>()("app/Visits", { schema: Schema.Int, initial: () => 0 }) {}
 *
 * const program = Effect.gen(function* () {
 *   const session = yield* Visits.open()
 *   yield* session.update((n) => n + 1)
 *   yield* session.status // => "modified"
 *   yield* session.commit
 *   yield* session.status // => "unmodified"
 *   return yield* session.get
 * })
 *
 * await Effect.runPromise(Effect.provide(program, MemStore.layer)) // => 1
 * ```
 */
export interface Session<A> {
  /** The value, with every change that was made through this session. */
  readonly get: Effect.Effect<A>

  /** Replaces the value, also that of a request that is faster. Prefer `update`, which keeps what others changed. */
  readonly set: (value: A) => Effect.Effect<void>

  /** Changes the value by a pure function, which may be applied again to a newer value at commit. */
  readonly update: (f: (value: A) => A) => Effect.Effect<void>

  /**
   * Changes the value by a pure function that returns a result as well. It may be applied again to a newer value at
   * commit; the result is that of the first time.
   *
   * **When to use**: to read and change at once, as with a flash message that is shown and gone.
   */
  readonly modify: <B>(f: (value: A) => readonly [result: B, value: A]) => Effect.Effect<B>

  /** Sets the value back to `initial`. Token and deadline are kept. */
  readonly clear: Effect.Effect<void>

  /**
   * Ends the old token at once and has the next commit make a new one, with the same value. The lifetime starts anew.
   * A session that was never committed has no token to renew; only its lifetime starts anew.
   *
   * **When to use**: at every change of privilege, above all at log-in, so that a token that somebody planted or saw
   * before is worth nothing after it
   * ([OWASP on session fixation](https://cheatsheetseries.owasp.org/cheatsheets/Session_Management_Cheat_Sheet.html)).
   *
   * **Details**: no update of other requests is lost: those committed before it are in the value, those after it find
   * the session ended. Where it had ended already, this session has ended too: it saves nothing any more.
   */
  readonly renewToken: Effect.Effect<void, SessionError>

  /**
   * Removes the session from the store at once, and forgets its value. What is written afterwards belongs to a new
   * session, with a new token.
   *
   * **When to use**: at log-out.
   */
  readonly destroy: Effect.Effect<void, SessionStoreError>

  /**
   * Takes the value of another session in, and ends that one at once. Token and deadline of this session are kept. A
   * no-op where the other token opens nothing, or is this session's own.
   *
   * **When to use**: after a redirect flow that lost the cookie, with the token that came back by another way.
   */
  readonly merge: (
    token: Redacted.Redacted<string>,
    combine: (value: A, other: A) => A
  ) => Effect.Effect<void, SessionError>

  /** Asks the carrier of the token to keep it for longer than one browser session, or to stop doing so. */
  readonly rememberMe: (rememberMe: boolean) => Effect.Effect<void>

  /** Moves the instant at which this session ends, however much it is used. In the past, it ends at the commit. */
  readonly setDeadline: (deadline: DateTime.DateTime) => Effect.Effect<void>

  /**
   * Gives this session an idle timeout of its own, or with an infinite duration none. Dies with a `TypeError` where it
   * is not longer than zero.
   */
  readonly setIdleTimeout: (idleTimeout: Duration.Input) => Effect.Effect<void>

  /**
   * The secret that opens this session. `none` before the first commit, between `renewToken` or `destroy` and the next
   * commit, and in a session out of the stream `sessions` whose store was not given the token.
   */
  readonly token: Effect.Effect<Option.Option<Redacted.Redacted<string>>>

  /**
   * A public name of this session, the SHA-256 of its token: opens nothing, and so may stand in a list or a log. `none`
   * where the session is not in the store.
   */
  readonly id: Effect.Effect<Option.Option<string>>

  /** When the lifetime of this session ends. */
  readonly deadline: Effect.Effect<DateTime.Utc>

  /** Whether there is something to commit. */
  readonly status: Effect.Effect<Status>

  /**
   * Saves what there is to save: changes, a renewed token, and where there is an idle timeout, the expiry that moves on.
   * Applies the changes again where another request was faster. Writes nothing where there is nothing to save, or where
   * the session has ended since it was opened.
   *
   * Returns token and expiry for whoever carries them: `none` where the session has ended, or was new and is unchanged.
   *
   * **Errors**: a failure of the store leaves the changes in place, to be committed again; whether a write that failed
   * had reached the store is not known. Dies with a `TypeError` where the value does not fit its schema.
   */
  readonly commit: Effect.Effect<Option.Option<Committed>, SessionError>
}

/**
 * Data in the store that does not decode as a session of this class, probably because its schema changed.
 *
 * Comes only from a class with `undecodable: "fail"`. Its `cause` says where the data did not fit, not what it was.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Session } from "effect-sessions"
 *
 * class Cart extends Session.Service<Cart>()("app/Cart", {
 *   schema: Schema.Array(Schema.String),
 *   initial: () => [],
 *   undecodable: "fail"
 * }) {}
 *
 * const open = Effect.catchTag(Cart.open(), "SessionDecodeError", (error) => Effect.die(error.message))
 * ```
 */
export class SessionDecodeError extends Schema.TaggedError<SessionDecodeError>("effect-sessions/SessionDecodeError")(
  "SessionDecodeError",
  {
    /** The key of the session class. */
    session: Schema.String,
    /** What did not fit. */
    cause: Schema.Defect()
  }
) {
  override get message(): string {
    return `${this.session}: a session in the store does not decode`
  }
}

/**
 * What can go wrong with a session: the store failed, or what it holds does not decode and the class was told to fail.
 */
export type SessionError = SessionStoreError | SessionDecodeError

/**
 * What a session class is made from.
 */
export interface Options<A, I> {
  /** Describes the value. It is kept as JSON, encoded by this schema. */
  readonly schema: Schema.Codec<A, I>
  /** Makes the value of a new session. */
  readonly initial: () => A
  /** How long a session may live, however much it is used. Default: 24 hours. */
  readonly lifetime?: Duration.Input | undefined
  /** How long a session may go without a request. Default: none, so that the lifetime alone counts. */
  readonly idleTimeout?: Duration.Input | undefined
  /**
   * Whether the store is given the SHA-256 of a token in place of the token, so that a store that leaks opens no
   * session. Default: `true`.
   */
  readonly hashToken?: boolean | undefined
  /**
   * What to do with data in the store that does not decode: open a new session and log a warning without the data, or
   * fail with a {@link SessionDecodeError}. Default: `"renew"`.
   */
  readonly undecodable?: "renew" | "fail" | undefined
}

/**
 * A session class: a service tag, and ways to a session where there is no request to provide one.
 */
export interface ServiceClass<Self, Id extends string, A> extends Context.ServiceClass<Self, Id, Session<A>> {
  /**
   * Opens the session of a token, or a new one where there is no token or it opens nothing: it is malformed, unknown or
   * expired, or belongs to another class. Such a token is never adopted; the first commit makes a new one.
   *
   * **When to use**: where no middleware does it: in a WebSocket, an RPC handler, a job, a test. Whoever opens a session
   * commits it.
   */
  readonly open: (token?: Redacted.Redacted<string>) => Effect.Effect<Session<A>, SessionError, SessionStore>

  /**
   * Every active session of this class. To read them keeps none of them from going idle.
   *
   * **When to use**: to list the sessions of a user, or to end them: "log out everywhere".
   */
  readonly sessions: Stream.Stream<Session<A>, SessionError, SessionStore>
}

/** The state of a session that a store keeps; the value as it is in memory. */
interface Contents<A> {
  readonly value: A
  readonly deadline: number
  /** In milliseconds, `null` for none, `undefined` for that of the class. */
  readonly idleTimeout: number | null | undefined
  readonly rememberMe: boolean
}

type Change<A> = (contents: Contents<A>) => Contents<A>

const applyAll = <A>(changes: ReadonlyArray<Change<A>>, contents: Contents<A>): Contents<A> =>
  changes.reduce((contents, change) => change(contents), contents)

/** A session as it was last seen in the store. */
interface Stored<A> {
  readonly _tag: "Stored"
  readonly key: string
  /** `undefined` where the session was found under the hash of its token. */
  readonly token: string | undefined
  readonly data: Uint8Array
  readonly contents: Contents<A>
}

/** A session that the next commit adds to the store, if there is something to save. */
interface New<A> {
  readonly _tag: "New"
  readonly contents: Contents<A>
  /** Whether there is something to save even without a change. */
  readonly isModified: boolean
  readonly isDestroyed: boolean
  /** The key of undecodable data, which ends when this session is written, renewed or destroyed. */
  readonly predecessor: string | undefined
}

/** A session that ended elsewhere: nothing is written back. */
interface Ended<A> {
  readonly _tag: "Ended"
  readonly contents: Contents<A>
}

const Envelope = Schema.fromJsonString(
  Schema.Struct({
    version: Schema.Literal(1),
    session: Schema.String,
    deadline: Schema.Int,
    idleTimeout: Schema.optionalKey(Schema.NullOr(Schema.Finite)),
    rememberMe: Schema.optionalKey(Schema.Boolean),
    value: Schema.Unknown
  })
)

const decodeEnvelope = Schema.decodeUnknownEffect(Envelope)

/** 32 random bytes in base64url. What looks otherwise is not looked up. */
const tokenShape = /^[\w-]{43}$/

const makeToken = Effect.sync(() => Base64Url.encode(SecureRandom.randomBytesUnsafe(32)))

// Measured: 0.9 microseconds a token, where WebCrypto, which is asynchronous, takes 56.
const sha256 = (token: string): string => createHash("sha256").update(token).digest("base64url")

// To replace a session by nothing that expired long ago is to compare and delete it.
const noData = new Uint8Array()
const longAgo = DateTime.makeUnsafe(-1)

const positive = (what: string, input: Duration.Input): Duration.Duration => {
  const duration = Option.getOrUndefined(Duration.fromInput(input))
  if (duration !== undefined && Duration.isPositive(duration)) return duration
  throw new TypeError(`${what} is no duration longer than zero: ${Formatter.format(input)}`)
}

const toMillisOrNull = (duration: Duration.Duration): number | null =>
  Duration.isFinite(duration) ? Duration.toMillis(duration) : null

const sessionsCreated = Metric.counter("sessions_created", {
  description: "Sessions that a first commit added to the store",
  incremental: true
})

const sessionsDestroyed = Metric.counter("sessions_destroyed", {
  description: "Calls of destroy on a session that was in the store",
  incremental: true
})

const sessionConflicts = Metric.counter("session_conflicts", {
  description: "Commits that applied their changes again because another was faster",
  incremental: true
})

const sessionsUndecodable = Metric.counter("sessions_undecodable", {
  description: "Sessions met in the store that did not decode",
  incremental: true
})

/**
 * Makes a session class: a service tag whose service is a {@link Session}, typed by a schema.
 *
 * **Details**: the key names the class in the data of its sessions, so to change it ends all of them. Throws a
 * `TypeError` where the lifetime is not finite and longer than zero, or the idle timeout not longer than zero.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { MemStore, Session } from "effect-sessions"
 *
 * class UserSession extends Session.Service<UserSession>()("app/UserSession", {
 *   schema: Schema.Struct({ userId: Schema.optionalKey(Schema.String), visits: Schema.Int }),
 *   initial: () => ({ visits: 0 }),
 *   lifetime: "24 hours",
 *   idleTimeout: "20 minutes"
 * }) {}
 *
 * const visit = Effect.gen(function* () {
 *   const session = yield* UserSession
 *   yield* session.update((user) => ({ ...user, visits: user.visits + 1 }))
 *   return (yield* session.get).visits
 * })
 *
 * // Where there is no HTTP: open, use, commit.
 * const program = Effect.gen(function* () {
 *   const session = yield* UserSession.open()
 *   const visits = yield* Effect.provideService(visit, UserSession, session)
 *   yield* session.commit
 *   return visits
 * })
 *
 * await Effect.runPromise(Effect.provide(program, MemStore.layer)) // => 1
 * ```
 */
export const Service =
  <Self>() =>
  <const Id extends string, A, I>(key: Id, options: Options<A, I>): ServiceClass<Self, Id, A> => {
    const lifetime = toMillisOrNull(positive(`${key}: the lifetime`, options.lifetime ?? "24 hours"))
    if (lifetime === null) throw new TypeError(`${key}: the lifetime is infinite`)
    const idleTimeout = toMillisOrNull(positive(`${key}: the idle timeout`, options.idleTimeout ?? Duration.infinity))
    const { hashToken = true, initial, undecodable = "renew" } = options

    const codec = Schema.toCodecJson(options.schema)
    const encodeValue = Schema.encodeEffect(codec)
    const decodeValue = Schema.decodeUnknownEffect(codec)
    const count = (metric: Metric.Counter<number>) => Metric.update(Metric.withAttributes(metric, { session: key }), 1)

    const keyOf = (token: string): string => (hashToken ? sha256(token) : token)

    const encode = Effect.fnUntraced(function* ({ value, deadline, idleTimeout, rememberMe }: Contents<A>) {
      const encoded = yield* Effect.catch(encodeValue(value), (error) =>
        Effect.die(new TypeError(`${key}: the value does not fit its schema: ${error.message}`))
      )
      // What is undefined is left out of the JSON.
      const flags = { idleTimeout, rememberMe: rememberMe || undefined }
      return new TextEncoder().encode(JSON.stringify({ version: 1, session: key, deadline, ...flags, value: encoded }))
    })

    const decodeError = (cause: unknown) => new SessionDecodeError({ session: key, cause })

    /** `none` for a session of another class. */
    const decode = Effect.fnUntraced(function* (
      data: Uint8Array
    ): Effect.fn.Return<Option.Option<Contents<A>>, SessionDecodeError> {
      const text = yield* Effect.try({
        try: () => new TextDecoder("utf-8", { fatal: true }).decode(data),
        catch: decodeError
      })
      const envelope = yield* Effect.mapError(decodeEnvelope(text), decodeError)
      if (envelope.session !== key) return Option.none()
      const value = yield* Effect.mapError(decodeValue(envelope.value), decodeError)
      const { deadline, idleTimeout, rememberMe = false } = envelope
      return Option.some({ value, deadline, idleTimeout, rememberMe })
    })

    const idleTimeoutOf = (contents: Contents<A>): number | null =>
      contents.idleTimeout === undefined ? idleTimeout : contents.idleTimeout

    const expiryOf = (contents: Contents<A>, now: number): DateTime.Utc =>
      DateTime.makeUnsafe(Math.min(contents.deadline, now + (idleTimeoutOf(contents) ?? Number.POSITIVE_INFINITY)))

    const makeNew = (now: number): New<A> => ({
      _tag: "New",
      contents: { value: initial(), deadline: now + lifetime, idleTimeout: undefined, rememberMe: false },
      isModified: false,
      isDestroyed: false,
      predecessor: undefined
    })

    /** What to go on with in place of a session that does not decode, unless the class was told to fail. */
    const insteadOf = <B>(error: SessionDecodeError, instead: B): Effect.Effect<B, SessionDecodeError> =>
      count(sessionsUndecodable).pipe(
        Effect.andThen(
          undecodable === "fail" ? Effect.fail(error) : Effect.logWarning(`${error.message}; it is taken as ended`)
        ),
        Effect.as(instead)
      )

    const findStored = Effect.fnUntraced(function* (
      store: SessionStore["Service"],
      token: string
    ): Effect.fn.Return<Stored<A> | undefined, SessionError> {
      const key = keyOf(token)
      const data = yield* Effect.interruptible(store.find(key))
      if (Option.isNone(data)) return undefined
      const contents = yield* decode(data.value)
      if (Option.isNone(contents)) return undefined
      return { _tag: "Stored", key, token, data: data.value, contents: contents.value }
    })

    /** The session as it is in the store by now. */
    const reload = Effect.fnUntraced(function* (
      store: SessionStore["Service"],
      stored: Stored<A>
    ): Effect.fn.Return<Stored<A> | Ended<A>, SessionError> {
      const over: Ended<A> = { _tag: "Ended", contents: stored.contents }
      const data = yield* Effect.interruptible(store.find(stored.key))
      if (Option.isNone(data)) return over
      const contents = yield* Effect.catch(decode(data.value), (error) => insteadOf(error, Option.none()))
      return Option.isNone(contents) ? over : { ...stored, data: data.value, contents: contents.value }
    })

    /** Ends a session in the store and returns what it held last, or that it had ended already. */
    const claim = Effect.fnUntraced(function* (
      store: SessionStore["Service"],
      stored: Stored<A>
    ): Effect.fn.Return<Stored<A> | Ended<A>, SessionError> {
      let current: Stored<A> | Ended<A> = stored
      while (current._tag === "Stored") {
        if (yield* Effect.interruptible(store.replace(current.key, current.data, noData, longAgo))) break
        current = yield* reload(store, current)
      }
      return current
    })

    const make = (store: SessionStore["Service"], opened: Stored<A> | New<A>): Session<A> => {
      // What is known of the session in the store, the changes that are not there yet, and the outcome of both.
      let origin: Stored<A> | New<A> | Ended<A> = opened
      let changes: Array<Change<A>> = []
      let contents = opened.contents

      const setOrigin = (next: Stored<A> | New<A> | Ended<A>, pending: Array<Change<A>> = []): void => {
        origin = next
        changes = pending
        contents = applyAll(pending, next.contents)
      }

      const change = (f: Change<A>): Effect.Effect<void> =>
        Effect.sync(() => {
          contents = f(contents)
          changes.push(f)
        })

      // One at a time, so that two fibers never make two sessions of one. Only the store can be interrupted, since what
      // it has confirmed must be remembered.
      const semaphore = Semaphore.makeUnsafe(1)
      const exclusively = <B, E>(effect: Effect.Effect<B, E>): Effect.Effect<B, E> =>
        semaphore.withPermit(Effect.uninterruptible(effect))

      const carried = (stored: Stored<A>, expiry: DateTime.Utc): Option.Option<Committed> => {
        const before = opened._tag === "Stored" ? opened : undefined
        return Option.map(Option.fromUndefinedOr(stored.token), (token) => ({
          token: Redacted.make(token, { label: "session token" }),
          expiry,
          rememberMe: stored.contents.rememberMe,
          isTokenNew: before?.token !== token,
          isExpiryNew:
            before?.contents.deadline !== stored.contents.deadline || idleTimeoutOf(stored.contents) !== null,
          isRememberMeNew: (before?.contents.rememberMe ?? false) !== stored.contents.rememberMe
        }))
      }

      const add = Effect.fnUntraced(function* (session: New<A>) {
        if (!session.isModified && changes.length === 0) return Option.none()
        const added = changes.length
        const stored = { contents, data: yield* encode(contents) }
        const token = yield* makeToken
        const key = keyOf(token)
        const expiry = expiryOf(stored.contents, yield* Clock.currentTimeMillis)
        if (session.predecessor !== undefined) yield* Effect.interruptible(store.delete(session.predecessor))
        yield* Effect.interruptible(store.commit(key, stored.data, expiry))
        const next: Stored<A> = { _tag: "Stored", key, token, ...stored }
        setOrigin(next, changes.slice(added))
        yield* count(sessionsCreated)
        return carried(next, expiry)
      })

      const save = Effect.fnUntraced(function* (session: Stored<A>) {
        const now = yield* Clock.currentTimeMillis
        const saved = changes.length
        let current: Stored<A> | Ended<A> = session
        while (current._tag === "Stored") {
          const next: Contents<A> = applyAll(changes.slice(0, saved), current.contents)
          const data: Uint8Array = saved === 0 ? current.data : yield* encode(next)
          const expiry = expiryOf(next, now)
          const stored: Stored<A> = { ...current, data, contents: next }
          const isSame = idleTimeoutOf(next) === null && Bytes.Equivalence(data, current.data)
          if (isSame || (yield* Effect.interruptible(store.replace(current.key, current.data, data, expiry)))) {
            setOrigin(stored, changes.slice(saved))
            return carried(stored, expiry)
          }
          yield* count(sessionConflicts)
          current = yield* reload(store, current)
        }
        setOrigin({ ...current, contents })
        return Option.none()
      })

      return {
        get: Effect.sync(() => contents.value),
        set: (value) => change((contents) => ({ ...contents, value })),
        update: (f) => change((contents) => ({ ...contents, value: f(contents.value) })),
        modify: (f) =>
          Effect.suspend(() => {
            const [result, value] = f(contents.value)
            contents = { ...contents, value }
            changes.push((contents) => ({ ...contents, value: f(contents.value)[1] }))
            return Effect.succeed(result)
          }),
        clear: Effect.suspend(() => {
          const value = initial()
          return change((contents) => ({ ...contents, value }))
        }),
        renewToken: exclusively(
          Effect.gen(function* () {
            const deadline = (yield* Clock.currentTimeMillis) + lifetime
            if (origin._tag === "Stored") {
              const claimed = yield* claim(store, origin)
              if (claimed._tag === "Ended") return setOrigin({ ...claimed, contents })
              const renewed = { ...applyAll(changes, claimed.contents), deadline }
              setOrigin({ ...makeNew(deadline), contents: renewed, isModified: true })
            } else if (origin._tag === "New") {
              if (origin.predecessor !== undefined) yield* Effect.interruptible(store.delete(origin.predecessor))
              const isModified = origin.isModified || changes.length > 0
              setOrigin({ ...origin, contents: { ...contents, deadline }, isModified, predecessor: undefined })
            }
          })
        ),
        destroy: exclusively(
          Effect.gen(function* () {
            const key = origin._tag === "Stored" ? origin.key : origin._tag === "New" ? origin.predecessor : undefined
            if (key !== undefined) {
              yield* Effect.interruptible(store.delete(key))
              yield* count(sessionsDestroyed)
            }
            setOrigin({ ...makeNew(yield* Clock.currentTimeMillis), isDestroyed: true })
          })
        ),
        merge: (token, combine) =>
          exclusively(
            Effect.gen(function* () {
              if (!tokenShape.test(Redacted.value(token)) || origin._tag === "Ended") return
              const other = yield* Effect.catchTag(
                findStored(store, Redacted.value(token)),
                "SessionDecodeError",
                (error) => insteadOf(error, undefined)
              )
              if (other === undefined || (origin._tag === "Stored" && origin.key === other.key)) return
              const claimed = yield* claim(store, other)
              if (claimed._tag === "Ended") return
              yield* change((contents) => ({ ...contents, value: combine(contents.value, claimed.contents.value) }))
            })
          ),
        rememberMe: (rememberMe) => change((contents) => ({ ...contents, rememberMe })),
        setDeadline: (deadline) => change((contents) => ({ ...contents, deadline: DateTime.toEpochMillis(deadline) })),
        setIdleTimeout: (input) =>
          Effect.suspend(() => {
            const idleTimeout = toMillisOrNull(positive(`${key}: the idle timeout`, input))
            return change((contents) => ({ ...contents, idleTimeout }))
          }),
        token: Effect.sync(() =>
          Option.map(Option.fromUndefinedOr(origin._tag === "Stored" ? origin.token : undefined), (token) =>
            Redacted.make(token, { label: "session token" })
          )
        ),
        id: Effect.sync(() =>
          origin._tag === "Stored" ? Option.some(hashToken ? origin.key : sha256(origin.key)) : Option.none()
        ),
        deadline: Effect.sync(() => DateTime.makeUnsafe(contents.deadline)),
        status: Effect.sync(() => {
          if (changes.length > 0 || (origin._tag === "New" && origin.isModified)) return "modified"
          return origin._tag === "New" && origin.isDestroyed ? "destroyed" : "unmodified"
        }),
        commit: exclusively(
          Effect.suspend(() => {
            if (origin._tag === "New") return add(origin)
            if (origin._tag === "Stored") return save(origin)
            setOrigin({ ...origin, contents })
            return Effect.succeedNone
          })
        )
      }
    }

    const open: ServiceClass<Self, Id, A>["open"] = Effect.fnUntraced(function* (token) {
      const store = yield* SessionStore
      const fresh = makeNew(yield* Clock.currentTimeMillis)
      if (token === undefined || !tokenShape.test(Redacted.value(token))) return make(store, fresh)
      const found = yield* Effect.catchTag(findStored(store, Redacted.value(token)), "SessionDecodeError", (error) =>
        insteadOf(error, { ...fresh, predecessor: keyOf(Redacted.value(token)) })
      )
      return make(store, found ?? fresh)
    })

    const sessions: ServiceClass<Self, Id, A>["sessions"] = Stream.unwrap(
      Effect.map(SessionStore, (store) =>
        store.entries.pipe(
          Stream.mapEffect(([key, data]) =>
            decode(data).pipe(
              Effect.map(
                Option.map((contents) =>
                  make(store, { _tag: "Stored", key, token: hashToken ? undefined : key, data, contents })
                )
              ),
              Effect.catch((error) => insteadOf(error, Option.none()))
            )
          ),
          Stream.filterMap(Result.fromOption(() => undefined))
        )
      )
    )

    return Object.assign(Context.Service<Self, Session<A>>()(key), { open, sessions })
  }
