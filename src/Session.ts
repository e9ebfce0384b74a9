/**
 * Typed sessions on any {@link SessionStore}, with no HTTP in them.
 *
 * {@link Service} makes a service tag from a schema. The {@link Session} behind it has the vocabulary of a `Ref`: `get`,
 * `set`, `update` and `modify` work on a value in memory, and `commit` writes what was changed. A commit is a
 * compare-and-set: if another request was faster, the changes of this one are applied again to the newer value, and if
 * the session has ended in the meantime, nothing is written. So no update is lost, and no log-out comes undone.
 *
 * In the store a session stands under its id, the SHA-256 of its token, as JSON with these fields. Instants are in
 * milliseconds since 1970.
 *
 * - `version`: 1
 * - `session`: the key of its class; a session never opens as one of another class
 * - `createdAt`, `issuedAt`: when it began, and when its token was made
 * - `deadline`: the end of its lifetime
 * - `idleTimeout`: in milliseconds, `null` for none; only if `setIdleTimeout` set one of its own
 * - `rememberMe`: only if it is `true`
 * - `pending`: only if it is `true`, in a renewal that is not over yet; it is never opened and never listed
 * - `memberOf`: the keys of the index records that name it, if there are any
 * - `value`: the value, encoded by the JSON codec of its schema
 * - `usedAt`: when it was last used, to the touch interval
 * - `former`: the id that it had before its token was renewed, until it is saved again
 * - `write`: an id that no other write has
 *
 * A renewal or a merge leaves a tombstone under the old id: `version`, `session`, and `successor`, the id of the session
 * that took over. It stands for a minute. `ended` is `true` after a log-out by the old token; `held` and `merge` are
 * there while a merge is under way. A log-out leaves a tombstone too, without a successor.
 *
 * An index record stands under `index:` and a hash of what it is for: `version`, `index`, the key of the class;
 * `members`, the ids of the sessions that it names; `revokedAt`, when all of them were ended last; and `write`.
 *
 * @module
 */
import {
  Context,
  type DateTime,
  type Duration,
  type Effect,
  type Option,
  type Redacted,
  type Schema,
  type Stream
} from "effect"
import { toMillis, toMillisOrZero } from "./internal/duration.ts"
import type { SessionError } from "./internal/errors.ts"
import {
  byId,
  destroyAllOf,
  listAll,
  listOf,
  makeOpener,
  type Opener,
  type OpenOptions,
  open,
  opener
} from "./internal/opening.ts"
import { type IndexOptions, Records } from "./internal/records.ts"
import type { Committed, Status } from "./internal/session.ts"
import type { Ending } from "./internal/watches.ts"
import { eventsOf } from "./internal/watching.ts"
import type { SessionEvent } from "./SessionEvents.ts"
import type { SessionStore, SessionStoreError } from "./SessionStore.ts"

export { SessionBusyError, SessionDecodeError, type SessionError } from "./internal/errors.ts"
export type { OpenOptions } from "./internal/opening.ts"
export type { Committed, Status } from "./internal/session.ts"
export type { Ending } from "./internal/watches.ts"

/**
 * One session: a typed value, and what belongs to it.
 *
 * A session in memory belongs to one request (or job, or connection). Several fibers may use it.
 *
 * **Gotchas**: a change is applied at once, and again to the newer value if another request commits first. So it must be
 * a pure function. `update((n) => n + 1)` counts every request; `get`, then `set(n + 1)` overwrites what others counted
 * in between.
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

  /**
   * Replaces the value, even if another request has changed it meanwhile. Prefer `update`, which keeps what others
   * changed.
   */
  readonly set: (value: A) => Effect.Effect<void>

  /** Changes the value by a pure function, which may be applied again to a newer value at commit. */
  readonly update: (f: (value: A) => A) => Effect.Effect<void>

  /**
   * Changes the value by a pure function that also returns a result. It may be applied again to a newer value at commit;
   * the result is that of the first time.
   *
   * **When to use**: to read and change at once, as with a flash message that is shown and gone.
   */
  readonly modify: <B>(f: (value: A) => readonly [result: B, value: A]) => Effect.Effect<B>

  /** Sets the value back to `initial`. Token and deadline are kept. */
  readonly clear: Effect.Effect<void>

  /**
   * Makes the next commit move the session to a new token, with the same value. The lifetime starts anew. A session that
   * was never committed has no token yet, so only its lifetime starts anew.
   *
   * **When to use**: at every change of privilege, above all at log-in. A token that somebody planted or saw before is
   * worth nothing afterwards ([OWASP on session
   * fixation](https://cheatsheetseries.owasp.org/cheatsheets/Session_Management_Cheat_Sheet.html)).
   *
   * **Details**: until the commit, nothing changes: if the handler dies or the client goes away, the session stays under
   * the old token. The commit includes every update that other requests made before. From then on the old token opens a
   * session that has ended: a late request writes nothing with it and sets no cookie. For another minute, a log-out by
   * the old token still ends the new session.
   */
  readonly renewToken: Effect.Effect<void>

  /**
   * Ends the session in the store at once, and forgets its value. What you write afterwards belongs to a new session,
   * with a new token.
   *
   * **When to use**: at log-out.
   *
   * **Details**: if another request has renewed the token, the session under the new token ends too. Once this succeeds,
   * no token of this session opens it any more.
   *
   * **Errors**: if the store fails, the session may or may not have ended. Call it again.
   */
  readonly destroy: Effect.Effect<void, SessionStoreError>

  /**
   * Takes the value of another session into this one. The other session ends when this one is committed. This session
   * keeps its token and deadline. A no-op if the other token opens nothing or this same session, or if this session has
   * ended.
   *
   * **When to use**: after a redirect that lost the cookie, with a token that came back another way.
   *
   * **Details**: the value is never lost. What others write to the other session before the commit is taken in too; if
   * the other has ended by then, nothing of it is. If this session has ended, or cannot be saved, the other goes on as it
   * was. If the commit fails although its write has arrived, the value is in both until the commit is tried again.
   */
  readonly merge: (
    token: Redacted.Redacted<string>,
    combine: (value: A, other: A) => A
  ) => Effect.Effect<void, SessionError>

  /** Keeps the cookie when the browser closes, or stops doing so. */
  readonly setRememberMe: (rememberMe: boolean) => Effect.Effect<void>

  /**
   * Sets the instant at which this session ends, however much it is used. An instant in the past ends it at the next
   * commit.
   */
  readonly setDeadline: (deadline: DateTime.DateTime) => Effect.Effect<void>

  /**
   * Gives this session an idle timeout of its own; an infinite one means none. Dies with a `TypeError` if it is not
   * longer than zero.
   */
  readonly setIdleTimeout: (idleTimeout: Duration.Input) => Effect.Effect<void>

  /**
   * Fetches the newest value from the store, applies the changes of this session to it, and says whether the session is
   * still active. If it is not, `status` is `"ended"` from then on.
   *
   * **When to use**: if you hold a session for longer than a request, such as in a WebSocket, to see what others changed
   * and whether they logged out.
   *
   * **Details**: `true` for a session that was never committed; `false` after `destroy`.
   */
  readonly reload: Effect.Effect<boolean, SessionError>

  /**
   * Completes when this session has ended, wherever that happens, and says how. Waiting does not count as use.
   *
   * **When to use**: to end a WebSocket, a stream of Server-Sent Events or an RPC connection with its session:
   * `Effect.raceFirst(socket, session.ended)`.
   *
   * **Details**: it looks at the store when you begin to wait, then every `recheckInterval`, when the session would
   * expire, and at once if an event of `SessionEvents` says so. If many wait for one session in this process, one of them
   * looks. If the session is renewed by its own commit, the wait goes on with the new token. If it was renewed by another
   * request, or merged into another session, the result is `"renewed"`. If it was never committed, the wait begins with
   * the first commit. After `destroy` the result is `"destroyed"` at once.
   *
   * **Gotchas**: how a session ended is what the store shows at the next look. More than a minute after a renewal that is
   * `"destroyed"`, and also if the deadline was brought forward since the last look.
   *
   * **Errors**: if a look fails, it is made again at the next interval. If the store fails for three intervals, `ended`
   * fails.
   */
  readonly ended: Effect.Effect<Ending, SessionStoreError>

  /**
   * The secret that opens this session; until a renewal is committed, the old one. `none` before the first commit, after
   * `destroy`, and after the session has ended. Also `none` for a session that was listed or found by its id, unless it
   * was renewed, since the store knows no tokens.
   */
  readonly token: Effect.Effect<Option.Option<Redacted.Redacted<string>>>

  /**
   * The public name of this session: the SHA-256 of its token, and its key in the store. It opens nothing, so you may
   * show it in a list or a log. `none` if the session is not in the store.
   */
  readonly id: Effect.Effect<Option.Option<string>>

  /** When this session began. */
  readonly createdAt: Effect.Effect<DateTime.Utc>

  /**
   * When the token of this session was made: at the last log-in or renewal.
   *
   * **When to use**: to ask for the password again if that was too long ago.
   */
  readonly issuedAt: Effect.Effect<DateTime.Utc>

  /**
   * When this session was last used, give or take the touch interval. Without an idle timeout, when it was last saved.
   */
  readonly usedAt: Effect.Effect<DateTime.Utc>

  /** When this session ends if it is not used: the earlier of its deadline and the end of its idle timeout. */
  readonly expiry: Effect.Effect<DateTime.Utc>

  /** When the lifetime of this session ends. */
  readonly deadline: Effect.Effect<DateTime.Utc>

  /**
   * What was done to this session, and whether it has ended, as far as is known here. To learn whether another request
   * has ended it since it was opened, `reload` it.
   */
  readonly status: Effect.Effect<Status>

  /**
   * Saves what there is to save: changes, a renewed token, and for a session with an idle timeout, that it is in use.
   * Applies the changes again if another request was faster. Writes nothing if there is nothing to save, or if the
   * session has ended.
   *
   * Returns token and expiry, as a cookie needs them. `none` if the session is known to have ended, if it is new and
   * unchanged or past its deadline, and if it was listed or found by its id and not renewed. A commit with nothing to
   * save does not ask the store, so it does not learn whether another request has ended the session.
   *
   * **Details**: commits of one session take turns within a process, and those that wait are saved together in one write,
   * so that a flood does not slow the store down. Between processes, the one that loses waits a moment before its second new try, and longer each time.
   *
   * **Errors**: if the store fails, the changes stay in place: commit again. Whether the write had arrived is not known
   * then. The next try finds out: it recognises its own write, so that no change is made twice, unless another request
   * has written on top of it in between. `SessionBusyError` if a thousand other commits of this session wait in this
   * process. Dies with a `TypeError` if the value does not fit its schema, or nests so deep, 257
   * arrays and objects in one another, that it might not be read again; nothing is written then.
   */
  readonly commit: Effect.Effect<Option.Option<Committed>, SessionError>
}

/**
 * The options of a session class.
 */
export interface Options<A, I, Index extends string = never> {
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
   * How long a session may go without a request. An upper bound: see `touchInterval`. Default: none. An infinite one
   * means none too.
   */
  readonly idleTimeout?: Duration.Input | undefined
  /**
   * How often a request that changes nothing moves the expiry. Each time takes a write and a cookie. A session ends no
   * later than `idleTimeout` after its last request, and no earlier than `idleTimeout - touchInterval` after it. Zero
   * means with every request. Default: a twentieth of the idle timeout.
   */
  readonly touchInterval?: Duration.Input | undefined
  /**
   * How often `ended` looks whether a session has ended. A socket may outlive a log-out by this much if no event arrives.
   * An infinite one leaves it to events and to the expiry. Default: 10 seconds.
   */
  readonly recheckInterval?: Duration.Input | undefined
  /**
   * What to do if data in the store does not decode: open a new session and log a warning (without the data), or fail
   * with a {@link SessionDecodeError}. Default: `"renew"`. If you add a field to the schema, give it a default, such as
   * by `Schema.withDecodingDefaultKey`, or older sessions do not decode.
   */
  readonly undecodable?: "renew" | "fail" | undefined
  /**
   * Which sessions belong together: for each index, a pure function from the value of a session to what it is found by,
   * such as a user, or to `undefined` for none. Use it with {@link ServiceClass.sessionsOf} and {@link
   * ServiceClass.destroyAllOf}.
   *
   * A commit that changes what a session belongs to renews its token by itself, as at a log-in. A session from before the
   * index was declared joins it with its next commit or touch; until then only `sessions` finds it.
   */
  readonly indexes?: { readonly [Name in Index]: (value: NoInfer<A>) => string | undefined } | undefined
  /**
   * How many sessions one value of an index may have. When one more begins, the oldest end. Default: any number.
   */
  readonly maxSessions?: { readonly [Name in Index]?: number | undefined } | undefined
}

/**
 * A session class: a service tag, and ways to a session without a request that provides one. {@link Service} makes it.
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
export interface ServiceClass<Self, Id extends string, A, Index extends string = never>
  extends Context.ServiceClass<Self, Id, Session<A>> {
  /**
   * Opens the session of a token, or a new one if there is no token or it opens nothing: it is malformed, unknown or
   * expired, or belongs to another class. Such a token is never adopted; the first commit makes a new one.
   *
   * **When to use**: if no middleware does it: in a WebSocket, an RPC handler, a job, a test. If you open a session, you
   * commit it.
   *
   * **Details**: the token of before a renewal opens, for a minute, a session that has ended: its value is the initial
   * one, its `status` is `"ended"`, and nothing that is done to it is saved. After that minute it opens a new session, as
   * any unknown token does.
   */
  readonly open: (
    token?: Redacted.Redacted<string>,
    options?: OpenOptions
  ) => Effect.Effect<Session<A>, SessionError, SessionStore>

  /** @internal */
  readonly [opener]: Opener<Session<A>>

  /**
   * Every active session of this class that decodes. Reading or changing them does not count as use.
   *
   * **When to use**: to go through all sessions. It reads the whole store, and shows what is stored: changes that a
   * request has not committed yet are not in it.
   *
   * **Details**: a session that does not decode is skipped with a warning. A session that is being renewed is listed
   * under its old id, and later under the new one; for a moment in between it is not listed. To end all sessions of a
   * user, whatever is under way, use `destroyAllOf`.
   */
  readonly sessions: Stream.Stream<Session<A>, SessionStoreError, SessionStore>

  /**
   * The active sessions of one value of an index, such as all devices of a user, in the order in which they began.
   *
   * **When to use**: to list the devices of a user. It takes as many operations as the user has sessions, however many
   * the store holds.
   *
   * **Details**: reading or changing them does not count as use. One that does not decode is skipped with a warning.
   */
  readonly sessionsOf: (index: Index, value: string) => Stream.Stream<Session<A>, SessionStoreError, SessionStore>

  /**
   * Ends all sessions of one value of an index, except one if you name it, and returns how many there were.
   *
   * **When to use**: for "log out everywhere", and after a change of the password.
   *
   * **Details**: once it succeeds, no token of such a session opens anything any more, whatever was under way: a log-in
   * whose request began earlier saves nothing, and a renewal ends. Between servers, "earlier" is as exact as their clocks
   * agree.
   *
   * **Gotchas**: a log-in of the same handler that is not committed yet is under way too, even if you name it as
   * `except`: `commit` it first. Without `except`, `destroy` this session too, so that its cookie goes.
   *
   * **Errors**: if the store fails, call it again; it ends what is left.
   */
  readonly destroyAllOf: (
    index: Index,
    value: string,
    options?: { readonly except?: Pick<Session<A>, "id"> | undefined }
  ) => Effect.Effect<number, SessionStoreError, SessionStore>

  /**
   * The session with a public id, such as one from a list of devices, if it is active.
   *
   * **When to use**: to end one device of a list. Anybody may know an id: check that the session is of the user who asks.
   *
   * **Details**: reading or changing it does not count as use.
   */
  readonly byId: (id: string) => Effect.Effect<Option.Option<Session<A>>, SessionError, SessionStore>

  /**
   * What happens to the sessions of this class from now on: in this process, and with `RedisEvents` on every server.
   *
   * **When to use**: for an audit log. An event has ids, which open nothing, and no value.
   *
   * **Gotchas**: an event is a hint. It is published after the store confirmed, and may never arrive. At most a thousand
   * events wait for a slow consumer; it loses the oldest.
   */
  readonly events: Stream.Stream<SessionEvent>
}

/**
 * Makes a session class: a service tag whose service is a {@link Session}, typed by a schema.
 *
 * **Details**: the key names the class in the data of its sessions. Changing it ends all of them. Throws a `TypeError` if
 * the lifetime, the idle timeout or the recheck interval is not longer than zero, the lifetime is longer than a thousand
 * years, the touch interval is not shorter than the idle timeout, or `maxSessions` has a number below one.
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
 * // Without HTTP: open, use, commit.
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
  <const Id extends string, A, I, Index extends string = never>(
    key: Id,
    options: Options<A, I, Index>
  ): ServiceClass<Self, Id, A, Index> => {
    const records = makeRecords(key, options)
    const openWith = makeOpener(records)
    return Object.assign(Context.Service<Self, Session<A>>()(key), {
      open: (token?: Redacted.Redacted<string>, options?: OpenOptions) => open(openWith, token, options),
      [opener]: openWith,
      sessions: listAll(records),
      sessionsOf: (index: Index, value: string) => listOf(records, index, value),
      destroyAllOf: (index: Index, value: string, options?: { readonly except?: Pick<Session<A>, "id"> | undefined }) =>
        destroyAllOf(records, index, value, options?.except),
      byId: (id: string) => byId(records, id),
      events: eventsOf(key)
    })
  }

const longest = 365_000 * 86_400_000

const makeRecords = <A, I, Index extends string>(key: string, options: Options<A, I, Index>): Records<A> => {
  const lifetime = Math.ceil(
    toMillis(`${key}: the lifetime`, options.lifetime ?? "24 hours") ?? Number.POSITIVE_INFINITY
  )
  if (lifetime > longest) throw new TypeError(`${key}: the lifetime is longer than a thousand years`)
  const idleTimeout =
    options.idleTimeout === undefined ? null : toMillis(`${key}: the idle timeout`, options.idleTimeout)
  const touchInterval =
    options.touchInterval === undefined
      ? undefined
      : toMillisOrZero(`${key}: the touch interval`, options.touchInterval)
  if (touchInterval !== undefined && idleTimeout !== null && touchInterval >= idleTimeout) {
    throw new TypeError(`${key}: the touch interval is not shorter than the idle timeout`)
  }
  const recheckInterval =
    toMillis(`${key}: the recheck interval`, options.recheckInterval ?? "10 seconds") ?? Number.POSITIVE_INFINITY
  const { initial, schema, undecodable = "renew" } = options
  const indexes = makeIndexes(key, options)
  const times = { lifetime, idleTimeout, touchInterval, recheckInterval }
  return new Records<A>({ key, schema, initial, undecodable, indexes, ...times })
}

const makeIndexes = <A, I, Index extends string>(
  key: string,
  { indexes, maxSessions }: Options<A, I, Index>
): ReadonlyMap<string, IndexOptions<A>> => {
  const made = new Map<string, IndexOptions<A>>()
  for (const name in indexes) {
    const max = maxSessions?.[name] ?? Number.POSITIVE_INFINITY
    if (!(max >= 1)) throw new TypeError(`${key}: maxSessions of ${name} is not a number of at least one`)
    made.set(name, { indexedBy: indexes[name], max: Math.floor(max) })
  }
  return made
}
