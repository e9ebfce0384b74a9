import { assert, describe, it } from "@effect/vitest"
import { Context, DateTime, Deferred, Effect, Exit, Fiber, Option, Schema } from "effect"
import { TestClock } from "effect/testing"
import { MemStore, Session, type SessionEvent, SessionEvents } from "effect-sessions"
import { Hubs } from "../../src/internal/watches.ts"
import {
  add,
  commit,
  IdleSession,
  IdleSessionElsewhere,
  keyOf,
  NewerSession,
  nobody,
  stored,
  test,
  User,
  UserSession,
  UserSessionElsewhere,
  visit
} from "./fixtures.ts"
import { during, settle, VirtualStore } from "./virtualStore.ts"

class EagerSession extends Session.Service<EagerSession>()("test/EagerSession", {
  schema: User,
  initial: nobody,
  recheckInterval: "1 second"
}) {}

class PatientSession extends Session.Service<PatientSession>()("test/PatientSession", {
  schema: User,
  initial: nobody,
  lifetime: "1 hour",
  recheckInterval: "Infinity"
}) {}

class MemberSession extends Session.Service<MemberSession>()("test/MemberSession", {
  schema: Schema.Struct({ userId: Schema.optionalKey(Schema.String) }),
  initial: () => ({}),
  indexes: { user: ({ userId }) => userId }
}) {}

/** In another process, whose events do not arrive here. */
const unheard = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.suspend(() => Effect.provideService(effect, SessionEvents, SessionEvents.make()))

/** Begins to wait, and tells with what that has completed by now. */
const wait = Effect.fnUntraced(function* <A>({ ended }: Session.Session<A>) {
  const fiber = yield* Effect.forkChild(ended, { startImmediately: true })
  yield* settle
  return {
    now: Effect.map(settle, () => {
      const exit = fiber.pollUnsafe()
      return exit === undefined ? "waits" : Exit.isSuccess(exit) ? exit.value : "failed"
    }),
    error: Effect.flip(Fiber.join(fiber)),
    stop: Fiber.interrupt(fiber)
  }
})

/** What was asked of the store since the last time. */
const asked = Effect.map(VirtualStore, ({ calls }) => calls.splice(0))

describe("Session.ended", () => {
  describe("completes at once", () => {
    test("when the session is destroyed in this process", function* () {
      const { open } = yield* stored(UserSession)
      const waiting = yield* wait(yield* open)
      assert.strictEqual(yield* waiting.now, "waits")
      yield* (yield* open).destroy
      assert.strictEqual(yield* waiting.now, "destroyed")
    })

    test("when it is destroyed by the very session that is waited for", function* () {
      const session = yield* (yield* stored(UserSession)).open
      const waiting = yield* wait(session)
      yield* session.destroy
      assert.strictEqual(yield* waiting.now, "destroyed")
      assert.strictEqual(yield* session.ended, "destroyed")
    })

    test("when it is renewed by another request", function* () {
      const { open } = yield* stored(UserSession)
      const waiting = yield* wait(yield* open)
      const other = yield* open
      yield* other.renewToken
      assert.strictEqual(yield* waiting.now, "waits")
      yield* other.commit
      assert.strictEqual(yield* waiting.now, "renewed")
    })

    test("when it is merged into another", function* () {
      const [one, other] = [yield* stored(UserSession), yield* stored(UserSession)]
      const waiting = yield* wait(yield* other.open)
      const mine = yield* one.open
      yield* mine.merge(other.token, add)
      yield* mine.commit
      assert.strictEqual(yield* waiting.now, "renewed")
    })

    test("when all sessions of the user end", function* () {
      const session = yield* MemberSession.open()
      yield* session.set({ userId: "ada" })
      yield* session.commit
      const waiting = yield* wait(session)
      yield* MemberSession.destroyAllOf("user", "ada")
      assert.strictEqual(yield* waiting.now, "destroyed")
    })

    test("when its time is up", function* () {
      const { open } = yield* stored(PatientSession)
      const waiting = yield* wait(yield* open)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* waiting.now, "waits")
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* waiting.now, "expired")
    })

    test("when a commit of its own finds out that it has ended", function* () {
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      const waiting = yield* wait(session)
      yield* unheard((yield* UserSessionElsewhere.open(token)).destroy)
      yield* session.update(visit)
      yield* session.commit
      assert.strictEqual(yield* waiting.now, "destroyed")
    })

    test("when a reload of its own finds out that it has ended", function* () {
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      const waiting = yield* wait(session)
      yield* unheard((yield* UserSessionElsewhere.open(token)).destroy)
      assert.isFalse(yield* session.reload)
      assert.strictEqual(yield* waiting.now, "destroyed")
    })

    test("if it is known to have ended", function* () {
      const { open, token } = yield* stored(UserSession)
      const [one, two] = [yield* open, yield* open]
      yield* one.renewToken
      yield* one.commit
      assert.strictEqual(yield* (yield* UserSession.open(token)).ended, "renewed")
      yield* two.destroy
      assert.strictEqual(yield* (yield* UserSession.open(token)).ended, "destroyed")
      yield* one.reload
      assert.strictEqual(yield* one.ended, "destroyed")
    })

    test("if it has ended since it was opened", function* () {
      const { open } = yield* stored(UserSession)
      const [one, two] = [yield* open, yield* open]
      yield* one.destroy
      assert.strictEqual(yield* two.ended, "destroyed")
      const { open: reopen } = yield* stored(IdleSession)
      const idle = yield* reopen
      yield* TestClock.adjust("21 minutes")
      assert.strictEqual(yield* idle.ended, "expired")
    })
  })

  describe("without an event, completes at the next look", () => {
    test("after 10 seconds by default, when the session is destroyed", function* () {
      const { open, token } = yield* stored(UserSession)
      const waiting = yield* wait(yield* open)
      yield* unheard((yield* UserSessionElsewhere.open(token)).destroy)
      yield* TestClock.adjust(9_999)
      assert.strictEqual(yield* waiting.now, "waits")
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* waiting.now, "destroyed")
    })

    test("after the recheck interval of the class", function* () {
      const { open } = yield* stored(EagerSession)
      const [session, other] = [yield* open, yield* open]
      const waiting = yield* wait(session)
      yield* unheard(other.destroy)
      yield* TestClock.adjust(999)
      assert.strictEqual(yield* waiting.now, "waits")
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* waiting.now, "destroyed")
    })

    test("when it is renewed, and whether or not it was destroyed after that", function* () {
      const { open, token } = yield* stored(UserSession)
      const waiting = [yield* wait(yield* open), yield* wait(yield* open)]
      const other = yield* UserSessionElsewhere.open(token)
      yield* other.renewToken
      yield* unheard(other.commit)
      yield* TestClock.adjust("10 seconds")
      for (const { now } of waiting) assert.strictEqual(yield* now, "renewed")

      const later = yield* wait(other)
      const another = yield* UserSessionElsewhere.open(yield* commit(other))
      yield* another.renewToken
      yield* unheard(another.commit)
      yield* unheard(another.destroy)
      yield* TestClock.adjust("11 seconds")
      assert.strictEqual(yield* later.now, "destroyed")
    })
  })

  test("waits a second for what is to put a session back whose renewal came to nothing", function* () {
    const { open, token } = yield* stored(EagerSession)
    const waiting = yield* wait(yield* open)
    const other = yield* open
    yield* other.renewToken
    yield* unheard(other.commit)
    yield* (yield* MemStore).delete(Option.getOrThrow(yield* other.id))
    yield* TestClock.adjust("1 second")
    assert.strictEqual(yield* waiting.now, "waits")
    yield* TestClock.adjust("999 millis")
    assert.strictEqual(yield* waiting.now, "waits")
    yield* TestClock.adjust("1 millis")
    assert.strictEqual(yield* waiting.now, "destroyed")
    assert.isTrue(Option.isNone(yield* (yield* EagerSession.open(token)).token))
  })

  test("looks every second for what is to put a session back, though it usually looks less often", function* () {
    const { open } = yield* stored(UserSession)
    const waiting = yield* wait(yield* open)
    const other = yield* open
    yield* other.renewToken
    yield* unheard(other.commit)
    yield* (yield* MemStore).delete(Option.getOrThrow(yield* other.id))
    yield* TestClock.adjust("10 seconds")
    assert.strictEqual(yield* waiting.now, "waits")
    yield* TestClock.adjust("1 second")
    assert.strictEqual(yield* waiting.now, "destroyed")
  })

  test("is a renewal if the session was renewed twice since the last look", function* () {
    const { open } = yield* stored(UserSession)
    const waiting = yield* wait(yield* open)
    const other = yield* open
    yield* other.renewToken
    const next = yield* UserSession.open(yield* unheard(commit(other)))
    yield* next.renewToken
    yield* unheard(next.commit)
    yield* TestClock.adjust("10 seconds")
    assert.strictEqual(yield* waiting.now, "renewed")
  })

  test("is no expiry if the store has lost the session before its time", function* () {
    const { open, token } = yield* stored(UserSession)
    const waiting = yield* wait(yield* open)
    yield* (yield* MemStore).delete(keyOf(token))
    yield* TestClock.adjust("10 seconds")
    assert.strictEqual(yield* waiting.now, "destroyed")
  })

  test("is no expiry at the very end of its time, and is one right after that", function* () {
    yield* TestClock.adjust("1 minute")
    const { open } = yield* stored(PatientSession)
    const session = yield* open
    yield* TestClock.adjust("1 hour")
    const waiting = yield* wait(session)
    assert.strictEqual(yield* waiting.now, "waits")
    yield* TestClock.adjust("1 millis")
    assert.strictEqual(yield* waiting.now, "expired")
  })

  test("tells how a session ended when nothing in the store tells any more", function* () {
    const { open, token } = yield* stored(PatientSession)
    const [destroyed, expired] = [yield* open, yield* open]
    yield* unheard((yield* PatientSession.open(token)).destroy)
    for (const session of [destroyed, expired]) {
      yield* session.update(visit)
      yield* session.commit
    }
    yield* TestClock.adjust("30 minutes")
    assert.strictEqual(yield* destroyed.ended, "destroyed")
    yield* TestClock.adjust("31 minutes")
    assert.strictEqual(yield* expired.ended, "expired")
  })

  test("completes at the next look if the session was renewed, and then destroyed by the old token", function* () {
    const { open, token } = yield* stored(UserSession)
    const waiting = yield* wait(yield* open)
    const [old, renewed] = [yield* UserSessionElsewhere.open(token), yield* UserSessionElsewhere.open(token)]
    yield* renewed.renewToken
    yield* unheard(renewed.commit)
    yield* unheard(old.destroy)
    yield* TestClock.adjust("10 seconds")
    assert.strictEqual(yield* waiting.now, "destroyed")
  })

  test("looks when one begins to wait, and then at each interval, without to count as use", function* () {
    const { open } = yield* stored(IdleSession)
    const session = yield* open
    yield* asked
    const waiting = yield* wait(session)
    assert.deepStrictEqual(yield* asked, ["find"])
    yield* TestClock.adjust("30 seconds")
    assert.deepStrictEqual(yield* asked, ["find", "find", "find"])
    yield* TestClock.adjust("20 minutes")
    assert.strictEqual(yield* waiting.now, "expired")
    assert.notInclude(yield* asked, "replace")
  })

  test("waits on while others use the session", function* () {
    const { open, token } = yield* stored(IdleSession)
    const waiting = yield* wait(yield* open)
    for (let i = 0; i < 3; i++) {
      yield* TestClock.adjust("15 minutes")
      yield* unheard((yield* IdleSessionElsewhere.open(token)).commit)
    }
    assert.strictEqual(yield* waiting.now, "waits")
    yield* TestClock.adjust("16 minutes")
    assert.strictEqual(yield* waiting.now, "expired")
  })

  test("looks once for all that wait for one session", function* () {
    const { open } = yield* stored(UserSession)
    const handles = yield* Effect.replicateEffect(open, 100)
    yield* asked
    const waiting = yield* Effect.forEach(handles, wait)
    yield* TestClock.adjust("20 seconds")
    assert.deepStrictEqual(yield* asked, ["find", "find", "find"])
    yield* (yield* open).destroy
    yield* settle
    for (const { now } of waiting) assert.strictEqual(yield* now, "destroyed")
  })

  test("does not look again because the session was committed", function* () {
    const session = yield* (yield* stored(UserSession)).open
    const waiting = yield* wait(session)
    yield* asked
    yield* session.update(visit)
    yield* session.commit
    assert.deepStrictEqual(yield* asked, ["replace"])
    assert.strictEqual(yield* waiting.now, "waits")
  })

  test("goes on with the new token if the session was renewed by its own commit", function* () {
    const session = yield* (yield* stored(UserSession)).open
    const waiting = yield* wait(session)
    yield* session.renewToken
    const token = yield* commit(session)
    yield* TestClock.adjust("2 minutes")
    assert.strictEqual(yield* waiting.now, "waits")
    yield* unheard((yield* UserSessionElsewhere.open(token)).destroy)
    yield* TestClock.adjust("10 seconds")
    assert.strictEqual(yield* waiting.now, "destroyed")
  })

  test("goes on through a renewal of its own that has to be tried again", function* () {
    const store = yield* VirtualStore
    const session = yield* (yield* stored(UserSession)).open
    const waiting = yield* wait(session)
    yield* session.renewToken
    // The one that says that the renewal is over, and then those that would call it off.
    let replaced = 0
    store.gate = (operation) =>
      Effect.sync(() => {
        if (operation === "replace" && ++replaced === 2) store.failing.add("replace").add("delete")
      })
    store.plan(4, { when: "after", how: "fails" })
    yield* Effect.exit(session.commit)
    yield* TestClock.adjust("10 seconds")
    assert.strictEqual(yield* waiting.now, "waits")
    store.heal()
    yield* session.commit
    yield* TestClock.adjust("10 seconds")
    assert.strictEqual(yield* waiting.now, "waits")
    yield* session.destroy
    assert.strictEqual(yield* waiting.now, "destroyed")
  })

  test("is not ended by a renewal of its own that hangs", function* () {
    const store = yield* VirtualStore
    const session = yield* (yield* stored(UserSession)).open
    const waiting = yield* wait(session)
    yield* session.renewToken
    const fault = store.plan(3, { when: "after", how: "hangs" })
    const commit = yield* Effect.forkChild(session.commit, { startImmediately: true })
    yield* TestClock.adjust("10 seconds")
    assert.isTrue(fault.hasCome())
    assert.strictEqual(yield* waiting.now, "waits")
    yield* Fiber.interrupt(commit)
    yield* TestClock.adjust("10 seconds")
    assert.strictEqual(yield* waiting.now, "waits")
  })

  test("does not take a merge that is under way for the end", function* () {
    const [one, other] = [yield* stored(UserSession), yield* stored(UserSession)]
    const waiting = yield* wait(yield* other.open)
    const mine = yield* one.open
    yield* mine.merge(other.token, add)
    let replaced = 0
    yield* during(
      mine.commit,
      Effect.gen(function* () {
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(yield* waiting.now, "waits")
      }),
      // The first one holds the other session.
      (operation) => operation === "replace" && ++replaced === 2
    )
    assert.strictEqual(yield* waiting.now, "renewed")
  })

  test("goes by the deadline, if the clock of the store is behind", function* () {
    const { open, token } = yield* stored(PatientSession)
    const waiting = yield* wait(yield* open)
    const store = yield* MemStore
    const text = Option.getOrThrow(yield* store.find(keyOf(token)))
    yield* store.commit(keyOf(token), text, DateTime.makeUnsafe(7_200_000))
    yield* TestClock.adjust(3_600_001)
    assert.strictEqual(yield* waiting.now, "expired")
  })

  test("does not take a renewal that is called off for the end", function* () {
    const store = yield* VirtualStore
    const { open, token } = yield* stored(UserSession)
    const waiting = yield* wait(yield* open)
    const other = yield* UserSessionElsewhere.open(token)
    yield* other.renewToken
    let replaced = 0
    const fault = store.plan(3, { when: "after", how: "fails" })
    yield* during(
      Effect.flip(other.commit),
      TestClock.adjust("10 seconds"),
      // The one that says that the renewal is over.
      (operation) => operation === "replace" && ++replaced === 2
    )
    assert.isTrue(fault.hasCome())
    yield* TestClock.adjust("10 seconds")
    assert.strictEqual(yield* waiting.now, "waits")
  })

  test("waits for a new session from its first commit on", function* () {
    const session = yield* UserSession.open()
    const waiting = yield* wait(session)
    yield* TestClock.adjust("2 days")
    assert.strictEqual(yield* waiting.now, "waits")
    yield* session.setDeadline(DateTime.makeUnsafe(7 * 86_400_000))
    const token = yield* commit(session)
    assert.strictEqual(yield* waiting.now, "waits")
    yield* (yield* UserSession.open(token)).destroy
    assert.strictEqual(yield* waiting.now, "destroyed")
  })

  test("is that of the next session, once that is committed, after a log-out", function* () {
    const session = yield* (yield* stored(UserSession)).open
    yield* session.destroy
    yield* session.update(visit)
    assert.strictEqual(yield* session.ended, "destroyed")
    yield* session.commit
    const waiting = yield* wait(session)
    assert.strictEqual(yield* waiting.now, "waits")
  })

  test("takes a session that only another deployment can read for one that goes on", function* () {
    const { open, token } = yield* stored(UserSession)
    const waiting = yield* wait(yield* open)
    const store = yield* MemStore
    const newer = yield* NewerSession.open()
    yield* newer.set({ user: "ada" })
    const text = Option.getOrThrow(yield* store.find(keyOf(yield* commit(newer))))
    yield* store.commit(keyOf(token), text, yield* newer.deadline)
    yield* TestClock.adjust("10 seconds")
    assert.strictEqual(yield* waiting.now, "waits")
  })

  describe("if the store fails", () => {
    test("looks again at the next interval", function* () {
      const store = yield* VirtualStore
      const { open, token } = yield* stored(UserSession)
      const waiting = yield* wait(yield* open)
      store.failing.add("find")
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(yield* waiting.now, "waits")
      store.heal()
      yield* unheard((yield* UserSessionElsewhere.open(token)).destroy)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* waiting.now, "destroyed")
    })

    test("fails after three intervals without an answer", function* () {
      const store = yield* VirtualStore
      const waiting = yield* wait(yield* (yield* stored(UserSession)).open)
      store.failing.add("find")
      yield* TestClock.adjust("39 seconds")
      assert.strictEqual(yield* waiting.now, "waits")
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual((yield* waiting.error)._tag, "SessionStoreError")
    })

    test("counts the intervals anew after each answer", function* () {
      const store = yield* VirtualStore
      const waiting = yield* wait(yield* (yield* stored(UserSession)).open)
      for (let i = 0; i < 5; i++) {
        store.failing.add("find")
        yield* TestClock.adjust("20 seconds")
        store.heal()
        yield* TestClock.adjust("10 seconds")
      }
      assert.strictEqual(yield* waiting.now, "waits")
    })
  })

  test("looks no further, and listens no further, when nobody waits any more", function* () {
    const heard = new Set<unknown>()
    const plain = SessionEvents.make()
    const bus = {
      ...plain,
      listen: (listener: (event: SessionEvent) => void) => {
        const stop = plain.listen(listener)
        heard.add(listener)
        return () => {
          heard.delete(listener)
          stop()
        }
      }
    }
    yield* Effect.gen(function* () {
      const { open } = yield* stored(UserSession)
      const [one, two] = [yield* wait(yield* open), yield* wait(yield* open)]
      assert.strictEqual(heard.size, 1)
      yield* one.stop
      yield* asked
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* asked, ["find"])
      yield* two.stop
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* asked, [])
      assert.strictEqual(heard.size, 0)
      // And begins again with the next one.
      const three = yield* wait(yield* open)
      assert.strictEqual(heard.size, 1)
      yield* (yield* open).destroy
      assert.strictEqual(yield* three.now, "destroyed")
      assert.strictEqual(heard.size, 0)
    }).pipe(Effect.provideService(SessionEvents, bus))
  })

  test("believes the store, and no event", function* () {
    const { open, token } = yield* stored(UserSession)
    const waiting = yield* wait(yield* open)
    const bus = yield* SessionEvents
    bus.publish({ _tag: "Destroyed", session: "test/UserSession", id: keyOf(token) })
    bus.publish({ _tag: "Renewed", session: "test/UserSession", id: "other", former: keyOf(token) })
    assert.strictEqual(yield* waiting.now, "waits")
    yield* unheard((yield* open).destroy)
    assert.strictEqual(yield* waiting.now, "waits")
    yield* TestClock.adjust("10 seconds")
    assert.strictEqual(yield* waiting.now, "destroyed")
  })

  test("looks again if an event comes while it looks", function* () {
    const store = yield* VirtualStore
    const { open } = yield* stored(UserSession)
    const [session, other] = [yield* open, yield* open]
    // A look that learns nothing, and would not be made again for 10 seconds.
    store.plan(1, { when: "after", how: "fails" })
    const ending = yield* during(session.ended, other.destroy, (operation) => operation === "find")
    assert.strictEqual(ending, "destroyed")
  })

  test("looks once more for an event that comes while it looks", function* () {
    const { open, token } = yield* stored(UserSession)
    const session = yield* open
    const bus = yield* SessionEvents
    const store = yield* VirtualStore
    const latch = yield* Deferred.make<void>()
    yield* asked
    store.gate = () => Deferred.await(latch)
    const waiting = yield* wait(session)
    bus.publish({ _tag: "Destroyed", session: "test/UserSession", id: keyOf(token) })
    yield* Deferred.succeed(latch, undefined)
    assert.strictEqual(yield* waiting.now, "waits")
    assert.deepStrictEqual(yield* asked, ["find", "find"])
    yield* waiting.stop
  })

  it("keeps nothing for a store in which nobody waits any more", () => {
    const [hubs, store, bus] = [new Hubs(), {}, SessionEvents.make()]
    const get = () =>
      hubs.get(store, bus, () => ({
        recheckInterval: 10_000,
        look: () => Effect.never,
        bus,
        context: Context.empty()
      }))
    const hub = get()
    const [leaveOne, leaveOther] = [hub.join("one", 1, () => {}), hub.join("other", 1, () => {})]
    leaveOne()
    assert.strictEqual(get(), hub)
    leaveOther()
    assert.notStrictEqual(get(), hub)
  })

  it("needs a recheck interval longer than zero", () => {
    assert.throws(
      () => Session.Service()("test/Recheck", { schema: User, initial: nobody, recheckInterval: 0 }),
      "test/Recheck: the recheck interval is not a duration longer than zero: 0"
    )
  })
})
