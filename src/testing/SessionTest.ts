/**
 * Sessions for the tests of an application.
 *
 * {@link layer} provides a session to a handler, without a server, a cookie or a store. {@link browser} is a client
 * with a cookie jar, for tests over several requests.
 *
 * @module
 */
import { Effect, Layer, Option } from "effect"
import { MemStore } from "../MemStore.ts"
import type { ServiceClass } from "../Session.ts"
import type { SessionStore } from "../SessionStore.ts"

export { type Browser, type BrowserOptions, browser, type Requires } from "./browser.ts"

/**
 * Provides a session with the given value, as if the cookie of a request had opened it: it is in a new store, and has a
 * token. With the initial value, it is the session of a new visitor.
 *
 * **When to use**: to test a handler, or other code that asks for a session by its tag. To see what it did to the
 * session, ask for the tag in the test too. To test cookies and expiry, use {@link browser}.
 *
 * **Details**: also provides the store, for a handler that lists or opens other sessions. Nothing is committed unless
 * the handler or the test does it.
 *
 * **Errors**: dies if the value does not fit the schema of the class.
 *
 * @example
 * ```ts
 * import { assert, it } from "@effect/vitest"
 * import { Effect, Schema } from "effect"
 * import { Session } from "effect-sessions"
 * import { SessionTest } from "effect-sessions/testing"
 *
 * class Visits extends Session.Service<Visits>()("app/Visits", { schema: Schema.Int, initial: () => 0 }) {}
 *
 * const handler = Effect.gen(function* () {
 *   const visits = yield* Visits
 *   yield* visits.update((n) => n + 1)
 *   return `Visit number ${yield* visits.get}`
 * })
 *
 * it.effect("counts the visit", () =>
 *   Effect.gen(function* () {
 *     assert.strictEqual(yield* handler, "Visit number 42")
 *     assert.strictEqual(yield* (yield* Visits).status, "modified")
 *   }).pipe(Effect.provide(SessionTest.layer(Visits, 41)))
 * )
 * ```
 */
export const layer = <Self, Id extends string, A>(
  session: ServiceClass<Self, Id, A>,
  value: NoInfer<A>
): Layer.Layer<Self | SessionStore | MemStore> =>
  Layer.effect(
    session,
    Effect.gen(function* () {
      const added = yield* session.open()
      yield* added.set(value)
      const committed = yield* added.commit
      return yield* session.open(Option.getOrUndefined(Option.map(committed, ({ token }) => token)))
    })
  ).pipe(Layer.orDie, Layer.provideMerge(MemStore.layerWithCleanupInterval(0)))
