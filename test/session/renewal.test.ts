import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Fiber, Option, Redacted, Stream } from "effect"
import { TestClock } from "effect/testing"
import { MemStore, type Session, SessionStore, SessionStoreError } from "effect-sessions"
import {
  activeFields,
  add,
  assertSameToken,
  commit,
  fieldsAt,
  IdleSession,
  keyOf,
  logIn,
  opens,
  stored,
  test,
  type UserHandle,
  UserSession,
  UserSessionElsewhere,
  visit,
  visitsOf
} from "./fixtures.ts"
import { settle, VirtualStore } from "./virtualStore.ts"

const epoch = DateTime.makeUnsafe(0)

describe("Session", () => {
  describe("renewToken", () => {
    test("leaves the session as it is until the commit, which keeps the value under a new token", function* () {
      const spy = yield* VirtualStore
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      spy.calls.length = 0
      yield* session.renewToken
      assert.deepStrictEqual(spy.calls, [])
      assert.strictEqual(yield* visitsOf(UserSession, token), 1)
      assertSameToken(Option.getOrThrow(yield* session.token), token)
      assert.strictEqual(yield* session.status, "modified")
      yield* session.update(logIn("ada"))
      const renewed = yield* commit(session)
      assert.notStrictEqual(Redacted.value(renewed), Redacted.value(token))
      assertSameToken(Option.getOrThrow(yield* session.token), renewed)
      assert.deepStrictEqual(yield* session.id, Option.some(keyOf(renewed)))
      assert.deepStrictEqual(yield* (yield* UserSession.open(renewed)).get, { userId: "ada", visits: 1 })
      assert.strictEqual(yield* visitsOf(UserSession, token), 0)
    })

    it("needs no store, and cannot fail", () => {
      expectTypeOf<UserHandle["renewToken"]>().toEqualTypeOf<Effect.Effect<void>>()
    })

    test("takes three writes", function* () {
      const spy = yield* VirtualStore
      const session = yield* (yield* stored(UserSession)).open
      spy.calls.length = 0
      yield* session.renewToken
      yield* session.commit
      assert.deepStrictEqual(spy.calls, ["create", "replace", "replace"])
    })

    test("starts the lifetime anew, for a new session too", function* () {
      const { open } = yield* stored(UserSession)
      const sessions = [yield* UserSession.open(), yield* open]
      yield* TestClock.adjust("3 hours")
      for (const session of sessions) {
        yield* session.renewToken
        assert.strictEqual(DateTime.toEpochMillis(yield* session.deadline), Duration.toMillis("27 hours"))
      }
    })

    test("keeps when the session began, and notes when its token was made", function* () {
      const { open } = yield* stored(UserSession)
      yield* TestClock.adjust("3 hours")
      const session = yield* open
      yield* session.renewToken
      const token = yield* commit(session)
      yield* TestClock.adjust("1 hour")
      for (const renewed of [session, yield* UserSession.open(token)]) {
        assert.strictEqual(DateTime.toEpochMillis(yield* renewed.createdAt), 0)
        assert.strictEqual(DateTime.toEpochMillis(yield* renewed.issuedAt), Duration.toMillis("3 hours"))
        assert.strictEqual(DateTime.toEpochMillis(yield* renewed.usedAt), Duration.toMillis("3 hours"))
      }
    })

    test("writes nothing for a new session that nothing was changed in", function* () {
      const spy = yield* VirtualStore
      const session = yield* UserSession.open()
      yield* session.renewToken
      assert.deepStrictEqual(yield* session.commit, Option.none())
      yield* session.update(visit)
      yield* session.renewToken
      assert.strictEqual(yield* visitsOf(UserSession, yield* commit(session)), 1)
      assert.deepStrictEqual(spy.calls, ["create", "find"])
    })

    test("writes nothing for a new session whose changes changed nothing", function* () {
      const spy = yield* VirtualStore
      const session = yield* UserSession.open()
      yield* session.modify((user) => [undefined, { ...user }])
      yield* session.renewToken
      assert.deepStrictEqual(yield* session.commit, Option.none())
      yield* TestClock.adjust("1 hour")
      yield* session.renewToken
      yield* session.modify((user) => [undefined, { ...user }])
      assert.deepStrictEqual(yield* session.commit, Option.none())
      assert.deepStrictEqual(spy.calls, [])
    })

    test("keeps its own changes and those that another request committed before it", function* () {
      const { open } = yield* stored(UserSession)
      const [slow, fast] = [yield* open, yield* open]
      yield* slow.update(logIn("ada"))
      yield* fast.update(visit)
      yield* fast.commit
      yield* slow.renewToken
      const token = yield* commit(slow)
      assert.deepStrictEqual(yield* (yield* UserSession.open(token)).get, { userId: "ada", visits: 2 })
    })

    for (const when of ["before", "after"] as const) {
      test(`is ended by a log-out that comes before its commit, of a session that was opened ${when} it`, function* () {
        const { open } = yield* stored(UserSession)
        const renewing = yield* open
        const early = yield* open
        yield* renewing.renewToken
        yield* renewing.update(logIn("ada"))
        const leaving = when === "before" ? early : yield* open
        assert.strictEqual((yield* leaving.get).visits, 1)
        yield* leaving.destroy
        assert.deepStrictEqual(yield* renewing.commit, Option.none())
        assert.strictEqual(yield* Stream.runCount(UserSession.sessions), 0)
        assert.strictEqual(yield* renewing.status, "ended")
        assert.deepStrictEqual(yield* activeFields, [])
      })
    }

    test("renews nothing whose deadline has passed by the commit", function* () {
      const { open } = yield* stored(UserSession)
      const renewing = yield* open
      yield* renewing.setDeadline(DateTime.add(yield* DateTime.now, { seconds: 1 }))
      yield* renewing.commit
      yield* renewing.renewToken
      yield* TestClock.adjust("2 seconds")
      yield* (yield* open).destroy
      assert.deepStrictEqual(yield* renewing.commit, Option.none())
      assert.strictEqual(yield* Stream.runCount(UserSession.sessions), 0)
    })

    test("can be found and ended among all sessions before its commit, and is one session after it", function* () {
      const { open } = yield* stored(UserSession)
      const session = yield* open
      yield* session.renewToken
      yield* session.commit
      assert.strictEqual(yield* Stream.runCount(UserSession.sessions), 1)
      yield* session.renewToken
      yield* Stream.runForEach(UserSession.sessions, (listed) => listed.destroy)
      assert.deepStrictEqual(yield* session.commit, Option.none())
      assert.strictEqual(yield* Stream.runCount(UserSession.sessions), 0)
    })

    test("has until the end of the session for its commit", function* () {
      const { open } = yield* stored(UserSession)
      const [timely, late] = [yield* open, yield* (yield* stored(UserSession)).open]
      for (const session of [timely, late]) yield* session.renewToken
      yield* TestClock.adjust("24 hours")
      assert.isTrue(Option.isSome(yield* timely.commit))
      yield* TestClock.adjust("1 millis")
      assert.isTrue(Option.isNone(yield* late.commit))
    })

    test("keeps what is done to the session in the list before its commit", function* () {
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      yield* session.renewToken
      yield* session.update(logIn("ada"))
      yield* Stream.runForEach(UserSession.sessions, (listed) => Effect.andThen(listed.update(visit), listed.commit))
      assert.strictEqual(yield* visitsOf(UserSession, token), 2)
      const renewed = yield* commit(session)
      assert.strictEqual(yield* visitsOf(UserSession, token), 0)
      assert.deepStrictEqual(yield* (yield* UserSession.open(renewed)).get, { userId: "ada", visits: 2 })
      assert.strictEqual(yield* Stream.runCount(UserSession.sessions), 1)
    })

    type Use = (listed: UserHandle) => Effect.Effect<unknown, Session.SessionError>

    for (const [how, use, visits] of [
      ["committed", ({ commit }) => commit, 1],
      ["changed", ({ commit, update }) => Effect.andThen(update(visit), commit), 2],
      ["renewed", ({ commit, renewToken }) => Effect.andThen(renewToken, commit), undefined],
      ["given a deadline", ({ commit, setDeadline }) => Effect.andThen(setDeadline(epoch), commit), undefined]
    ] satisfies ReadonlyArray<readonly [string, Use, number | undefined]>) {
      test(`takes the session as it is by then where it is listed and ${how} before its commit`, function* () {
        yield* TestClock.adjust("1 hour")
        for (const Class of [UserSession, IdleSession]) {
          const session = yield* (yield* stored(Class)).open
          yield* session.renewToken
          const listed = yield* Stream.runCollect(Class.sessions)
          assert.strictEqual(listed.length, 1)
          for (const one of listed) {
            assert.deepStrictEqual(yield* one.token, Option.none())
            yield* use(one)
          }
          const committed = yield* session.commit
          assert.strictEqual(Option.isSome(committed), visits !== undefined)
          if (Option.isSome(committed)) assert.strictEqual(yield* visitsOf(Class, committed.value.token), visits)
          yield* Stream.runForEach(Class.sessions, (left) => left.destroy)
          assert.deepStrictEqual(yield* activeFields, [])
        }
      })
    }

    test("is ended by a log-out of a session that was open already, also after a commit which found it ended", function* () {
      const { open } = yield* stored(UserSession)
      const [session, other] = [yield* open, yield* open]
      yield* session.renewToken
      const renewed = yield* commit(session)
      yield* other.update(visit)
      assert.deepStrictEqual(yield* other.commit, Option.none())
      assert.strictEqual(yield* other.status, "ended")
      yield* other.destroy
      assert.isTrue(Option.isNone(yield* other.id))
      assert.isFalse(yield* opens(renewed))
      yield* session.update(visit)
      assert.deepStrictEqual(yield* session.commit, Option.none())
      assert.isTrue(Option.isNone(yield* session.id))
      assert.deepStrictEqual(yield* activeFields, [])
    })

    test("writes the session anew also where its value is the initial one", function* () {
      const session = yield* (yield* stored(UserSession)).open
      yield* session.clear
      yield* session.commit
      yield* session.renewToken
      assert.isTrue(Option.isSome(yield* session.commit))
    })

    test("never lets changes be saved under the old token where it failed", function* () {
      const spy = yield* VirtualStore
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      yield* session.update(logIn("victim"))
      yield* session.renewToken
      spy.failing.add("replace")
      assert.instanceOf(yield* Effect.flip(session.commit), SessionStoreError)
      assert.instanceOf(yield* Effect.flip(session.commit), SessionStoreError)
      spy.heal()
      assert.deepStrictEqual(yield* (yield* open).get, { visits: 1 })
      const renewed = yield* commit(session)
      assert.notStrictEqual(Redacted.value(renewed), Redacted.value(token))
      assert.strictEqual((yield* (yield* UserSession.open(token)).get).userId, undefined)
      assert.strictEqual((yield* (yield* UserSession.open(renewed)).get).userId, "victim")
      assert.strictEqual((yield* activeFields).length, 1)
    })

    test("gives one of two requests that renew the same session a new token, and the other none", function* () {
      const { open } = yield* stored(UserSession)
      const sessions = [yield* open, yield* open]
      for (const session of sessions) yield* session.renewToken
      const committed = yield* Effect.forEach(sessions, (session) => session.commit)
      assert.deepStrictEqual(committed.map(Option.isSome), [true, false])
      assert.strictEqual((yield* activeFields).length, 1)
    })

    test("renews once: later commits keep the new token", function* () {
      const session = yield* (yield* stored(UserSession)).open
      yield* session.renewToken
      yield* session.renewToken
      const token = yield* commit(session)
      yield* session.update(visit)
      assertSameToken(yield* commit(session), token)
    })

    test("that failed says nothing of the session that comes after a log-out", function* () {
      const spy = yield* VirtualStore
      const session = yield* (yield* stored(UserSession)).open
      spy.failing.add("replace")
      yield* session.renewToken
      yield* Effect.flip(session.commit)
      spy.heal()
      yield* session.destroy
      yield* session.update(visit)
      const token = yield* commit(session)
      yield* session.update(visit)
      assertSameToken(yield* commit(session), token)
    })

    test("takes in what another request commits before its own commit", function* () {
      const { open, token } = yield* stored(UserSession)
      const [slow, fast] = [yield* open, yield* open]
      yield* fast.renewToken
      yield* slow.update(visit)
      assertSameToken(yield* commit(slow), token)
      const renewed = yield* commit(fast)
      assert.strictEqual(yield* visitsOf(UserSession, token), 0)
      assert.strictEqual(yield* visitsOf(UserSession, renewed), 2)
    })

    test("called twice brings nothing back that was logged out in between", function* () {
      const { open } = yield* stored(UserSession)
      const session = yield* open
      yield* session.renewToken
      yield* session.renewToken
      yield* (yield* open).destroy
      assert.deepStrictEqual(yield* session.commit, Option.none())
      assert.deepStrictEqual(yield* activeFields, [])
    })

    test("marks no new session modified, which has nothing to renew", function* () {
      const session = yield* UserSession.open()
      yield* session.renewToken
      assert.strictEqual(yield* session.status, "unmodified")
    })

    test("starts the lifetime of a new session anew, whatever deadline it had, if it merges another too", function* () {
      const other = yield* stored(UserSession)
      const session = yield* UserSession.open()
      yield* session.setDeadline(yield* DateTime.now.pipe(Effect.map(DateTime.add({ minutes: 2 }))))
      yield* session.renewToken
      yield* session.merge(other.token, add)
      yield* session.commit
      assert.deepStrictEqual(yield* session.deadline, DateTime.add(epoch, { hours: 24 }))
    })

    test("succeeds though its steps take more than a minute in all, after which its new session is no more", function* () {
      const spy = yield* VirtualStore
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      yield* session.update(visit)
      yield* session.renewToken
      let steps = 0
      // The new session, the tombstone and the end of the renewal. Each time, what it writes lasts for a minute from before.
      const delays = ["40 seconds", "0 seconds", "30 seconds"] as const
      spy.gate = () => TestClock.adjust(delays[steps++] ?? 0)
      const renewed = yield* commit(session)
      assert.strictEqual(yield* visitsOf(UserSession, renewed), 2)
      assert.isFalse(yield* opens(token))
    })

    test("succeeds on a store whose driver repeats a request, and tells only of the second time", function* () {
      const store = yield* SessionStore
      const repeating: SessionStore["Service"] = {
        ...store,
        replace: (...request) => Effect.andThen(store.replace(...request), store.replace(...request))
      }
      const { open, token } = yield* stored(UserSession)
      const session = yield* Effect.provideService(open, SessionStore, repeating)
      yield* session.update(visit)
      yield* session.renewToken
      const renewing = yield* Effect.forkChild(commit(session), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      const renewed = yield* Fiber.join(renewing)
      assert.strictEqual(yield* visitsOf(UserSession, renewed), 2)
      assert.isFalse(yield* opens(token))
      assert.lengthOf(yield* activeFields, 1)
    })

    test("waits for a merge that takes the session over, and goes on if that is given up", function* () {
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      yield* session.renewToken
      const elsewhere = yield* UserSessionElsewhere.open()
      yield* elsewhere.merge(token, add)
      const spy = yield* VirtualStore
      let replaced = 0
      // The first one holds the session.
      spy.gate = (operation) => (operation === "replace" && ++replaced === 2 ? Effect.never : Effect.void)
      const merging = yield* Effect.forkChild(elsewhere.commit, { startImmediately: true })
      yield* settle
      const renewing = yield* Effect.forkChild(commit(session), { startImmediately: true })
      yield* settle
      yield* Fiber.interrupt(merging)
      yield* TestClock.adjust("1 second")
      const renewed = yield* Fiber.join(renewing)
      assert.strictEqual(yield* visitsOf(UserSession, renewed), 1)
      assert.isFalse(yield* opens(token))
    })

    test("leaves the session as it was where it is not committed", function* () {
      const { open, token } = yield* stored(UserSession)
      const before = yield* fieldsAt(keyOf(token))
      const session = yield* open
      yield* session.renewToken
      yield* session.update(logIn("ada"))
      assert.deepStrictEqual(yield* fieldsAt(keyOf(token)), before)
      assert.strictEqual(yield* (yield* MemStore).size, 1)
    })
  })
})
