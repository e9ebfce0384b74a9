/**
 * The contract between an application and the place that keeps its sessions: text under a token until an expiry.
 *
 * `SessionStore` is the tag that every store provides. An application that asks for it runs on any store, and moves
 * from one to another by changing one layer. A store never looks inside the text and knows nothing of schemas, cookies
 * or HTTP. `SessionStore.make` builds the service of a store from its primitives.
 *
 * @module
 */
import type { DateTime } from "effect"
import { Context, Effect, HashMap, type Option, Schema, Stream } from "effect"

/**
 * What only a store itself knows how to do. {@link SessionStore.make} derives the rest of the service from it.
 *
 * A session is **active** while `now <= expiry`, by Effect's `Clock`, and expired from then on. All operations agree on
 * this. If the server behind a store removes expired sessions itself, as Redis does, the clock of that server decides.
 *
 * Tokens and data are well-formed strings of any length: `SessionStore.make` lets no others through. To keep binary
 * data, encode it with `effect/encoding/Base64`.
 *
 * **When to use**: to write a store of your own.
 *
 * `E` is the error of a system failure, `never` for a store in memory. An unknown, expired or malformed token is not a
 * failure for any operation.
 */
export interface SessionStorePrimitives<out E = SessionStoreError> {
  /**
   * The data of an active session; `none` if the token is unknown, expired or malformed.
   */
  readonly find: (token: string) => Effect.Effect<Option.Option<string>, E>

  /**
   * Adds a session unless an active one has this token, and says whether it did. Atomic: of many calls at once for one
   * token, exactly one adds. An expired session does not count, and gives up its place.
   *
   * **When to use**: to add a session without the risk of overwriting another.
   */
  readonly create: (token: string, data: string, expiry: DateTime.DateTime) => Effect.Effect<boolean, E>

  /**
   * Adds a session, or overwrites data and expiry of the one that is there. An expiry in the past is allowed: such a
   * session is never found.
   */
  readonly commit: (token: string, data: string, expiry: DateTime.DateTime) => Effect.Effect<void, E>

  /**
   * Compare-and-set, atomic: writes data and expiry only if the session is active and its data equals `expected`, and
   * says whether it did. With an expiry in the past, this is a compare-and-delete.
   *
   * **When to use**: to change a session that others may change at the same time. On `false`, find it again, apply the
   * change to what you found and try again. If it is no longer found, it has ended, and nothing should be written.
   */
  readonly replace: (
    token: string,
    expected: string,
    data: string,
    expiry: DateTime.DateTime
  ) => Effect.Effect<boolean, E>

  /**
   * Removes a session at once. An unknown token is a no-op.
   */
  readonly delete: (token: string) => Effect.Effect<void, E>

  /**
   * Token and data of every session that is active when the stream begins, each token once, in no particular order. A
   * session may expire before a slow consumer comes to it.
   */
  readonly entries: Stream.Stream<readonly [token: string, data: string], E>
}

/**
 * What every session store can do: its {@link SessionStorePrimitives}, and what is derived from them.
 *
 * **When to use**: as a type. To use a store, ask for the tag {@link SessionStore}.
 *
 * **Errors**: a token or data with a lone surrogate, which is not text, cannot be kept. `create` and `commit` die with a
 * `TypeError` before anything is written, and so does `replace` if the new data is such a string; any other operation
 * takes such a token for one it does not know.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import type { SessionStoreOperations } from "effect-sessions"
 *
 * // Any store, with each find tried up to three times.
 * const withRetries = <E>(store: SessionStoreOperations<E>): SessionStoreOperations<E> => ({
 *   ...store,
 *   find: (token) => Effect.retry(store.find(token), { times: 2 })
 * })
 * ```
 */
export interface SessionStoreOperations<out E = SessionStoreError> extends SessionStorePrimitives<E> {
  /**
   * Token and data of every session that is active when the read begins, an empty map if there is none.
   *
   * **When to use**: with a store that is small enough for one map; {@link SessionStorePrimitives.entries} has the same
   * as a stream.
   */
  readonly all: Effect.Effect<HashMap.HashMap<string, string>, E>
}

/**
 * The name of an operation, in a {@link SessionStoreError}.
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

// V8 keeps Latin-1 one byte a character and knows without a look that it is well-formed: about 10 ns for token and data,
// of 256 characters or of 1 MB. Other text it has to read through: 0.2 µs for 256 characters, 0.7 ms for 1 MB, a fifth of
// what it takes to encode that as UTF-8.
const refuse = (token: string, data: string): Effect.Effect<never> | undefined => {
  if (!token.isWellFormed()) return malformed("token")
  return data.isWellFormed() ? undefined : malformed("data")
}

/** The one place that decides what text a store has to keep. */
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
 * **When to use**: wherever sessions are read or written. Code that asks for this tag runs on every store.
 *
 * **Errors**: every operation can fail with {@link SessionStoreError}, for system failures alone.
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
   * Builds the service of a store from its primitives: refuses what is not text, derives `all` from `entries`, and
   * turns what a primitive fails with into the error of the operation that was called.
   *
   * **When to use**: to write a store of your own. A store that cannot fail needs no second argument.
   *
   * **Gotchas**: keep tokens and data out of the `cause` of the error that you make. It ends up in logs.
   *
   * @example
   * ```ts
   * import { Effect, Stream } from "effect"
   * import { SessionStore, SessionStoreError } from "effect-sessions"
   *
   * // Every operation of this store fails, as those of a store whose server is away do.
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
 * A session store could not do what it was asked to: the system behind it failed.
 *
 * Its message names the operation and nothing else. A store that makes this error keeps tokens and data out of its
 * `cause`, which ends up in logs.
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
// Without the marks, a bundle of MemStore, which never fails, would keep this error.
export class SessionStoreError extends /* @__PURE__ */ Schema.TaggedError<SessionStoreError>(
  "effect-sessions/SessionStoreError"
)("SessionStoreError", {
  /** The operation that failed. */
  operation: /* @__PURE__ */ Schema.Literals(["find", "create", "commit", "replace", "delete", "all", "entries"]),
  /** What the system behind the store said. */
  cause: /* @__PURE__ */ Schema.Defect()
}) {
  /** Names the operation, and nothing of token or data. */
  override get message(): string {
    return `Session store failed to ${this.operation}`
  }
}
