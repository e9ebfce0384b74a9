import type { Effect } from "effect"

/**
 * Registers a test with a test runner, under a title. `it.effect` and `it.live` of `@effect/vitest` fit.
 *
 * **When to use**: to run the suite with another runner. If the test fails, the body fails or dies. A test takes a few
 * seconds on a slow server.
 *
 * @example
 * ```ts
 * import { test } from "node:test"
 * import { Effect } from "effect"
 * import type { SessionStoreTest } from "effect-sessions/testing"
 *
 * const onNode: SessionStoreTest.Tester = (title, body) => void test(title, () => Effect.runPromise(body()))
 * ```
 */
export type Tester<R = never> = (title: string, body: () => Effect.Effect<void, unknown, R>) => void
