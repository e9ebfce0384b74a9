/**
 * Typed sessions on any {@link SessionStore}, without HTTP.
 *
 * {@link Service} makes a service tag from a schema. Its {@link Session} works like a `Ref`: `get`, `set`, `update` and
 * `modify` work on a value in memory, and `commit` writes the changes. A commit is a compare-and-set: if another
 * request committed first, your changes are applied again to the newer value. If the session has ended in the meantime,
 * nothing is written. So no update is lost, and no log-out comes undone.
 *
 * The store keeps a session under its id, the SHA-256 of its token, as JSON with these fields. Times are in
 * milliseconds since 1970.
 *
 * - `version`: 1
 * - `session`: the key of its class; a session never opens as one of another class
 * - `createdAt`, `issuedAt`: when the session began, and when its token was made
 * - `deadline`: the end of its lifetime
 * - `idleTimeout`: in milliseconds, `null` for none; only if `setIdleTimeout` was called
 * - `rememberMe`: only if it is `true`
 * - `pending`: only if it is `true`, while a renewal is not complete; such a session is never opened and never listed
 * - `memberOf`: the keys of the index records that name it, if there are any
 * - `value`: the value, encoded by the JSON codec of its schema
 * - `usedAt`: when it was last used, to the precision of the touch interval
 * - `former`: the id before its token was renewed, until the next save
 * - `write`: a unique id of this write
 *
 * A renewal or a merge leaves a tombstone under the old id: `version`, `session`, and `successor`, the id of the
 * session that took over. It stays for a minute. `ended` is `true` after a log-out with the old token; `held` and
 * `merge` are present during a merge. A log-out also leaves a tombstone, without a successor.
 *
 * An index record is kept under `index:` and a hash of the index, the value and the class. It has `version`; `index`,
 * the key of the class; `members`, the ids of the sessions that it names; `revokedAt`, when all of them were last
 * ended; and `write`.
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
 * One session: a typed value with a token and an expiry.
 *
 * A session in memory belongs to one request, job or connection. Several fibers may use it.
 *
 * **Gotchas**: a change is applied immediately, and again to the newer value if another request commits first, so it
 * must be a pure function. `update((n) => n + 1)` counts every request. `get` followed by `set(n + 1)` overwrites what
 * others counted in between.
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
  /** The value, with every change made through this session. */
  readonly get: Effect.Effect<A>

  /**
   * Replaces the value, even if another request has changed it in the meantime. Prefer `update`, which keeps the
   * changes of others.
   */
  readonly set: (value: A) => Effect.Effect<void>

  /** Changes the value with a pure function. At commit, the function may be applied again to a newer value. */
  readonly update: (f: (value: A) => A) => Effect.Effect<void>

  /**
   * Changes the value with a pure function that also returns a result. At commit, the function may be applied again to
   * a newer value; the result is that of the first call.
   *
   * **When to use**: to read and change in one step, such as a flash message that is shown once.
   */
  readonly modify: <B>(f: (value: A) => readonly [result: B, value: A]) => Effect.Effect<B>

  /** Resets the value to `initial`. Keeps token and deadline. */
  readonly clear: Effect.Effect<void>

  /**
   * Makes the next commit move the session to a new token, with the same value and a new lifetime. A session that was
   * never committed has no token yet, so it only gets a new lifetime.
   *
   * **When to use**: at every change of privilege, above all at log-in. A token that an attacker planted or saw before
   * is worthless afterwards ([OWASP on session
   * fixation](https://cheatsheetseries.owasp.org/cheatsheets/Session_Management_Cheat_Sheet.html)).
   *
   * **Details**: nothing changes until the commit: if the handler dies or the client disconnects, the session keeps the
   * old token. The commit includes every update that other requests made before. After it, the old token opens a
   * session that has ended: a late request writes nothing with it and sets no cookie. For one more minute, a log-out
   * with the old token still ends the new session.
   */
  readonly renewToken: Effect.Effect<void>

  /**
   * Ends the session in the store immediately, and discards its value. Anything you write afterwards belongs to a new
   * session, with a new token.
   *
   * **When to use**: at log-out.
   *
   * **Details**: if another request has renewed the token, the session under the new token ends too. After this
   * succeeds, no token of this session opens it.
   *
   * **Errors**: if the store fails, the session may or may not have ended. Call `destroy` again.
   */
  readonly destroy: Effect.Effect<void, SessionStoreError>

  /**
   * Merges the value of another session into this one. The other session ends when this one is committed. This session
   * keeps its token and deadline. A no-op if the other token opens nothing or this same session, or if this session has
   * ended.
   *
   * **When to use**: after a redirect that lost the cookie, with a token that came back in another way.
   *
   * **Details**: the value is never lost. What other requests write to the other session before the commit is merged
   * too. If the other session has ended by then, none of it is merged. If this session has ended, or cannot be saved,
   * the other session stays as it was. If the commit fails although its write has arrived, both sessions have the value
   * until you retry the commit.
   */
  readonly merge: (
    token: Redacted.Redacted<string>,
    combine: (value: A, other: A) => A
  ) => Effect.Effect<void, SessionError>

  /** Chooses whether the browser keeps the cookie when it closes. */
  readonly setRememberMe: (rememberMe: boolean) => Effect.Effect<void>

  /**
   * Sets the time at which this session ends, however much it is used. A deadline in the past ends the session at the
   * next commit.
   */
  readonly setDeadline: (deadline: DateTime.DateTime) => Effect.Effect<void>

  /**
   * Overrides the idle timeout for this session; an infinite one means none. Dies with a `TypeError` if it is not
   * longer than zero.
   */
  readonly setIdleTimeout: (idleTimeout: Duration.Input) => Effect.Effect<void>

  /**
   * Fetches the newest value from the store, applies the changes of this session to it, and returns whether the session
   * is still active. If it is not, `status` becomes `"ended"`.
   *
   * **When to use**: if you hold a session for longer than a request, such as in a WebSocket, to see the changes of
   * others and whether they logged out.
   *
   * **Details**: `true` for a session that was never committed; `false` after `destroy`.
   */
  readonly reload: Effect.Effect<boolean, SessionError>

  /**
   * Waits until this session has ended, on any server, and returns how. Waiting does not count as use.
   *
   * **When to use**: to end a WebSocket, a stream of Server-Sent Events or an RPC connection with its session:
   * `Effect.raceFirst(socket, session.ended)`.
   *
   * **Details**: it checks the store when you begin to wait, then every `recheckInterval`, when the session would
   * expire, and immediately when an event of `SessionEvents` arrives. If many wait for one session in this process,
   * only one of them checks. If this session renews its token by its own commit, the wait continues with the new token.
   * If another request renewed it, or merged it into another session, the result is `"renewed"`. If it was never
   * committed, the wait begins at the first commit. After `destroy`, the result is `"destroyed"` immediately.
   *
   * **Gotchas**: the result is what the store shows at the next check. It is `"destroyed"` if a renewal was more than a
   * minute ago, or if the deadline was brought forward since the last check.
   *
   * **Errors**: a check that fails is repeated at the next interval. If the store fails for three intervals, `ended`
   * fails.
   */
  readonly ended: Effect.Effect<Ending, SessionStoreError>

  /**
   * The secret that opens this session. Until a renewal is committed, it is the old one. `none` before the first
   * commit, after `destroy`, and after the session has ended. Also `none` for a session that was listed or found by its
   * id, unless it was renewed, because the store has no tokens.
   */
  readonly token: Effect.Effect<Option.Option<Redacted.Redacted<string>>>

  /**
   * The public id of this session: the SHA-256 of its token, and its key in the store. It opens nothing, so you can
   * show it in a list or a log. `none` if the session is not in the store.
   */
  readonly id: Effect.Effect<Option.Option<string>>

  /** When this session began. */
  readonly createdAt: Effect.Effect<DateTime.Utc>

  /**
   * When the token of this session was made: at the last log-in or renewal.
   *
   * **When to use**: to ask for the password again if the last log-in was too long ago.
   */
  readonly issuedAt: Effect.Effect<DateTime.Utc>

  /**
   * When this session was last used, give or take the touch interval. Without an idle timeout, this is when it was last
   * saved.
   */
  readonly usedAt: Effect.Effect<DateTime.Utc>

  /** When this session ends if it is not used: the earlier of its deadline and the end of its idle timeout. */
  readonly expiry: Effect.Effect<DateTime.Utc>

  /** When the lifetime of this session ends. */
  readonly deadline: Effect.Effect<DateTime.Utc>

  /**
   * What was done to this session, and whether it has ended, as far as this process knows. To find out whether another
   * request has ended it since it was opened, call `reload`.
   */
  readonly status: Effect.Effect<Status>

  /**
   * Saves the session: its changes, a renewed token, and with an idle timeout, the time of its last use. If another
   * request committed first, the changes are applied again to the newer value. Writes nothing if there is nothing to
   * save, or if the session has ended.
   *
   * Returns the token and the expiry for a cookie. `none` if the session is known to have ended, if it is new and
   * unchanged or past its deadline, and if it was listed or found by its id and not renewed. A commit with nothing to
   * save does not ask the store, so it cannot find out whether another request has ended the session.
   *
   * **Details**: commits of one session take turns within a process, and the waiting ones are saved together in one
   * write, so a flood does not slow the store down. Between processes, the commit that loses waits a moment before its
   * second retry, and longer before each later one.
   *
   * **Errors**: if the store fails, the changes stay in place: commit again. At that point it is unknown whether the
   * write arrived. The next try recognises its own write, so no change is made twice, unless another request has
   * overwritten it in between. Fails with `SessionBusyError` if a thousand other commits of this session wait in this
   * process. Dies with a `TypeError`, and writes nothing, if the value does not fit its schema or has more than 256
   * levels of nested arrays and objects, too deep to be sure that it can be read again.
   */
  readonly commit: Effect.Effect<Option.Option<Committed>, SessionError>
}

/**
 * The options of a session class.
 */
export interface Options<A, I, Index extends string = never> {
  /** Describes the value, which is stored as JSON, encoded by this schema. */
  readonly schema: Schema.Codec<A, I>
  /** Makes the value of a new session. */
  readonly initial: () => NoInfer<A>
  /**
   * How long a session may live, however much it is used: up to a thousand years. A number is in milliseconds. Default:
   * 24 hours.
   */
  readonly lifetime?: Duration.Input | undefined
  /**
   * How long a session may go without a request. This is an upper bound: see `touchInterval`. Default: none. An
   * infinite one also means none.
   */
  readonly idleTimeout?: Duration.Input | undefined
  /**
   * How often a request that changes nothing moves the expiry. Each time costs a write and a cookie. A session ends no
   * later than `idleTimeout` after its last request, and no earlier than `idleTimeout - touchInterval` after it. Zero
   * means every request. Default: a twentieth of the idle timeout.
   */
  readonly touchInterval?: Duration.Input | undefined
  /**
   * How often `ended` checks whether a session has ended. If no event arrives, a socket may outlive a log-out by this
   * much. If it is infinite, `ended` relies on events and the expiry. Default: 10 seconds.
   */
  readonly recheckInterval?: Duration.Input | undefined
  /**
   * What to do if data in the store does not decode: open a new session and log a warning (without the data), or fail
   * with a {@link SessionDecodeError}. Default: `"renew"`. If you add a field to the schema, give it a default, for
   * example with `Schema.withDecodingDefaultKey`. Otherwise older sessions do not decode.
   */
  readonly undecodable?: "renew" | "fail" | undefined
  /**
   * Which sessions belong together: for each index, a pure function from the value of a session to the value of the
   * index, such as a user id, or to `undefined` for none. Use it with {@link ServiceClass.sessionsOf} and
   * {@link ServiceClass.destroyAllOf}.
   *
   * A commit that changes an index value of a session, as a log-in does, renews its token automatically. A session from
   * before the index was declared joins it at its next commit or touch; until then only `sessions` finds it.
   */
  readonly indexes?: { readonly [Name in Index]: (value: NoInfer<A>) => string | undefined } | undefined
  /**
   * How many sessions one value of an index may have. When another one begins, the oldest end. Default: no limit.
   */
  readonly maxSessions?: { readonly [Name in Index]?: number | undefined } | undefined
}

/**
 * A session class: a service tag, and operations that find sessions outside a request. {@link Service} makes one.
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
   * Opens the session of a token. Opens a new session if there is no token, or if the token is malformed, unknown,
   * expired or of another class. Such a token is never adopted: the first commit makes a new one.
   *
   * **When to use**: if no middleware opens the session for you: in a WebSocket, an RPC handler, a job or a test. If
   * you open a session, commit it yourself.
   *
   * **Details**: for a minute after a renewal, the old token opens a session that has ended: its value is the initial
   * one, its `status` is `"ended"`, and none of its changes are saved. After that minute it opens a new session, like
   * any unknown token.
   */
  readonly open: (
    token?: Redacted.Redacted<string>,
    options?: OpenOptions
  ) => Effect.Effect<Session<A>, SessionError, SessionStore>

  /** @internal */
  readonly [opener]: Opener<Session<A>>

  /**
   * Every active session of this class that decodes. Reading or changing these sessions does not count as use.
   *
   * **When to use**: to go through all sessions. It reads the whole store, and shows what is stored, without the
   * uncommitted changes of any request.
   *
   * **Details**: a session that does not decode is skipped with a warning. During a renewal, a session is listed under
   * its old id, then for a moment not at all, then under its new id. To end all sessions of a user, including those,
   * use `destroyAllOf`.
   */
  readonly sessions: Stream.Stream<Session<A>, SessionStoreError, SessionStore>

  /**
   * The active sessions of one value of an index, such as all devices of a user, oldest first.
   *
   * **When to use**: to list the devices of a user. It takes one operation per session of the user, however many
   * sessions the store holds.
   *
   * **Details**: reading or changing them does not count as use. One that does not decode is skipped with a warning.
   */
  readonly sessionsOf: (index: Index, value: string) => Stream.Stream<Session<A>, SessionStoreError, SessionStore>

  /**
   * Ends all sessions of one value of an index, except the one in `except`, and returns how many there were.
   *
   * **When to use**: to log out everywhere, and after a password change.
   *
   * **Details**: after it succeeds, no token of these sessions opens anything, even if requests were in progress: a
   * log-in whose request began earlier saves nothing, and a renewal ends. Between servers, "earlier" is only as exact
   * as their clocks.
   *
   * **Gotchas**: this includes an uncommitted log-in of the same handler, even if you name it as `except`: `commit` it
   * first. Without `except`, also `destroy` the session of the request, to remove its cookie.
   *
   * **Errors**: if the store fails, call it again; it ends the remaining sessions.
   */
  readonly destroyAllOf: (
    index: Index,
    value: string,
    options?: { readonly except?: Pick<Session<A>, "id"> | undefined }
  ) => Effect.Effect<number, SessionStoreError, SessionStore>

  /**
   * The active session with a public id, such as one from a list of devices.
   *
   * **When to use**: to log out one device of a list. Ids are not secret: check that the session belongs to the user
   * who asks.
   *
   * **Details**: reading or changing it does not count as use.
   */
  readonly byId: (id: string) => Effect.Effect<Option.Option<Session<A>>, SessionError, SessionStore>

  /**
   * What happens to the sessions of this class from now on: in this process, or with `RedisEvents`, on every server.
   *
   * **When to use**: for an audit log. An event contains ids, which open nothing, but no value.
   *
   * **Gotchas**: an event is a hint. It is published after the store has confirmed the change, and may never arrive. At
   * most a thousand events wait for a slow consumer, which loses the oldest.
   */
  readonly events: Stream.Stream<SessionEvent>
}

/**
 * Makes a session class: a service tag whose service is a {@link Session}, typed by a schema.
 *
 * **Details**: the key names the class in the data of its sessions. If you change it, all of them end. Throws a
 * `TypeError` if the lifetime, the idle timeout or the recheck interval is not longer than zero, the lifetime is longer
 * than a thousand years, the touch interval is not shorter than the idle timeout, or `maxSessions` has a number below
 * one.
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
