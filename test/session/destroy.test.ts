import { assert, describe } from "@effect/vitest"
import { DateTime, Duration, Effect, Option, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { MemStore, SessionStoreError } from "effect-sessions"
import { activeFields, commit, logIn, stored, test, UserSession, visit, visitsOf } from "./fixtures.ts"
import { VirtualStore } from "./virtualStore.ts"

describe("Session", () => {
  describe("destroy", () => {
    test("removes the session at once, and forgets its value", function* () {
      const { open } = yield* stored(UserSession)
      const session = yield* open
      yield* session.update(logIn("ada"))
      yield* session.destroy
      assert.strictEqual(yield* (yield* MemStore).size, 0)
      assert.deepStrictEqual(yield* session.get, { visits: 0 })
      assert.deepStrictEqual(yield* session.token, Option.none())
      assert.strictEqual(yield* session.status, "destroyed")
      assert.deepStrictEqual(yield* session.commit, Option.none())
      assert.strictEqual(yield* session.status, "destroyed")
    })

    test("lets what is written afterwards belong to a new session", function* () {
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      yield* TestClock.adjust("1 hour")
      yield* session.destroy
      yield* session.update(visit)
      assert.strictEqual(yield* session.status, "modified")
      assert.strictEqual(DateTime.toEpochMillis(yield* session.deadline), Duration.toMillis("25 hours"))
      const renewed = yield* commit(session)
      assert.notStrictEqual(Redacted.value(renewed), Redacted.value(token))
      assert.strictEqual(yield* visitsOf(UserSession, renewed), 1)
      assert.strictEqual(yield* visitsOf(UserSession, token), 0)
    })

    test("asks nothing of the store for a session that was never committed", function* () {
      const spy = yield* VirtualStore
      const session = yield* UserSession.open()
      yield* session.update(visit)
      yield* session.destroy
      assert.deepStrictEqual(spy.calls, [])
      assert.strictEqual(yield* session.status, "destroyed")
    })

    test("fails where the store fails, and has destroyed nothing", function* () {
      const spy = yield* VirtualStore
      const session = yield* (yield* stored(UserSession)).open
      spy.failing.add("replace")
      assert.instanceOf(yield* Effect.flip(session.destroy), SessionStoreError)
      assert.strictEqual((yield* session.get).visits, 1)
      assert.strictEqual(yield* session.status, "unmodified")
      spy.heal()
      assert.strictEqual((yield* activeFields).length, 1)
    })
  })
})
