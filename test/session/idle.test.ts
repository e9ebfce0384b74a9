import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Option, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Session, SessionStore } from "effect-sessions"
import {
  add,
  fieldsAt,
  IdleSession,
  IdleSessionElsewhere,
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
import { during, VirtualStore } from "./virtualStore.ts"

const minutes = (n: number) => Duration.toMillis({ minutes: n })

const expiryOf = (session: UserHandle) => Effect.map(session.expiry, DateTime.toEpochMillis)

class EagerSession extends Session.Service<EagerSession>()("test/EagerSession", {
  schema: User,
  initial: nobody,
  idleTimeout: "20 minutes",
  touchInterval: 0
}) {}

class LazySession extends Session.Service<LazySession>()("test/LazySession", {
  schema: User,
  initial: nobody,
  idleTimeout: "20 minutes",
  touchInterval: "15 minutes"
}) {}

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
      for (let minute = 15; minute <= 60; minute += 15) {
        yield* TestClock.adjust("15 minutes")
        const { expiry } = Option.getOrThrow(yield* (yield* open).commit)
        assert.strictEqual(DateTime.toEpochMillis(expiry), Math.min(minutes(60), minutes(minute + 20)))
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

    test("never moves back by a request that is slower than another", function* () {
      const { open, token } = yield* stored(IdleSession)
      yield* TestClock.adjust("5 minutes")
      const slow = yield* open
      yield* slow.update(visit)
      const fast = yield* IdleSessionElsewhere.open(token)
      yield* fast.update(visit)
      const { expiry } = Option.getOrThrow(
        // The slow one has looked at the clock by then.
        yield* during(slow.commit, Effect.andThen(TestClock.adjust("5 minutes"), fast.commit))
      )
      assert.strictEqual(DateTime.toEpochMillis(expiry), minutes(30))
      assert.strictEqual(yield* expiryOf(yield* open), minutes(30))
      assert.strictEqual(yield* visitsOf(IdleSession, token), 3)
    })

    test("never moves back by the clock of another server, which is behind", function* () {
      const { open } = yield* stored(IdleSession)
      yield* TestClock.adjust("10 minutes")
      yield* (yield* open).commit
      yield* TestClock.setTime(minutes(5))
      const session = yield* open
      yield* session.update(visit)
      yield* session.commit
      assert.strictEqual(yield* expiryOf(yield* open), minutes(30))
    })

    test("does not end a session that other requests kept in use while this one took longer", function* () {
      const { open, token } = yield* stored(IdleSession)
      const slow = yield* open
      yield* slow.update(visit)
      yield* TestClock.adjust("15 minutes")
      yield* (yield* open).commit
      yield* TestClock.adjust("10 minutes")
      assert.isTrue(Option.isSome(yield* slow.commit))
      assert.strictEqual(yield* visitsOf(IdleSession, token), 2)
    })

    test("does not call a renewal off that took longer, where other requests kept the session in use", function* () {
      const { open } = yield* stored(IdleSession)
      const slow = yield* open
      yield* slow.renewToken
      yield* TestClock.adjust("15 minutes")
      yield* (yield* open).commit
      yield* TestClock.adjust("10 minutes")
      assert.isTrue(Option.isSome(yield* slow.commit))
    })

    test("does not keep a session from being merged that others kept in use", function* () {
      const { open, token } = yield* stored(IdleSession)
      yield* TestClock.adjust("5 minutes")
      const session = yield* IdleSession.open()
      yield* session.update(visit)
      yield* session.merge(token, add)
      yield* TestClock.adjust("10 minutes")
      yield* (yield* open).commit
      yield* TestClock.adjust("10 minutes")
      yield* session.commit
      assert.strictEqual((yield* session.get).visits, 2)
    })

    test("begins with the commit of a new session, however long its first request took", function* () {
      const session = yield* IdleSession.open()
      yield* session.update(visit)
      yield* TestClock.adjust("21 minutes")
      const { expiry } = Option.getOrThrow(yield* session.commit)
      assert.strictEqual(DateTime.toEpochMillis(expiry), minutes(41))
    })

    for (const [what, change] of [
      ["changed nothing", () => Effect.void],
      ["changed something", ({ update }: UserHandle) => update(visit)]
    ] as const) {
      test(`counts from the try that was confirmed, of a commit that failed before and ${what}`, function* () {
        const spy = yield* VirtualStore
        const session = yield* (yield* stored(IdleSession)).open
        yield* change(session)
        yield* TestClock.adjust("2 minutes")
        spy.failing.add("replace")
        yield* Effect.flip(session.commit)
        spy.heal()
        yield* TestClock.adjust("10 minutes")
        const { expiry } = Option.getOrThrow(yield* session.commit)
        assert.isAtLeast(DateTime.toEpochMillis(expiry), minutes(31))
      })
    }
  })

  describe("touch interval", () => {
    const isWritten = Effect.fnUntraced(function* (session: UserHandle) {
      const spy = yield* VirtualStore
      spy.calls.length = 0
      const { isExpiryNew } = Option.getOrThrow(yield* session.commit)
      // What is not moved on needs no cookie either.
      assert.strictEqual(isExpiryNew, spy.calls.length > 0)
      assert.isAtMost(spy.calls.length, 1)
      return isExpiryNew
    })

    for (const [Class, interval] of [
      [IdleSession, minutes(1)],
      [EagerSession, 0],
      [LazySession, minutes(15)]
    ] as const) {
      test(`of ${interval} ms is how often a request that changes nothing writes: ${Class.key}`, function* () {
        const { open } = yield* stored(Class)
        yield* TestClock.adjust(Math.max(interval - 1, 0))
        if (interval > 0) assert.isFalse(yield* isWritten(yield* open))
        yield* TestClock.adjust(interval > 0 ? 1 : 10)
        assert.isTrue(yield* isWritten(yield* open))
        if (interval > 0) assert.isFalse(yield* isWritten(yield* open))
      })
    }

    test("is never, where there is no idle timeout", function* () {
      const { open } = yield* stored(UserSession)
      yield* TestClock.adjust("23 hours")
      assert.isFalse(yield* isWritten(yield* open))
    })

    test("is never, where there is no idle timeout, also if it is given", function* () {
      class Touched extends Session.Service<Touched>()("test/Touched", {
        schema: User,
        initial: nobody,
        touchInterval: "1 minute"
      }) {}
      const { open } = yield* stored(Touched)
      yield* TestClock.adjust("5 minutes")
      assert.isFalse(yield* isWritten(yield* open))
    })

    test("is never, where a session's own idle timeout is infinite", function* () {
      const { open } = yield* stored(LazySession)
      const session = yield* open
      yield* session.setIdleTimeout(Duration.infinity)
      yield* session.commit
      yield* TestClock.adjust("1 hour")
      assert.isFalse(yield* isWritten(yield* open))
    })

    test("does not hold up what is changed, which moves the expiry on as well", function* () {
      const { open } = yield* stored(LazySession)
      yield* TestClock.adjust("1 minute")
      const session = yield* open
      yield* session.update(visit)
      assert.isTrue(yield* isWritten(session))
      assert.strictEqual(yield* expiryOf(session), minutes(21))
    })

    test("is a twentieth of a session's own idle timeout, where that is not longer than the class's interval", function* () {
      const { open } = yield* stored(LazySession)
      const session = yield* open
      yield* session.setIdleTimeout("10 minutes")
      yield* session.commit
      yield* TestClock.adjust("29 seconds")
      assert.isFalse(yield* isWritten(yield* open))
      yield* TestClock.adjust("1 second")
      assert.isTrue(yield* isWritten(yield* open))
    })

    test("counts from the use by another request", function* () {
      const spy = yield* VirtualStore
      const { open } = yield* stored(IdleSession)
      yield* TestClock.adjust("5 minutes")
      const [one, two] = [yield* open, yield* open]
      assert.isTrue(yield* isWritten(one))
      // It has to look, as it cannot know; and writes nothing then.
      spy.calls.length = 0
      assert.isTrue(Option.getOrThrow(yield* two.commit).isExpiryNew)
      assert.deepStrictEqual(spy.calls, ["replace", "find"])
    })

    test("leaves the value as another deployment wrote it, where only the use is noted", function* () {
      const { open, token } = yield* stored(IdleSession)
      const store = yield* SessionStore
      const data = Option.getOrThrow(yield* store.find(keyOf(token)))
      const written = data.replace('{"visits":1}', '{"more":true,"visits":1}')
      yield* store.commit(keyOf(token), written, DateTime.makeUnsafe(minutes(20)))
      yield* TestClock.adjust("15 minutes")
      yield* (yield* open).commit
      yield* TestClock.adjust("15 minutes")
      assert.deepStrictEqual((yield* fieldsAt(keyOf(token)))?.value, { more: true, visits: 1 })
    })

    const Idle = Schema.Int.check(Schema.isBetween({ minimum: 2, maximum: 1000 }))
    const Request = Schema.Struct({
      wait: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 600 })),
      kind: Schema.Literals(["read", "change", "poll", "renew"])
    })
    const Part = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 0.999 }))

    it.effect.prop(
      "lets a session live no longer than the idle timeout after its last request, and at least that less the interval",
      { idle: Idle, part: Part, requests: Schema.Array(Request) },
      ({ idle, part, requests }) =>
        Effect.gen(function* () {
          const touchInterval = Math.floor(idle * part)
          class Touched extends Session.Service<Touched>()("test/Touched", {
            schema: User,
            initial: nobody,
            idleTimeout: idle,
            touchInterval
          }) {}
          const spy = yield* VirtualStore
          let { token } = yield* stored(Touched)
          let lastUse = 0
          let now = 0
          for (const { kind, wait } of requests) {
            yield* TestClock.adjust(wait)
            now += wait
            const session = yield* Touched.open(token, { touch: kind !== "poll" })
            const isActive = Option.isSome(yield* session.token)
            if (now > lastUse + idle) assert.isFalse(isActive)
            if (now <= lastUse + idle - touchInterval) assert.isTrue(isActive)
            if (!isActive) return
            const before = yield* expiryOf(session)
            if (kind === "change") yield* session.update(visit)
            if (kind === "renew") yield* session.renewToken
            spy.calls.length = 0
            const committed = Option.getOrThrow(yield* session.commit)
            const expiry = DateTime.toEpochMillis(committed.expiry)
            token = committed.token
            if (kind !== "poll") lastUse = now
            assert.isAtLeast(expiry, before)
            assert.isAtMost(expiry, lastUse + idle)
            assert.isAtLeast(expiry, lastUse + idle - touchInterval)
            assert.strictEqual(committed.isExpiryNew, expiry !== before)
            if (kind === "read") assert.strictEqual(spy.calls.length > 0, committed.isExpiryNew || touchInterval === 0)
            if (kind === "poll") assert.deepStrictEqual(spy.calls, [])
            assert.strictEqual(yield* expiryOf(yield* Touched.open(token)), expiry)
          }
        }).pipe(Effect.provide(VirtualStore.layer))
    )

    const Offset = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1000 }))

    it.effect.prop(
      "has no request move the expiry back, in whatever order those that overlap are committed, and by whatever clock",
      { requests: Schema.Array(Schema.Struct({ at: Offset, isChange: Schema.Boolean })) },
      ({ requests }) =>
        Effect.gen(function* () {
          const { open } = yield* stored(IdleSession)
          const sessions = yield* Effect.forEach(requests, () => open)
          let expiry = minutes(20)
          for (const [index, { at, isChange }] of requests.entries()) {
            const session = sessions[index] ?? assert.fail()
            yield* TestClock.setTime(at * 1000)
            if (isChange) yield* session.update(visit)
            yield* session.commit
            const next = yield* expiryOf(yield* open)
            assert.isAtLeast(next, expiry)
            expiry = next
          }
        }).pipe(Effect.provide(VirtualStore.layer))
    )
  })

  describe("touch: false", () => {
    test("keeps a session from being used by a request that polls", function* () {
      const spy = yield* VirtualStore
      const { token } = yield* stored(IdleSession)
      yield* TestClock.adjust("19 minutes")
      const polling = yield* IdleSession.open(token, { touch: false })
      spy.calls.length = 0
      assert.isFalse(Option.getOrThrow(yield* polling.commit).isExpiryNew)
      assert.deepStrictEqual(spy.calls, [])
      yield* TestClock.adjust("61 seconds")
      assert.isTrue(Option.isNone(yield* (yield* IdleSession.open(token)).token))
    })

    test("writes nothing for changes that changed nothing, however long ago it was used", function* () {
      const spy = yield* VirtualStore
      const { token } = yield* stored(IdleSession)
      yield* TestClock.adjust("15 minutes")
      const polling = yield* IdleSession.open(token, { touch: false })
      yield* polling.update((user) => ({ ...user }))
      spy.calls.length = 0
      assert.isFalse(Option.getOrThrow(yield* polling.commit).isExpiryNew)
      assert.deepStrictEqual(spy.calls, ["find"])
    })

    test("saves changes all the same, without moving the expiry", function* () {
      const { token } = yield* stored(IdleSession)
      yield* TestClock.adjust("15 minutes")
      const polling = yield* IdleSession.open(token, { touch: false })
      yield* polling.update(visit)
      const committed = Option.getOrThrow(yield* polling.commit)
      assert.isFalse(committed.isExpiryNew)
      assert.strictEqual(DateTime.toEpochMillis(committed.expiry), minutes(20))
      assert.strictEqual(yield* visitsOf(IdleSession, token), 2)
      yield* TestClock.adjust("301 seconds")
      assert.strictEqual(yield* visitsOf(IdleSession, token), 0)
    })

    test("keeps the use that another request noted", function* () {
      const { open, token } = yield* stored(IdleSession)
      const polling = yield* IdleSession.open(token, { touch: false })
      yield* polling.update(visit)
      yield* TestClock.adjust("15 minutes")
      yield* (yield* open).commit
      yield* polling.commit
      assert.strictEqual(yield* expiryOf(yield* open), minutes(35))
    })

    test("saves a new session, which begins with its opening", function* () {
      const polling = yield* IdleSession.open(undefined, { touch: false })
      yield* polling.update(visit)
      yield* TestClock.adjust("5 minutes")
      const { expiry } = Option.getOrThrow(yield* polling.commit)
      assert.strictEqual(DateTime.toEpochMillis(expiry), minutes(20))
    })
  })
})
