import { assert, describe } from "@effect/vitest"
import { Cause, DateTime, Duration, Effect, Exit, Option } from "effect"
import { TestClock } from "effect/testing"
import { Session, SessionStore } from "effect-sessions"
import {
  assertSameToken,
  commit,
  IdleSession,
  keyOf,
  nobody,
  stored,
  test,
  User,
  type UserHandle,
  UserSession,
  visit,
  visitsOf
} from "./fixtures.ts"

describe("Session", () => {
  describe("get, set, update, modify", () => {
    test("call the function of `modify` once, for the result and the value, and again for a newer value", function* () {
      const { open } = yield* stored(UserSession)
      const [slow, fast] = [yield* open, yield* open]
      const seen: Array<number> = []
      const modify = slow.modify((user) => {
        seen.push(user.visits)
        return ["done", visit(user)]
      })
      assert.strictEqual(yield* modify, "done")
      assert.deepStrictEqual(seen, [1])
      yield* fast.update(visit)
      yield* fast.commit
      yield* slow.commit
      assert.deepStrictEqual(seen, [1, 2])
      assert.deepStrictEqual(yield* slow.get, { visits: 3 })
    })

    test("read and change the value at once, and mark the session modified", function* () {
      const session = yield* UserSession.open()
      yield* session.set({ visits: 5 })
      yield* session.update(visit)
      assert.strictEqual(yield* session.modify((user) => [user.visits, { visits: 10 }]), 6)
      assert.deepStrictEqual(yield* session.get, { visits: 10 })
      assert.strictEqual(yield* session.status, "modified")
    })

    test("leave the session as it was where a function throws", function* () {
      const session = yield* UserSession.open()
      const fail = (): never => {
        throw new Error("no")
      }
      assert.isTrue(Exit.isFailure(yield* Effect.exit(session.update(fail))))
      assert.isTrue(Exit.isFailure(yield* Effect.exit(session.modify(fail))))
      assert.strictEqual(yield* session.status, "unmodified")
      assert.deepStrictEqual(yield* session.commit, Option.none())
    })
  })

  describe("clear", () => {
    test("goes back to the initial value and keeps token and deadline", function* () {
      const { open, token } = yield* stored(UserSession)
      yield* TestClock.adjust("1 hour")
      const session = yield* open
      const deadline = yield* session.deadline
      yield* session.clear
      assertSameToken(yield* commit(session), token)
      const cleared = yield* open
      assert.deepStrictEqual(yield* cleared.get, { visits: 0 })
      assert.deepStrictEqual(yield* cleared.deadline, deadline)
    })
  })

  describe("setRememberMe", () => {
    test("is kept with the session", function* () {
      const { open } = yield* stored(UserSession)
      for (const rememberMe of [true, false]) {
        const session = yield* open
        yield* session.setRememberMe(rememberMe)
        yield* session.commit
        const committed = Option.getOrThrow(yield* (yield* open).commit)
        assert.strictEqual(committed.rememberMe, rememberMe)
        assert.isFalse(committed.isRememberMeNew)
      }
    })
  })

  describe("setDeadline", () => {
    test("moves the end of the session", function* () {
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      const deadline = DateTime.makeUnsafe(Duration.toMillis("30 days"))
      yield* session.setDeadline(deadline)
      assert.deepStrictEqual(yield* session.deadline, deadline)
      assert.deepStrictEqual(Option.getOrThrow(yield* session.commit).expiry, deadline)
      yield* TestClock.adjust("30 days")
      assert.strictEqual(yield* visitsOf(UserSession, token), 1)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* visitsOf(UserSession, token), 0)
    })

    test("ends the session at the commit where it is in the past", function* () {
      yield* TestClock.adjust("1 hour")
      const { open } = yield* stored(UserSession)
      const session = yield* open
      yield* session.setDeadline(DateTime.makeUnsafe(0))
      yield* session.commit
      assert.deepStrictEqual(yield* (yield* open).token, Option.none())
    })

    test("takes one between two milliseconds for the later", function* () {
      const { open } = yield* stored(UserSession)
      const session = yield* open
      yield* session.setDeadline(DateTime.addDuration(DateTime.makeUnsafe(3_600_000), "500 micros"))
      yield* session.commit
      assert.strictEqual(DateTime.toEpochMillis(yield* (yield* open).deadline), 3_600_001)
    })
  })

  describe("setIdleTimeout", () => {
    test("gives one session an idle timeout of its own, and keeps it with the session", function* () {
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      yield* session.setIdleTimeout("5 minutes")
      yield* session.commit
      yield* TestClock.adjust("4 minutes")
      yield* (yield* open).commit
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(yield* visitsOf(UserSession, token), 1)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* visitsOf(UserSession, token), 0)
    })

    test("takes the idle timeout of the class away where it is infinite", function* () {
      const { open, token } = yield* stored(IdleSession)
      const session = yield* open
      yield* session.setIdleTimeout(Duration.infinity)
      yield* session.commit
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* visitsOf(IdleSession, token), 1)
    })

    test("dies where it is not a duration longer than zero", function* () {
      const session = yield* UserSession.open()
      for (const input of [0, -1, Number.NaN]) {
        const exit = yield* Effect.exit(session.setIdleTimeout(input))
        const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
        assert.instanceOf(defect, TypeError)
        assert.match(defect.message, /^test\/UserSession: the idle timeout is not a duration longer than zero: /)
      }
      assert.strictEqual(yield* session.status, "unmodified")
    })
  })

  describe("lifetime", () => {
    test("ends a session also in a store whose clock is behind", function* () {
      const { token } = yield* stored(UserSession)
      const store = yield* SessionStore
      const data = Option.getOrThrow(yield* store.find(keyOf(token)))
      yield* store.commit(keyOf(token), data, DateTime.add(yield* DateTime.now, { days: 30 }))
      yield* TestClock.adjust("25 hours")
      assert.strictEqual(yield* visitsOf(UserSession, token), 0)
    })

    test("may be a fraction of a millisecond longer", function* () {
      class Odd extends Session.Service<Odd>()("test/Odd", {
        schema: User,
        initial: nobody,
        lifetime: Duration.hours(1 / 7)
      }) {}
      const { open, token } = yield* stored(Odd)
      assert.strictEqual(yield* visitsOf(Odd, token), 1)
      const session = yield* open
      yield* session.setDeadline(DateTime.makeUnsafe(new Date(600_000.5)))
      yield* session.commit
      assert.strictEqual(yield* visitsOf(Odd, token), 1)
    })

    test("is whole milliseconds where the clock has fractions", function* () {
      yield* TestClock.adjust("1500 micros")
      const { open, token } = yield* stored(UserSession)
      assert.strictEqual(yield* visitsOf(UserSession, token), 1)
      const session = yield* open
      yield* session.renewToken
      assert.strictEqual(yield* visitsOf(UserSession, yield* commit(session)), 1)
    })

    test("ends a session, however much it is used", function* () {
      const { open } = yield* stored(UserSession)
      for (let hour = 0; hour < 24; hour++) {
        yield* TestClock.adjust("1 hour")
        const session = yield* open
        assert.strictEqual((yield* session.get).visits, hour + 1)
        yield* session.update(visit)
        yield* session.commit
      }
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* (yield* open).token, Option.none())
    })

    test("is the deadline of a new session, counted from its opening", function* () {
      yield* TestClock.adjust("1 hour")
      const session = yield* UserSession.open()
      assert.strictEqual(DateTime.toEpochMillis(yield* session.deadline), Duration.toMillis("25 hours"))
    })
  })

  describe("createdAt, issuedAt, usedAt, expiry", () => {
    const instants = (session: UserHandle) =>
      Effect.map(Effect.all([session.createdAt, session.issuedAt, session.usedAt, session.expiry]), (all) =>
        all.map((instant) => DateTime.toEpochMillis(instant) / 60_000)
      )

    test("say when it began, its token was made, it was used and it ends", function* () {
      yield* TestClock.adjust("1 minute")
      const first = yield* IdleSession.open()
      yield* first.update(visit)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* instants(first), [1, 1, 1, 21])
      const token = yield* commit(first)
      assert.deepStrictEqual(yield* instants(first), [1, 1, 2, 22])
      yield* TestClock.adjust("8 minutes")
      const second = yield* IdleSession.open(token)
      assert.deepStrictEqual(yield* instants(second), [1, 1, 2, 22])
      yield* second.commit
      assert.deepStrictEqual(yield* instants(second), [1, 1, 10, 30])
      yield* TestClock.adjust("5 minutes")
      yield* second.renewToken
      assert.deepStrictEqual(yield* instants(second), [1, 1, 10, 30])
      const renewed = yield* commit(second)
      assert.deepStrictEqual(yield* instants(yield* IdleSession.open(renewed)), [1, 15, 15, 35])
    })

    test("have when it was last saved, where there is no idle timeout", function* () {
      const { open } = yield* stored(UserSession)
      yield* TestClock.adjust("5 minutes")
      const session = yield* open
      yield* session.commit
      assert.deepStrictEqual(yield* instants(yield* open), [0, 0, 0, 24 * 60])
      yield* session.update(visit)
      yield* session.commit
      assert.deepStrictEqual(yield* instants(yield* open), [0, 0, 5, 24 * 60])
    })

    test("begin anew after a log-out", function* () {
      const session = yield* (yield* stored(UserSession)).open
      yield* TestClock.adjust("5 minutes")
      yield* session.destroy
      assert.deepStrictEqual(yield* instants(session), [5, 5, 5, 24 * 60 + 5])
    })

    test("have the end that was set, and the earlier one of the two", function* () {
      const session = yield* IdleSession.open()
      yield* session.setDeadline(DateTime.makeUnsafe(600_000))
      assert.deepStrictEqual((yield* instants(session))[3], 10)
      yield* session.setIdleTimeout("5 minutes")
      assert.deepStrictEqual((yield* instants(session))[3], 5)
      yield* session.setIdleTimeout(Duration.infinity)
      assert.deepStrictEqual((yield* instants(session))[3], 10)
    })
  })
})
