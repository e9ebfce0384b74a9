import type { Effect } from "effect"

/**
 * What registers a test with a test runner, under a title. The `it.effect` and `it.live` of `@effect/vitest` do.
 *
 * **When to use**: to run the suite with another runner. The body fails, or dies, if the test fails. It takes a few
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
