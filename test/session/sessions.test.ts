import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import { type Session, SessionStore, type SessionStoreError } from "effect-sessions"
import { withLog } from "../telemetry.ts"
import {
  IdleSession,
  keyOf,
  NewerSession,
  opens,
  StrictSession,
  stored,
  test,
  type User,
  UserSession,
  visit,
  visitsOf
} from "./fixtures.ts"
import { VirtualStore } from "./virtualStore.ts"

describe("Session", () => {
  describe("sessions", () => {
    test("has every active session of the class, each of which can be read, changed and destroyed", function* () {
      const tokens = yield* Effect.replicateEffect(
        Effect.map(stored(UserSession), ({ token }) => token),
        3
      )
      yield* stored(IdleSession)
      const listed = yield* Stream.runCollect(UserSession.sessions)
      const ids = yield* Effect.forEach(listed, (session) => session.id)
      assert.deepStrictEqual(new Set(ids.map(Option.getOrThrow)), new Set(tokens.map(keyOf)))
      for (const session of listed) {
        assert.deepStrictEqual(yield* session.get, { visits: 1 })
        assert.deepStrictEqual(yield* session.token, Option.none())
      }

      const [first, second] = listed
      assert.isDefined(first)
      assert.isDefined(second)
      yield* first.destroy
      yield* second.update(visit)
      assert.deepStrictEqual(yield* second.commit, Option.none())
      const visits = yield* Effect.forEach(tokens, (token) => visitsOf(UserSession, token))
      assert.deepStrictEqual(visits.sort(), [0, 1, 2])
    })

    test("keeps no session from going idle", function* () {
      const spy = yield* VirtualStore
      yield* stored(IdleSession)
      spy.calls.length = 0
      assert.strictEqual(yield* Stream.runCount(IdleSession.sessions), 1)
      assert.deepStrictEqual(spy.calls, [])
    })

    test("has none that is over in a store whose clock is behind", function* () {
      const { token } = yield* stored(UserSession)
      const store = yield* SessionStore
      const data = Option.getOrThrow(yield* store.find(keyOf(token)))
      yield* store.commit(keyOf(token), data, DateTime.add(yield* DateTime.now, { days: 30 }))
      yield* TestClock.adjust("25 hours")
      assert.strictEqual(yield* Stream.runCount(UserSession.sessions), 0)
    })

    test("keeps none in use that is changed", function* () {
      const { open } = yield* stored(IdleSession)
      yield* TestClock.adjust("10 minutes")
      yield* Stream.runForEach(IdleSession.sessions, ({ commit, update }) => Effect.andThen(update(visit), commit))
      const session = yield* open
      assert.strictEqual((yield* session.get).visits, 2)
      assert.strictEqual(DateTime.toEpochMillis(yield* session.expiry), Duration.toMillis("20 minutes"))
    })

    test("can have the session of a list renewed, which logs out whoever has it", function* () {
      const { token } = yield* stored(UserSession)
      yield* Stream.runForEach(UserSession.sessions, ({ commit, renewToken }) => Effect.andThen(renewToken, commit))
      assert.isFalse(yield* opens(token))
    })

    test("passes over what does not decode, with a warning, and fails in no class because of it", () =>
      withLog((logged) =>
        Effect.gen(function* () {
          const strict = yield* StrictSession.open()
          yield* strict.set({ user: "ada" })
          yield* strict.commit
          yield* stored(UserSession)
          for (const Class of [NewerSession, StrictSession]) {
            const listed = yield* Stream.runCollect(Class.sessions)
            assert.deepStrictEqual(yield* Effect.forEach(listed, (session) => session.get), [{ user: "ada" }])
          }
          assert.strictEqual(logged.length, 2)
          for (const line of logged)
            assert.include(line, "Warn: test/UserSession: a session in the store does not decode")
        })
      ))

    it("can fail as a store can, and in no other way", () => {
      expectTypeOf<typeof UserSession.sessions>().toEqualTypeOf<
        Stream.Stream<Session.Session<User>, SessionStoreError, SessionStore>
      >()
    })
  })
})
