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
 * - `renewing`: only where it is `true`, in what a renewal leaves under the old token until it is committed; nobody can
 *   open that, but a log-out can still end it
 * - `value`: the value, encoded by the JSON codec of its schema
 *
 * @module
 */
import { hash } from "node:crypto"
import {
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
  Stream,
  Tracer
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
 *
 * **When to use**: to carry the token by something other than the cookie of `HttpSession`.
 *
 * @example
 * ```ts
 * import { DateTime, Redacted } from "effect"
 * import type { Session } from "effect-sessions"
 *
 * const toMessage = ({ expiry, token }: Session.Committed) =>
 *   JSON.stringify({ token: Redacted.value(token), expiry: DateTime.formatIso(expiry) })
 * ```
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
   * the session ended. Where it had ended already, this session has ended too: it saves nothing any more. The same goes
   * for a log-out by the old token before the commit, and for a commit that comes more than ten minutes later.
   *
   * **Errors**: where the store fails, the next commit renews before it saves anything.
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
   * no-op where the other token opens nothing, or is this session's own, or this session has ended elsewhere.
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
   * Returns token and expiry for whoever carries them: `none` where the session has ended, or was new and is unchanged or
   * past its deadline, or came out of the stream `sessions`, whose store was not given the token.
   *
   * **Errors**: a failure of the store leaves the changes in place, to be committed again; whether a write that failed
   * had reached the store is not known. Dies with a `TypeError` where the value does not fit its schema.
   */
  readonly commit: Effect.Effect<Option.Option<Committed>, SessionError>
}

/**
 * Data in the store that does not decode as a session of this class, probably because its schema changed.
 *
 * Comes only from a class with `undecodable: "fail"`. Its `cause` says where the data did not fit, not what it was, save
 * for the keys of a `Schema.Record` and what the message of a schema quotes by itself, as that of `Schema.SemVer` does.
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
  /** Names the class, and nothing of token or value. */
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
  readonly initial: () => NoInfer<A>
  /**
   * How long a session may live, however much it is used, up to a thousand years; a number counts milliseconds. Default:
   * 24 hours.
   */
  readonly lifetime?: Duration.Input | undefined
  /**
   * How long a session may go without a request. Default: none, which an infinite one means too, so that the lifetime
   * alone counts.
   */
  readonly idleTimeout?: Duration.Input | undefined
  /**
   * Whether the store is given the SHA-256 of a token in place of the token, so that a store that leaks opens no
   * session. Default: `true`.
   */
  readonly hashToken?: boolean | undefined
  /**
   * What to do with data in the store that does not decode: open a new session and log a warning without the data each
   * time, or fail with a {@link SessionDecodeError}. Default: `"renew"`. A field that is added to the schema needs a
   * default, such as by `Schema.withDecodingDefaultKey`, or older sessions do not decode.
   */
  readonly undecodable?: "renew" | "fail" | undefined
}

/**
 * A session class: a service tag, and ways to a session where there is no request to provide one. {@link Service} makes
 * it.
 *
 * @example
 * ```ts
 * import { Effect, Schema, Stream } from "effect"
 * import { MemStore, Session } from "effect-sessions"
 *
 * class UserSession extends Session.Service<UserSession>()("app/UserSession", {
 *   schema: Schema.Struct({ userId: Schema.optionalKey(Schema.String) }),
 *   initial: () => ({})
 * }) {}
 *
 * const program = Effect.gen(function* () {
 *   const session = yield* UserSession.open()
 *   yield* session.set({ userId: "ada" })
 *   yield* session.commit
 *   return yield* Stream.runCollect(Stream.mapEffect(UserSession.sessions, (session) => session.get))
 * })
 *
 * await Effect.runPromise(Effect.provide(program, MemStore.layer)) // => [{ userId: "ada" }]
 * ```
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
   * Every active session of this class that decodes. To read them keeps none of them from going idle.
   *
   * **When to use**: to list the sessions of a user, or to end them: "log out everywhere".
   *
   * **Gotchas**: a session between `renewToken` and its commit is listed as it was before. To destroy it ends the renewal
   * too; changes of it are not saved, and its `commit` returns `none`.
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
  /** Whether this is the mark of a renewal, which opens nothing, whatever else becomes of it. */
  readonly renewing: boolean
}

/** What was found under a key. */
interface Decoded<A> {
  readonly _tag: "Decoded"
  readonly data: string
  readonly contents: Contents<A>
}

type Change<A> = (contents: Contents<A>) => Contents<A>

const applyAll = <A>(changes: ReadonlyArray<Change<A>>, contents: Contents<A>): Contents<A> =>
  changes.reduce((contents, change) => change(contents), contents)

/** A session as it was last seen in the store. */
interface Stored<A> {
  readonly _tag: "Stored"
  readonly key: string
  /** `none` where the session was found under the hash of its token. */
  readonly token: Option.Option<Redacted.Redacted<string>>
  readonly data: string
  readonly contents: Contents<A>
}

/**
 * Data in the store that opens nothing. What does not decode ends when the new session is written, renewed or destroyed.
 * The mark of a renewal ends with that renewal, or with a log-out, which thereby ends the renewal too.
 */
type Predecessor =
  | { readonly _tag: "Undecodable"; readonly key: string }
  | { readonly _tag: "RenewedElsewhere"; readonly key: string }
  | { readonly _tag: "Renewed"; readonly key: string; readonly mark: string }

/** A session that the next commit adds to the store, if there is something to save. */
interface New<A> {
  readonly _tag: "New"
  readonly contents: Contents<A>
  /** Whether there is something to save even without a change. */
  readonly isModified: boolean
  readonly isDestroyed: boolean
  /** What is under the token that came with the request, or under the one that is being renewed. */
  readonly predecessor: Predecessor | undefined
}

/** A session that ended elsewhere: nothing is written back. */
interface Ended<A> {
  readonly _tag: "Ended"
  readonly contents: Contents<A>
  /** That of the mark where it ended by a renewal, which a log-out ends too. */
  readonly key?: string
}

/** What the store keeps, for a codec of the value. */
const makeEnvelope = <A, I>(value: Schema.Codec<A, I>) =>
  Schema.Struct({
    version: Schema.Literal(1),
    session: Schema.String,
    deadline: Schema.Int,
    idleTimeout: Schema.optionalKey(Schema.NullOr(Schema.Finite)),
    rememberMe: Schema.optionalKey(Schema.Boolean),
    renewing: Schema.optionalKey(Schema.Boolean),
    value
  })

const decodeForeign = Schema.decodeUnknownEffect(makeEnvelope(Schema.Unknown))

/** Not so for what `Schema.Any` lets through: a session without a value could never be opened. */
const hasJson = (value: unknown): boolean => !["undefined", "function", "symbol"].includes(typeof value)

/** 32 random bytes in base64url. What looks otherwise is not looked up. */
const tokenShape = /^[\w-]{43}$/

const redact = (token: string): Redacted.Redacted<string> => Redacted.make(token, { label: "session token" })

const makeToken = Effect.sync(() => redact(Base64Url.encode(SecureRandom.randomBytesUnsafe(32))))

// Measured: 0.5 microseconds a token, where createHash takes 0.9, and WebCrypto, which is asynchronous, 56.
const sha256 = (token: string): string => hash("sha256", token, "base64url")

// To replace a session by nothing that expired long ago is to compare and delete it.
const noData = ""
const longAgo = DateTime.makeUnsafe(-1)

/** How long a renewal may take until its commit, in milliseconds. */
const renewalTime = 600_000

/** The part of a store that a session in memory uses. */
type Store = Pick<SessionStore["Service"], "find" | "commit" | "replace" | "delete">

const positive = (what: string, input: Duration.Input): Duration.Duration => {
  const duration = Option.getOrUndefined(Duration.fromInput(input))
  if (duration !== undefined && Duration.isPositive(duration)) return duration
  throw new TypeError(`${what} is no duration longer than zero: ${Formatter.format(input)}`)
}

const longest = Duration.toMillis(Duration.days(365_000))

const toMillisOrNull = (duration: Duration.Duration): number | null =>
  Duration.isFinite(duration) ? Duration.toMillis(duration) : null

const howToGoOn =
  "it is taken as ended. If its schema changed, give new fields a default, such as by Schema.withDecodingDefaultKey; the " +
  'class option undecodable: "fail" tells where it does not fit'

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
 * `TypeError` where the lifetime or the idle timeout is not longer than zero, or the lifetime longer than a thousand years.
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
    const lifetime = Math.ceil(Duration.toMillis(positive(`${key}: the lifetime`, options.lifetime ?? "24 hours")))
    if (lifetime > longest) throw new TypeError(`${key}: the lifetime is longer than a thousand years`)
    const idleTimeout = toMillisOrNull(positive(`${key}: the idle timeout`, options.idleTimeout ?? Duration.infinity))
    const { hashToken = true, initial, undecodable = "renew" } = options

    const codec = Schema.toCodecJson(options.schema)
    const encodeValue = Schema.encodeEffect(codec)
    const decodeEnvelope = Schema.decodeUnknownEffect(makeEnvelope(codec))
    const attributes = { session: key }
    const created = Metric.withAttributes(sessionsCreated, attributes)
    const destroyed = Metric.withAttributes(sessionsDestroyed, attributes)
    const conflicts = Metric.withAttributes(sessionConflicts, attributes)
    const undecoded = Metric.withAttributes(sessionsUndecodable, attributes)

    // Nobody sees a span who has no tracer, and to make one takes time on every request.
    const traced = <B, E, R>(
      context: Context.Context<never>,
      name: string,
      effect: Effect.Effect<B, E, R>
    ): Effect.Effect<B, E, R> =>
      Context.get(context, Tracer.Tracer) === Tracer.nativeTracer
        ? effect
        : Effect.withSpan(effect, name, { attributes, captureStackTrace: false })

    const keyOf = (token: Redacted.Redacted<string>): string =>
      hashToken ? sha256(Redacted.value(token)) : Redacted.value(token)

    const unfit = (reason: string) => Effect.die(new TypeError(`${key}: the value does not fit its schema: ${reason}`))

    // Eager, here and below: few codecs have anything to wait for, and every request decodes and encodes.
    const encode = ({ value, deadline, idleTimeout, rememberMe, renewing }: Contents<A>): Effect.Effect<string> =>
      encodeValue(value).pipe(
        Effect.catchEager((error) => unfit(error.message)),
        Effect.flatMapEager((value) => {
          if (!hasJson(value)) return unfit("It has no JSON")
          const envelope = {
            version: 1,
            session: key,
            deadline,
            // What is undefined is left out of the JSON.
            idleTimeout,
            rememberMe: rememberMe || undefined,
            renewing: renewing || undefined,
            value
          }
          return Effect.succeed(JSON.stringify(envelope))
        })
      )

    const decodeError = (cause: unknown) => new SessionDecodeError({ session: key, cause })

    /** `none` for a session of another class. */
    const decode = (data: string): Effect.Effect<Option.Option<Contents<A>>, SessionDecodeError> => {
      let parsed: unknown
      try {
        parsed = JSON.parse(data)
      } catch {
        // The reason that is thrown quotes the data.
        return Effect.fail(decodeError(new Error("The data is no JSON in UTF-8")))
      }
      return decodeEnvelope(parsed).pipe(
        Effect.mapEager(({ session, deadline, idleTimeout, rememberMe = false, renewing = false, value }) =>
          session === key ? Option.some({ value, deadline, idleTimeout, rememberMe, renewing }) : Option.none()
        ),
        // Whose value it is matters only where it is not of this class's schema.
        Effect.catchEager((error) =>
          Effect.flatMapEager(decodeForeign(parsed), (foreign) =>
            foreign.session === key ? Effect.fail(error) : Effect.succeedNone
          )
        ),
        Effect.mapErrorEager(decodeError)
      )
    }

    const idleTimeoutOf = (contents: Contents<A>): number | null =>
      contents.idleTimeout === undefined ? idleTimeout : contents.idleTimeout

    const expiryOf = (contents: Contents<A>, now: number): DateTime.Utc =>
      DateTime.makeUnsafe(Math.min(contents.deadline, now + (idleTimeoutOf(contents) ?? Number.POSITIVE_INFINITY)))

    const makeNew = (now: number): New<A> => ({
      _tag: "New",
      contents: {
        value: initial(),
        // A clock may have fractions of a millisecond, which the envelope has not.
        deadline: Math.ceil(now + lifetime),
        idleTimeout: undefined,
        rememberMe: false,
        renewing: false
      },
      isModified: false,
      isDestroyed: false,
      predecessor: undefined
    })

    /** What to go on with in place of a session that does not decode, unless the class was told to fail. */
    const insteadOf = <B>(error: SessionDecodeError, instead: B): Effect.Effect<B, SessionDecodeError> =>
      Metric.update(undecoded, 1).pipe(
        Effect.andThen(
          undecodable === "fail" ? Effect.fail(error) : Effect.logWarning(`${error.message}; ${howToGoOn}`)
        ),
        Effect.as(instead)
      )

    let isWarned = false

    const warnOfForeign = Effect.suspend(() => {
      if (isWarned) return Effect.void
      isWarned = true
      return Effect.logWarning(
        `${key}: a token opens a session of another class, and so none here. Do two classes share the name of a cookie, ` +
          `or was the key of this one changed?`
      )
    })

    /** What is under a key: nothing too where it is of another class. */
    const read = (store: Store, key: string): Effect.Effect<Decoded<A> | Predecessor | undefined, SessionError> =>
      Effect.flatMap(store.find(key), (found) => {
        if (Option.isNone(found)) return Effect.undefined
        const data = found.value
        return decode(data).pipe(
          Effect.flatMapEager((decoded) =>
            Option.isSome(decoded)
              ? Effect.succeed({ _tag: "Decoded", data, contents: decoded.value } as const)
              : Effect.as(warnOfForeign, undefined)
          ),
          Effect.catchEager((error) => insteadOf(error, { _tag: "Undecodable", key } as const))
        )
      })

    /** What a token opens, or else what is under it all the same. */
    const find = (
      store: Store,
      clock: Clock.Clock,
      token: Redacted.Redacted<string>
    ): Effect.Effect<Stored<A> | Predecessor | undefined, SessionError> => {
      const key = keyOf(token)
      return Effect.map(read(store, key), (found): Stored<A> | Predecessor | undefined => {
        if (found?._tag !== "Decoded") return found
        const { contents, data } = found
        // Before its deadline, which a mark may outlive.
        if (contents.renewing) return { _tag: "RenewedElsewhere", key }
        // A store whose clock is behind may still have it.
        if (contents.deadline < clock.currentTimeMillisUnsafe()) return undefined
        return { _tag: "Stored", key, token: Option.some(token), data, contents }
      })
    }

    /** The session as it is in the store by now. */
    const reload = (store: Store, stored: Stored<A>): Effect.Effect<Stored<A> | Ended<A>, SessionError> =>
      Effect.map(read(store, stored.key), (found): Stored<A> | Ended<A> => {
        const { contents, key } = stored
        if (found?._tag !== "Decoded") return { _tag: "Ended", contents }
        if (found.contents.renewing) return { _tag: "Ended", contents, key }
        return { ...stored, data: found.data, contents: found.contents }
      })

    /** Ends a session in the store and returns what it held last and what was left in its place, or that it had ended. */
    const claim = Effect.fnUntraced(function* (
      store: Store,
      stored: Stored<A>,
      successor: "mark" | "nothing"
    ): Effect.fn.Return<(Stored<A> & { readonly mark: string }) | Ended<A>, SessionError> {
      let current: Stored<A> | Ended<A> = stored
      while (current._tag === "Stored") {
        const { contents, data, key }: Stored<A> = current
        const now = yield* Clock.currentTimeMillis
        const [mark, expiry] =
          successor === "mark"
            ? [yield* encode({ ...contents, renewing: true }), DateTime.makeUnsafe(now + renewalTime)]
            : [noData, longAgo]
        if (yield* store.replace(key, data, mark, expiry)) return { ...current, mark }
        current = yield* reload(store, current)
      }
      return current
    })

    /** Its state is private, so that a session which is logged shows nothing of itself. */
    class Handle implements Session<A> {
      readonly #store: SessionStore["Service"]
      readonly #opened: Stored<A> | New<A> | Ended<A>
      // What is known of the session in the store, the changes that are not there yet, and the outcome of both.
      #origin: Stored<A> | New<A> | Ended<A>
      #changes: Array<Change<A>> = []
      #contents: Contents<A>
      #mustRenew = false
      // Made when it is first needed: never by a request that only reads a session without an idle timeout.
      #semaphore: Semaphore.Semaphore | undefined

      constructor(store: SessionStore["Service"], opened: Stored<A> | New<A> | Ended<A>) {
        this.#store = store
        this.#opened = opened
        this.#origin = opened
        this.#contents = opened.contents
      }

      get get(): Effect.Effect<A> {
        return Effect.sync(() => this.#contents.value)
      }

      // Getters, so that what is taken off a session, as by `const { update } = yield* UserSession`, still works.
      get set() {
        return (value: A) => this.#change((contents) => ({ ...contents, value }))
      }

      get update() {
        return (f: (value: A) => A) => this.#change((contents) => ({ ...contents, value: f(contents.value) }))
      }

      get modify() {
        return <B>(f: (value: A) => readonly [result: B, value: A]): Effect.Effect<B> =>
          Effect.sync(() => {
            const [result, value] = f(this.#contents.value)
            this.#contents = { ...this.#contents, value }
            this.#changes.push((contents) => ({ ...contents, value: f(contents.value)[1] }))
            return result
          })
      }

      get clear(): Effect.Effect<void> {
        return Effect.suspend(() => this.set(initial()))
      }

      get renewToken(): Effect.Effect<void, SessionError> {
        return this.#exclusively((store) => this.#renew(store))
      }

      get destroy(): Effect.Effect<void, SessionStoreError> {
        return this.#exclusively((store) => this.#end(store))
      }

      get merge() {
        return (token: Redacted.Redacted<string>, combine: (value: A, other: A) => A) =>
          this.#exclusively((store) => this.#merge(store, token, combine))
      }

      get rememberMe() {
        return (rememberMe: boolean) => this.#change((contents) => ({ ...contents, rememberMe }))
      }

      get setDeadline() {
        return (deadline: DateTime.DateTime) => {
          const millis = Math.ceil(DateTime.toEpochMillis(deadline))
          return this.#change((contents) => ({ ...contents, deadline: millis }))
        }
      }

      get setIdleTimeout() {
        return (input: Duration.Input) =>
          Effect.suspend(() => {
            const idleTimeout = toMillisOrNull(positive(`${key}: the idle timeout`, input))
            return this.#change((contents) => ({ ...contents, idleTimeout }))
          })
      }

      get token(): Effect.Effect<Option.Option<Redacted.Redacted<string>>> {
        return Effect.sync(() => (this.#origin._tag === "Stored" ? this.#origin.token : Option.none()))
      }

      get id(): Effect.Effect<Option.Option<string>> {
        return Effect.sync(() => {
          const origin = this.#origin
          const inStore = Option.fromUndefinedOr(origin._tag === "New" ? undefined : origin.key)
          return hashToken ? inStore : Option.map(inStore, sha256)
        })
      }

      get deadline(): Effect.Effect<DateTime.Utc> {
        return Effect.sync(() => DateTime.makeUnsafe(this.#contents.deadline))
      }

      get status(): Effect.Effect<Status> {
        return Effect.sync(() => {
          if (this.#changes.length > 0 || (this.#origin._tag === "New" && this.#origin.isModified)) return "modified"
          return this.#origin._tag === "New" && this.#origin.isDestroyed ? "destroyed" : "unmodified"
        })
      }

      get commit(): Effect.Effect<Option.Option<Committed>, SessionError> {
        return Effect.contextWith((context: Context.Context<never>) => {
          if (this.#isUnsaved) {
            return traced(
              context,
              "Session.commit",
              this.#exclusively((store) => this.#commit(store))
            )
          }
          // There is no idle timeout, or there would be something to save.
          const origin = this.#origin
          return origin._tag === "Stored"
            ? Effect.succeed(this.#carried(origin, DateTime.makeUnsafe(origin.contents.deadline)))
            : Effect.succeedNone
        })
      }

      #commit(store: Store): Effect.Effect<Option.Option<Committed>, SessionError> {
        const origin = this.#origin
        if (origin._tag === "New") return this.#isUnsaved ? Handle.#add(this, store, origin) : Effect.succeedNone
        if (origin._tag === "Stored") {
          // Never under the old token, once it was to be renewed: somebody else may know it.
          return this.#mustRenew
            ? Effect.flatMap(this.#renew(store), () => this.#commit(store))
            : Handle.#save(this, store, origin)
        }
        this.#setOrigin({ ...origin, contents: this.#contents })
        return Effect.succeedNone
      }

      /** Whether a commit writes. */
      get #isUnsaved(): boolean {
        const origin = this.#origin
        if (this.#changes.length > 0 || this.#mustRenew) return true
        return origin._tag === "New" ? origin.isModified : idleTimeoutOf(origin.contents) !== null
      }

      #change(f: Change<A>): Effect.Effect<void> {
        return Effect.sync(() => {
          this.#contents = f(this.#contents)
          this.#changes.push(f)
        })
      }

      #setOrigin(origin: Stored<A> | New<A> | Ended<A>, changes: Array<Change<A>> = []): void {
        this.#origin = origin
        this.#changes = changes
        this.#contents = applyAll(changes, origin.contents)
      }

      /**
       * One at a time, so that two fibers never make two sessions of one. Only the store can be interrupted, and only
       * where the caller can, since what it has confirmed must be remembered.
       */
      #exclusively<B, E>(body: (store: Store) => Effect.Effect<B, E>): Effect.Effect<B, E> {
        const store = this.#store
        this.#semaphore ??= Semaphore.makeUnsafe(1)
        return this.#semaphore.withPermit(
          Effect.uninterruptibleMask((restore) =>
            body({
              find: (token) => restore(store.find(token)),
              commit: (token, data, expiry) => restore(store.commit(token, data, expiry)),
              replace: (token, expected, data, expiry) => restore(store.replace(token, expected, data, expiry)),
              delete: (token) => restore(store.delete(token))
            })
          )
        )
      }

      #carried(stored: Stored<A>, expiry: DateTime.Utc): Option.Option<Committed> {
        const before = this.#opened._tag === "Stored" ? this.#opened : undefined
        const { deadline, rememberMe } = stored.contents
        return Option.map(stored.token, (token) => ({
          token,
          expiry,
          rememberMe,
          isTokenNew: before?.key !== stored.key,
          isExpiryNew:
            before?.contents.deadline !== deadline ||
            idleTimeoutOf(stored.contents) !== null ||
            idleTimeoutOf(before.contents) !== null,
          isRememberMeNew: (before?.contents.rememberMe ?? false) !== rememberMe
        }))
      }

      static readonly #add = Effect.fnUntraced(function* (
        self: Handle,
        store: Store,
        origin: New<A>
      ): Effect.fn.Return<Option.Option<Committed>, SessionError> {
        const added = self.#changes.length
        const contents = self.#contents
        const { predecessor } = origin
        const data = yield* encode(contents)
        // A change that changed nothing, such as that of a flash message which was not there, is no reason for a session.
        if (!origin.isModified) {
          const untouched = yield* encode({ ...origin.contents, value: initial() })
          if (data === untouched) {
            self.#setOrigin({ ...origin, contents }, self.#changes.slice(added))
            return Option.none()
          }
        }
        const now = yield* Clock.currentTimeMillis
        const expiry = expiryOf(contents, now)
        const over: Ended<A> = { _tag: "Ended", contents }
        if (DateTime.toEpochMillis(expiry) < now) {
          self.#setOrigin(over)
          return Option.none()
        }
        const token = yield* makeToken
        const stored: Stored<A> = { _tag: "Stored", key: keyOf(token), token: Option.some(token), data, contents }
        if (predecessor?._tag === "Undecodable") yield* store.delete(predecessor.key)
        yield* store.commit(stored.key, data, expiry)
        if (predecessor?._tag === "Renewed") {
          // Where the mark is gone, the session was logged out since. Nobody has the new token yet.
          if (!(yield* store.replace(predecessor.key, predecessor.mark, noData, longAgo))) {
            yield* store.delete(stored.key)
            self.#setOrigin(over)
            return Option.none()
          }
        }
        self.#setOrigin(stored, self.#changes.slice(added))
        yield* Metric.update(created, 1)
        return self.#carried(stored, expiry)
      })

      static readonly #save = Effect.fnUntraced(function* (
        self: Handle,
        store: Store,
        origin: Stored<A>
      ): Effect.fn.Return<Option.Option<Committed>, SessionError> {
        const now = yield* Clock.currentTimeMillis
        const saved = self.#changes.length
        let current: Stored<A> | Ended<A> = origin
        while (current._tag === "Stored") {
          const before: Stored<A> = current
          const contents = before === origin ? self.#contents : applyAll(self.#changes.slice(0, saved), before.contents)
          const data = saved === 0 ? before.data : yield* encode(contents)
          const stored: Stored<A> = { ...before, data, contents }
          const expiry = expiryOf(contents, now)
          let isSaved: boolean
          if (idleTimeoutOf(contents) === null && data === before.data) {
            // Nothing to write, if the session still is what the changes were applied to.
            current = yield* reload(store, before)
            isSaved = current._tag === "Stored" && current.data === data
          } else {
            isSaved = yield* store.replace(before.key, before.data, data, expiry)
            if (!isSaved) current = yield* reload(store, before)
          }
          if (isSaved) {
            self.#setOrigin(stored, self.#changes.slice(saved))
            return self.#carried(stored, expiry)
          }
          yield* Metric.update(conflicts, 1)
        }
        self.#setOrigin({ ...current, contents: self.#contents })
        return Option.none()
      })

      #renew(store: Store): Effect.Effect<void, SessionError> {
        return Effect.gen({ self: this }, function* () {
          const origin = this.#origin
          if (origin._tag === "Ended") return
          const fresh = makeNew(yield* Clock.currentTimeMillis)
          const { deadline } = fresh.contents
          if (origin._tag === "New") {
            const isUndecodable = origin.predecessor?._tag === "Undecodable"
            if (isUndecodable) yield* store.delete(origin.predecessor.key)
            const isModified = origin.isModified || this.#changes.length > 0
            const contents = { ...this.#contents, deadline }
            const predecessor = isUndecodable ? undefined : origin.predecessor
            return this.#setOrigin({ ...origin, contents, isModified, predecessor })
          }
          this.#mustRenew = true
          const claimed = yield* claim(store, origin, "mark")
          this.#mustRenew = false
          if (claimed._tag === "Ended") return this.#setOrigin({ ...claimed, contents: this.#contents })
          const { key, mark } = claimed
          const contents = { ...applyAll(this.#changes, claimed.contents), deadline, renewing: false }
          this.#setOrigin({ ...fresh, contents, isModified: true, predecessor: { _tag: "Renewed", key, mark } })
        })
      }

      #end(store: Store): Effect.Effect<void, SessionStoreError> {
        return Effect.gen({ self: this }, function* () {
          const origin = this.#origin
          const inStore = origin._tag === "New" ? origin.predecessor?.key : origin.key
          if (inStore !== undefined) {
            yield* store.delete(inStore)
            yield* Metric.update(destroyed, 1)
          }
          this.#mustRenew = false
          this.#setOrigin({ ...makeNew(yield* Clock.currentTimeMillis), isDestroyed: true })
        })
      }

      #merge(
        store: Store,
        token: Redacted.Redacted<string>,
        combine: (value: A, other: A) => A
      ): Effect.Effect<void, SessionError> {
        return Effect.gen({ self: this }, function* () {
          if (!tokenShape.test(Redacted.value(token)) || this.#origin._tag === "Ended") return
          const other = yield* Clock.clockWith((clock) => find(store, clock, token))
          if (other?._tag !== "Stored" || (this.#origin._tag === "Stored" && this.#origin.key === other.key)) return
          // Once before the other ends, so that it does not end where this throws.
          combine(this.#contents.value, other.contents.value)
          const claimed = yield* claim(store, other, "nothing")
          if (claimed._tag === "Ended") return
          const { value } = claimed.contents
          yield* this.#change((contents) => ({ ...contents, value: combine(contents.value, value) }))
        })
      }
    }

    const open: ServiceClass<Self, Id, A>["open"] = (token) =>
      Effect.contextWith((context: Context.Context<SessionStore>) => {
        const store = Context.get(context, SessionStore)
        const clock = Context.get(context, Clock.Clock)
        const openNew = (predecessor?: Predecessor) =>
          new Handle(store, { ...makeNew(clock.currentTimeMillisUnsafe()), predecessor })
        if (token === undefined || !tokenShape.test(Redacted.value(token))) return Effect.succeed(openNew())
        return Effect.map(traced(context, "Session.open", find(store, clock, token)), (found) =>
          found?._tag === "Stored" ? new Handle(store, found) : openNew(found)
        )
      })

    const sessions: ServiceClass<Self, Id, A>["sessions"] = Stream.unwrap(
      Effect.map(SessionStore, (store) =>
        store.entries.pipe(
          Stream.mapEffect(([key, data]) =>
            decode(data).pipe(
              Effect.map(
                Option.map((contents) => {
                  if (contents.renewing) return new Handle(store, { _tag: "Ended", key, contents })
                  const token = hashToken ? Option.none() : Option.some(redact(key))
                  return new Handle(store, { _tag: "Stored", key, token, data, contents })
                })
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
