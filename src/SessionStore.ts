/**
 * The contract between an application and the place that keeps its sessions: bytes under a token until an expiry.
 *
 * `SessionStore` is the tag that every store provides. An application that asks for it runs on any store, and moves
 * from one to another by changing one layer. A store never looks inside the bytes and knows nothing of schemas, cookies
 * or HTTP.
 *
 * @module
 */
import type { DateTime, Effect, HashMap, Option, Stream } from "effect"
import { Context, Schema } from "effect"

/**
 * What every session store can do.
 *
 * A session is **active** while `now <= expiry`, by Effect's `Clock`, and expired from then on. All operations agree on
 * this. Where the server behind a store removes what has expired, as Redis does, it goes by the clock of that server.
 *
 * **When to use**: as the type of a store of your own. To use a store, ask for the tag {@link SessionStore}.
 *
 * `E` is the error of a system failure: {@link SessionStoreError} for a store behind a network, `never` for one in
 * memory. An unknown, expired or malformed token is no failure for any operation.
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
export interface SessionStoreOperations<out E = SessionStoreError> {
  /**
   * The data of an active session; `none` where the token is unknown, expired or malformed. The array is the caller's
   * own: to change it changes nothing in the store.
   */
  readonly find: (token: string) => Effect.Effect<Option.Option<Uint8Array>, E>

  /**
   * Adds a session, or overwrites data and expiry of the one that is there. An expiry in the past is allowed: such a
   * session is never found. The data is read when `commit` is called, not when the effect runs: a store copies the array
   * before it returns the effect, so that to change it later changes nothing in the store.
   */
  readonly commit: (token: string, data: Uint8Array, expiry: DateTime.DateTime) => Effect.Effect<void, E>

  /**
   * Compare-and-set, atomic: writes data and expiry only if the session is active and its data equals `expected` byte
   * for byte, and says whether it did. Both arrays are read when `replace` is called, as with `commit`.
   *
   * **When to use**: to change a session that others may change at the same time. On `false`, find it anew, apply the
   * change to what you found and try again; where it is no longer found, it has ended, and nothing should be written.
   */
  readonly replace: (
    token: string,
    expected: Uint8Array,
    data: Uint8Array,
    expiry: DateTime.DateTime
  ) => Effect.Effect<boolean, E>

  /**
   * Removes a session at once. An unknown token is a no-op.
   */
  readonly delete: (token: string) => Effect.Effect<void, E>

  /**
   * Token and data of every session that is active when the read begins, an empty map where there is none.
   *
   * **When to use**: with a store that is small enough for one map; {@link SessionStoreOperations.entries} has the same
   * as a stream.
   */
  readonly all: Effect.Effect<HashMap.HashMap<string, Uint8Array>, E>

  /**
   * Token and data of every session that is active when the stream begins, each token once, in no particular order. A
   * session may expire before a slow consumer comes to it.
   */
  readonly entries: Stream.Stream<readonly [token: string, data: Uint8Array], E>
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
 *   yield* store.commit("token", new TextEncoder().encode("hello"), expiry)
 *   return Option.map(yield* store.find("token"), (data) => new TextDecoder().decode(data))
 * })
 *
 * await Effect.runPromise(Effect.provide(program, MemStore.layer)) // => Option.some("hello")
 * ```
 */
export class SessionStore extends Context.Service<SessionStore, SessionStoreOperations>()(
  "effect-sessions/SessionStore"
) {}

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
  operation: /* @__PURE__ */ Schema.Literals(["find", "commit", "replace", "delete", "all", "entries"]),
  /** What the system behind the store said. */
  cause: /* @__PURE__ */ Schema.Defect()
}) {
  /** Names the operation, and nothing of token or data. */
  override get message(): string {
    return `Session store failed to ${this.operation}`
  }
}
