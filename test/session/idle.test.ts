import { assert, describe } from "@effect/vitest"
import { DateTime, Duration, Option } from "effect"
import { TestClock } from "effect/testing"
import { IdleSession, stored, test, visit, visitsOf } from "./fixtures.ts"

describe("Session", () => {
  describe("idle timeout", () => {
    test("ends a session that goes unused", function* () {
      const { open } = yield* stored(IdleSession)
      yield* TestClock.adjust("20 minutes")
      assert.isTrue(Option.isSome(yield* (yield* open).token))
      yield* TestClock.adjust("1 millis")
      assert.isTrue(Option.isNone(yield* (yield* open).token))
    })

    test("is moved on by a commit of an unchanged session, up to the deadline", function* () {
      const { open } = yield* stored(IdleSession)
      for (let minutes = 15; minutes <= 60; minutes += 15) {
        yield* TestClock.adjust("15 minutes")
        const { expiry } = Option.getOrThrow(yield* (yield* open).commit)
        assert.strictEqual(
          DateTime.toEpochMillis(expiry),
          Math.min(Duration.toMillis("1 hour"), Duration.toMillis({ minutes: minutes + 20 }))
        )
      }
      yield* TestClock.adjust("1 millis")
      assert.isTrue(Option.isNone(yield* (yield* open).token))
    })

    test("moves on also where another request changed the session in the meantime", function* () {
      const { open, token } = yield* stored(IdleSession)
      const [reader, writer] = [yield* open, yield* open]
      yield* writer.update(visit)
      yield* writer.commit
      yield* TestClock.adjust("10 minutes")
      yield* reader.commit
      assert.strictEqual((yield* reader.get).visits, 2)
      yield* TestClock.adjust("20 minutes")
      assert.strictEqual(yield* visitsOf(IdleSession, token), 2)
    })
  })
})
