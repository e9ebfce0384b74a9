/**
 * The contract between an application and the place that keeps its sessions: text under a token until an expiry.
 *
 * `SessionStore` is the tag that every store provides. An application that asks for it runs on any store: to switch
 * stores, change one layer. A store never looks inside the text, and does not know about schemas, cookies or HTTP.
 * `SessionStore.make` builds the service of a store from its primitives.
 *
 * @module
 */
import type { DateTime } from "effect"
import { Context, Effect, HashMap, type Option, Schema, Stream } from "effect"

/**
 * The operations that each store has to implement. {@link SessionStore.make} derives the rest of the service from them.
 *
 * A session is **active** while `now <= expiry`, by Effect's `Clock`, and expired after that, for every operation. If
 * the server behind a store removes expired sessions itself, as Redis does, the clock of that server decides.
 *
 * Tokens and data are well-formed strings of any length: `SessionStore.make` rejects all others. To store binary data,
 * encode it with `effect/encoding/Base64`.
 *
 * **When to use**: to write a store of your own.
 *
 * `E` is the error of a system failure; it is `never` for a store in memory. An unknown, expired or malformed token is
 * not a failure, for any operation.
 */
export interface SessionStorePrimitives<out E = SessionStoreError> {
  /**
   * The data of an active session; `none` if the token is unknown, expired or malformed.
   */
  readonly find: (token: string) => Effect.Effect<Option.Option<string>, E>

  /**
   * Adds a session unless an active one has this token, and returns whether it did. Atomic: of many simultaneous calls
   * for one token, exactly one succeeds. An expired session does not count, and is overwritten.
   *
   * **When to use**: to add a session without the risk of overwriting another.
   */
  readonly create: (token: string, data: string, expiry: DateTime.DateTime) => Effect.Effect<boolean, E>

  /**
   * Adds a session, or overwrites the data and expiry of an existing one. An expiry in the past is allowed: such a
   * session is never found.
   */
  readonly commit: (token: string, data: string, expiry: DateTime.DateTime) => Effect.Effect<void, E>

  /**
   * An atomic compare-and-set: writes data and expiry only if the session is active and its data equals `expected`, and
   * returns whether it did. With an expiry in the past, this is a compare-and-delete.
   *
   * **When to use**: to change a session that others may change at the same time. On `false`, find it again, apply your
   * change to what you found, and retry. If you no longer find it, the session has ended: write nothing.
   */
  readonly replace: (
    token: string,
    expected: string,
    data: string,
    expiry: DateTime.DateTime
  ) => Effect.Effect<boolean, E>

  /**
   * Removes a session immediately. A no-op if the token is unknown.
   */
  readonly delete: (token: string) => Effect.Effect<void, E>

  /**
   * The token and data of every session that is active when the stream begins, each token once, in no particular order.
   * A session may expire before a slow consumer reaches it.
   */
  readonly entries: Stream.Stream<readonly [token: string, data: string], E>
}

/**
 * What every session store can do: its {@link SessionStorePrimitives}, and the operations derived from them.
 *
 * **When to use**: as a type. To use a store, ask for the tag {@link SessionStore}.
 *
 * **Errors**: a token or data with a lone surrogate is not text and cannot be stored. `create` and `commit` die with a
 * `TypeError` before anything is written, and so does `replace` if the new data is such a string. All other operations
 * treat such a token as unknown.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import type { SessionStoreOperations } from "effect-sessions"
 *
 * // Wraps any store, and tries each find up to three times.
 * const withRetries = <E>(store: SessionStoreOperations<E>): SessionStoreOperations<E> => ({
 *   ...store,
 *   find: (token) => Effect.retry(store.find(token), { times: 2 })
 * })
 * ```
 */
export interface SessionStoreOperations<out E = SessionStoreError> extends SessionStorePrimitives<E> {
  /**
   * The token and data of every session that is active when the read begins; an empty map if there is none.
   *
   * **When to use**: if the store is small enough for one map. {@link SessionStorePrimitives.entries} is the same as a
   * stream.
   */
  readonly all: Effect.Effect<HashMap.HashMap<string, string>, E>
}

/**
 * The name of the operation in a {@link SessionStoreError}.
 */
export type SessionStoreOperation = keyof SessionStoreOperations

const collect = <E>(
  entries: Stream.Stream<readonly [token: string, data: string], E>
): Effect.Effect<HashMap.HashMap<string, string>, E> =>
  Effect.map(
    Stream.runFold(
      entries,
      () => HashMap.beginMutation(HashMap.empty<string, string>()),
      (found, [token, data]) => HashMap.set(found, token, data)
    ),
    HashMap.endMutation
  )

const malformed = (what: string) =>
  Effect.die(new TypeError(`SessionStore: the ${what} has a lone surrogate, which is not text; encode it as Base64`))

// V8 stores Latin-1 text one byte per character and knows without reading it that it is well-formed: about 10 ns for
// token and data, whether 256 characters or 1 MB. It has to scan other text: 0.2 µs for 256 characters, 0.7 ms for 1
// MB, a fifth of the time it takes to encode that as UTF-8.
const refuse = (token: string, data: string): Effect.Effect<never> | undefined => {
  if (!token.isWellFormed()) return malformed("token")
  return data.isWellFormed() ? undefined : malformed("data")
}

/** The one place that decides which strings a store has to accept. */
const withText = <E>(store: SessionStorePrimitives<E>): SessionStorePrimitives<E> => ({
  find: (token) => (token.isWellFormed() ? store.find(token) : Effect.succeedNone),
  create: (token, data, expiry) => refuse(token, data) ?? store.create(token, data, expiry),
  commit: (token, data, expiry) => refuse(token, data) ?? store.commit(token, data, expiry),
  replace: (token, expected, data, expiry) => {
    if (!data.isWellFormed()) return malformed("data")
    return token.isWellFormed() && expected.isWellFormed()
      ? store.replace(token, expected, data, expiry)
      : Effect.succeed(false)
  },
  delete: (token) => (token.isWellFormed() ? store.delete(token) : Effect.void),
  entries: store.entries
})

const withErrors = <E, E2>(
  store: SessionStorePrimitives<E>,
  toError: (operation: SessionStoreOperation, error: E) => E2
): SessionStoreOperations<E2> => {
  const orError =
    (operation: SessionStoreOperation) =>
    <A>(effect: Effect.Effect<A, E>): Effect.Effect<A, E2> =>
      Effect.mapError(effect, (error) => toError(operation, error))
  const [onFind, onCreate, onCommit] = [orError("find"), orError("create"), orError("commit")]
  const [onReplace, onDelete, onAll] = [orError("replace"), orError("delete"), orError("all")]
  return {
    find: (token) => onFind(store.find(token)),
    create: (token, data, expiry) => onCreate(store.create(token, data, expiry)),
    commit: (token, data, expiry) => onCommit(store.commit(token, data, expiry)),
    replace: (token, expected, data, expiry) => onReplace(store.replace(token, expected, data, expiry)),
    delete: (token) => onDelete(store.delete(token)),
    all: onAll(collect(store.entries)),
    entries: Stream.mapError(store.entries, (error) => toError("entries", error))
  }
}

/** `SessionStore.make`. */
function make(primitives: SessionStorePrimitives<never>): SessionStoreOperations<never>
function make<E, E2>(
  primitives: SessionStorePrimitives<E>,
  toError: (operation: SessionStoreOperation, error: E) => E2
): SessionStoreOperations<E2>
function make<E>(
  primitives: SessionStorePrimitives<E>,
  toError?: (operation: SessionStoreOperation, error: E) => E
): SessionStoreOperations<E> {
  const store = withText(primitives)
  return toError === undefined ? { ...store, all: collect(store.entries) } : withErrors(store, toError)
}

/**
 * The service tag that every session store provides.
 *
 * **When to use**: in all code that reads or writes sessions. Code that asks for this tag runs on every store.
 *
 * **Errors**: every operation can fail with {@link SessionStoreError}, but only if the system behind the store fails.
 *
 * @example
 * ```ts
 * import { DateTime, Effect, Option } from "effect"
 * import { MemStore, SessionStore } from "effect-sessions"
 *
 * const program = Effect.gen(function*() {
 *   const store = yield* SessionStore
 *   const expiry = DateTime.add(yield* DateTime.now, { hours: 24 })
 *   yield* store.commit("token", "hello", expiry)
 *   return yield* store.find("token")
 * })
 *
 * await Effect.runPromise(Effect.provide(program, MemStore.layer)) // => Option.some("hello")
 * ```
 */
export class SessionStore extends Context.Service<SessionStore, SessionStoreOperations>()(
  "effect-sessions/SessionStore"
) {
  /**
   * Builds the service of a store from its primitives. It rejects strings that are not text, derives `all` from
   * `entries`, and maps the failure of a primitive to the error of the operation that was called.
   *
   * **When to use**: to write a store of your own. A store that cannot fail needs no second argument.
   *
   * **Gotchas**: keep tokens and data out of the `cause` of your error. It ends up in logs.
   *
   * @example
   * ```ts
   * import { Effect, Stream } from "effect"
   * import { SessionStore, SessionStoreError } from "effect-sessions"
   *
   * // Every operation of this store fails, as if its server were down.
   * const store = SessionStore.make(
   *   {
   *     find: () => Effect.fail("away"),
   *     create: () => Effect.fail("away"),
   *     commit: () => Effect.fail("away"),
   *     replace: () => Effect.fail("away"),
   *     delete: () => Effect.fail("away"),
   *     entries: Stream.fail("away")
   *   },
   *   (operation, cause) => new SessionStoreError({ operation, cause })
   * )
   *
   * const error = await Effect.runPromise(Effect.flip(store.all))
   * error.message // => "Session store failed to all"
   * ```
   */
  static readonly make = make
}

/**
 * A session store could not complete an operation: the system behind it failed.
 *
 * The message names the operation and nothing else. A store must keep tokens and data out of the `cause`, because it
 * ends up in logs.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { SessionStore } from "effect-sessions"
 *
 * const logOut = Effect.fn("logOut")(function*(token: string) {
 *   const store = yield* SessionStore
 *   yield* store.delete(token).pipe(
 *     Effect.catchTag("SessionStoreError", (error) => Effect.logError(error.message, error.cause))
 *   )
 * })
 * ```
 */
// Without the pure annotations, a bundle of MemStore would include this error, although MemStore never fails.
export class SessionStoreError extends /* @__PURE__ */ Schema.TaggedError<SessionStoreError>(
  "effect-sessions/SessionStoreError"
)("SessionStoreError", {
  /** The operation that failed. */
  operation: /* @__PURE__ */ Schema.Literals(["find", "create", "commit", "replace", "delete", "all", "entries"]),
  /** The error from the system behind the store. */
  cause: /* @__PURE__ */ Schema.Defect()
}) {
  /** Names the operation, and contains neither token nor data. */
  override get message(): string {
    return `Session store failed to ${this.operation}`
  }
}
