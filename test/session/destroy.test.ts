import { assert, describe } from "@effect/vitest"
import { DateTime, Duration, Effect, HashMap, Option, Redacted } from "effect"
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
      assert.strictEqual((yield* activeFields).length, 0)
      assert.deepStrictEqual(yield* session.get, { visits: 0 })
      assert.deepStrictEqual(yield* session.token, Option.none())
      assert.strictEqual(yield* session.status, "destroyed")
      assert.deepStrictEqual(yield* session.commit, Option.none())
      assert.strictEqual(yield* session.status, "destroyed")
    })

    test("leaves a tombstone for a minute, with nothing of the value, and the token opens a new session", function* () {
      const { token } = yield* stored(UserSession)
      const session = yield* UserSession.open(token)
      yield* session.update(logIn("ada"))
      yield* commit(session)
      yield* session.destroy
      const { all } = yield* MemStore
      assert.deepStrictEqual(
        [...HashMap.values(yield* all)].map((text): unknown => JSON.parse(text)),
        [{ version: 1, session: "test/UserSession", ended: true }]
      )
      const next = yield* UserSession.open(token)
      assert.strictEqual(yield* next.status, "unmodified")
      yield* next.update(visit)
      assert.isTrue(Option.isSome(yield* next.commit))
      yield* TestClock.adjust("61 seconds")
      assert.strictEqual(HashMap.size(yield* all), 1)
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
