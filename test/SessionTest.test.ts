import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Option, Schema, Stream } from "effect"
import { Session } from "effect-sessions"
import { SessionTest } from "effect-sessions/testing"

class Visits extends Session.Service<Visits>()("test/Visits", { schema: Schema.Int, initial: () => 0 }) {}

describe("SessionTest", () => {
  describe("layer", () => {
    it.effect("provides a session with the value, as a request with a cookie would find it", () =>
      Effect.gen(function* () {
        const visits = yield* Visits
        assert.strictEqual(yield* visits.get, 41)
        assert.strictEqual(yield* visits.status, "unmodified")
        assert.isTrue(Option.isSome(yield* visits.token))
        assert.strictEqual(yield* Stream.runCount(Visits.sessions), 1)
        assert.isFalse(Option.getOrThrow(yield* visits.commit).isTokenNew)
      }).pipe(Effect.provide(SessionTest.layer(Visits, 41)))
    )

    it.effect("provides the session of a new visitor, where the value is the initial one", () =>
      Effect.gen(function* () {
        const visits = yield* Visits
        assert.strictEqual(yield* visits.get, 0)
        assert.deepStrictEqual(yield* visits.token, Option.none())
      }).pipe(Effect.provide(SessionTest.layer(Visits, 0)))
    )

    it.effect("dies where the value does not fit the schema", () =>
      Effect.gen(function* () {
        const exit = yield* Effect.exit(Effect.provide(Visits, SessionTest.layer(Visits, 1.5)))
        assert.instanceOf(Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined, TypeError)
      })
    )
  })
})
