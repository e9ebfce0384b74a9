import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Latch, Option } from "effect"
import { TestClock } from "effect/testing"
import { Session } from "effect-sessions"
import { makeQueue, Queues, settle as settleAlong, takeAlong, takeTurn } from "../../src/internal/turns.ts"
import {
  activeFields,
  IndexedSession,
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
import { Caller, settle, VirtualStore } from "./virtualStore.ts"

/**
 * Simultaneous commits of one session, in one process: they take turns.
 */

const write = (session: UserHandle) => Effect.andThen(session.update(visit), session.commit)

/** So many requests that have opened one session. */
const opened = Effect.fnUntraced(function* (count: number) {
  const { open, token } = yield* stored(UserSession)
  return { token, sessions: yield* Effect.replicateEffect(open, count) }
})

/** A store whose operations wait until it is opened, and take a moment from then on. */
const shut = Effect.gen(function* () {
  const store = yield* VirtualStore
  const latch = yield* Deferred.make<void>()
  store.gate = () => Effect.andThen(Deferred.await(latch), Effect.yieldNow)
  return { open: Deferred.succeed(latch, undefined) }
})

describe("Session", () => {
  describe("commits at once", () => {
    test("of a thousand requests need two writes: its own for the first, and one for all who wait", function* () {
      const store = yield* VirtualStore
      const { sessions, token } = yield* opened(1000)
      store.calls.length = 0
      store.gate = () => Effect.yieldNow
      yield* Effect.forEach(sessions, write, { concurrency: "unbounded", discard: true })
      assert.deepStrictEqual(store.calls, ["replace", "replace"])
      assert.strictEqual(yield* visitsOf(UserSession, token), 1001)
    })

    test("of a thousand requests of each of two processes need six operations each at the most", function* () {
      const store = yield* VirtualStore
      const { sessions, token } = yield* opened(100)
      const others = yield* Effect.replicateEffect(UserSessionElsewhere.open(token), 100)
      store.calls.length = 0
      store.gate = () => Effect.yieldNow
      const fiber = yield* Effect.forkChild(
        Effect.forEach([...sessions, ...others], write, { concurrency: "unbounded", discard: true })
      )
      yield* Effect.andThen(settle, TestClock.adjust("100 millis")).pipe(
        Effect.repeat({ until: () => fiber.pollUnsafe() !== undefined, times: 10_000 })
      )
      yield* Fiber.join(fiber)
      assert.strictEqual(yield* visitsOf(UserSession, token), 201)
      assert.isAtMost(store.calls.length, 200 * 6)
    })

    test("come in the order in which they were asked for", function* () {
      const { sessions, token } = yield* opened(20)
      const { open } = yield* shut
      const fibers = yield* Effect.forEach(sessions, ({ commit, update }, index) =>
        Effect.forkChild(
          Effect.andThen(
            update((user) => ({ ...user, userId: `${user.userId ?? ""} ${index}` })),
            commit
          ),
          { startImmediately: true }
        )
      )
      yield* open
      yield* Effect.forEach(fibers, Fiber.join, { discard: true })
      const order = sessions.map((_, index) => ` ${index}`).join("")
      assert.strictEqual((yield* (yield* UserSession.open(token)).get).userId, order)
    })

    test("overflow no stack where a thousand waited for a store that answers at once", function* () {
      const store = yield* VirtualStore
      const { sessions, token } = yield* opened(1000)
      const latch = yield* Deferred.make<void>()
      store.gate = () => Deferred.await(latch)
      const fibers = yield* Effect.forEach(sessions, (session) =>
        Effect.forkChild(write(session), { startImmediately: true })
      )
      yield* Deferred.succeed(latch, undefined)
      yield* Effect.forEach(fibers, Fiber.join, { discard: true })
      assert.strictEqual(yield* visitsOf(UserSession, token), 1001)
    })

    test("of other sessions, and in other stores, wait for none of them", function* () {
      const store = yield* VirtualStore
      const { sessions } = yield* opened(1)
      const other = yield* stored(UserSession)
      yield* shut
      const hanging = yield* Effect.forkChild(write(sessions[0] ?? assert.fail()), { startImmediately: true })
      store.heal()
      yield* write(yield* other.open)
      assert.strictEqual(yield* visitsOf(UserSession, other.token), 2)
      assert.isUndefined(hanging.pollUnsafe())
      yield* Fiber.interrupt(hanging)
    })

    test("give up their place at once if they are interrupted while they wait", function* () {
      const store = yield* VirtualStore
      const { sessions, token } = yield* opened(3)
      const { open } = yield* shut
      const [one, two, three] = yield* Effect.forEach(sessions, (session) =>
        Effect.forkChild(write(session), { startImmediately: true })
      )
      store.calls.length = 0
      yield* Fiber.interrupt(two ?? assert.fail())
      assert.deepStrictEqual(store.calls, [])
      yield* open
      yield* Fiber.join(one ?? assert.fail())
      yield* Fiber.join(three ?? assert.fail())
      assert.strictEqual(yield* visitsOf(UserSession, token), 3)
      // Nothing of it is lost.
      assert.isTrue(Option.isSome(yield* (sessions[1] ?? assert.fail()).commit))
      assert.strictEqual(yield* visitsOf(UserSession, token), 4)
    })

    test("go on if the one before fails, is interrupted or dies", function* () {
      const store = yield* VirtualStore
      const { sessions, token } = yield* opened(5)
      const [failing, hanging, dying, ...rest] = sessions
      yield* (dying ?? assert.fail()).set({ visits: 0.5 })
      const { open } = yield* shut
      store.plan(1, { when: "before", how: "fails" })
      const fibers = yield* Effect.forEach([failing, dying, hanging, ...rest], (session) =>
        Effect.forkChild(
          (session ?? assert.fail()).update((user) => visit(user)).pipe(Effect.andThen(session?.commit ?? Effect.void)),
          {
            startImmediately: true
          }
        )
      )
      yield* Fiber.interrupt(fibers[2] ?? assert.fail())
      yield* open
      const exits = yield* Effect.forEach(fibers, Fiber.await)
      assert.deepStrictEqual(exits.map(Exit.isSuccess), [false, false, false, true, true])
      assert.strictEqual(yield* visitsOf(UserSession, token), 3)
    })

    test("are refused while a thousand wait, and keep their changes", function* () {
      const { sessions, token } = yield* opened(1002)
      const { open } = yield* shut
      // One has its turn, and a thousand wait.
      const fibers = yield* Effect.forEach(sessions.slice(0, 1001), (session) =>
        Effect.forkChild(write(session), { startImmediately: true })
      )
      const refused = sessions[1001] ?? assert.fail()
      const error = yield* Effect.flip(write(refused))
      assert.instanceOf(error, Session.SessionBusyError)
      assert.strictEqual(error.session, "test/UserSession")
      assert.strictEqual(yield* refused.status, "modified")
      // A place that is given up becomes free.
      yield* Fiber.interrupt(fibers[500] ?? assert.fail())
      const late = yield* Effect.forkChild(refused.commit, { startImmediately: true })
      yield* open
      yield* Effect.forEach([...fibers.toSpliced(500, 1), late], Fiber.join, { discard: true })
      assert.strictEqual(yield* visitsOf(UserSession, token), 1 + 1001)
    })

    test("are refused also where one session in memory is committed that often", function* () {
      const { sessions } = yield* opened(1)
      const session = sessions[0] ?? assert.fail()
      yield* session.update(visit)
      const { open } = yield* shut
      const fibers = yield* Effect.replicateEffect(Effect.forkChild(session.commit, { startImmediately: true }), 1001)
      assert.instanceOf(yield* Effect.flip(session.commit), Session.SessionBusyError)
      yield* open
      yield* Effect.forEach(fibers, Fiber.join, { discard: true })
    })

    test("refuse no log-out, which ends the queue", function* () {
      const store = yield* VirtualStore
      const { sessions, token } = yield* opened(1002)
      const { open } = yield* shut
      const leaving = sessions[1001] ?? assert.fail()
      const fibers = yield* Effect.forEach(sessions.slice(0, 1001), (session) =>
        Effect.forkChild(write(session), { startImmediately: true })
      )
      const logOut = yield* Effect.forkChild(leaving.destroy, { startImmediately: true })
      yield* open
      yield* Fiber.join(logOut)
      yield* Effect.forEach(fibers, Fiber.join, { discard: true })
      store.heal()
      assert.isFalse(yield* opens(token))
    })

    test("know of a log-out before them: of a thousand that come after it none writes", function* () {
      const store = yield* VirtualStore
      const { sessions } = yield* opened(200)
      const { open } = yield* shut
      const leaving = sessions[0] ?? assert.fail()
      const logOut = yield* Effect.forkChild(leaving.destroy, { startImmediately: true })
      const fibers = yield* Effect.forEach(sessions.slice(1), (session) =>
        Effect.forkChild(write(session), { startImmediately: true })
      )
      yield* open
      yield* Fiber.join(logOut)
      for (const fiber of fibers) assert.deepStrictEqual(yield* Fiber.join(fiber), Option.none())
      store.heal()
      assert.deepStrictEqual(yield* activeFields, [])
    })
  })

  describe("commits that are saved together", () => {
    /** Begins to commit each, one by one, against a closed store: the first alone, and the rest behind it. */
    const begun = Effect.fnUntraced(function* (count: number) {
      const { sessions, token } = yield* opened(count)
      const { open } = yield* shut
      const fibers = yield* Effect.forEach(sessions, (session) =>
        Effect.forkChild(write(session), { startImmediately: true })
      )
      return { sessions, token, fibers, open }
    })

    for (const when of ["before", "after"] as const) {
      test(`and fail ${when} the write reaches the store, tell one and try again for the others`, function* () {
        const store = yield* VirtualStore
        const { fibers, open, sessions, token } = yield* begun(5)
        store.plan(1, { when, how: "fails" })
        yield* open
        const exits = yield* Effect.forEach(fibers, Fiber.await)
        assert.deepStrictEqual(exits.map(Exit.isSuccess), [true, false, true, true, true])
        yield* (sessions[1] ?? assert.fail()).commit
        assert.strictEqual(yield* visitsOf(UserSession, token), 6)
      })
    }

    test("and lose to another process, are saved together on top of its write", function* () {
      const store = yield* VirtualStore
      const { sessions, token } = yield* opened(4)
      const elsewhere = yield* UserSessionElsewhere.open(token)
      yield* elsewhere.update(visit)
      const { open } = yield* shut
      const fibers = yield* Effect.forEach(sessions, (session) =>
        Effect.forkChild(write(session), { startImmediately: true })
      )
      let writes = 0
      store.gate = (operation, caller) =>
        Effect.suspend(() => (operation === "replace" && caller === "" && ++writes === 1 ? inBetween : Effect.void))
      const inBetween = Effect.provideService(Effect.orDie(elsewhere.commit), Caller, "elsewhere")
      yield* open
      yield* Effect.forEach(fibers, Fiber.join, { discard: true })
      assert.strictEqual(yield* visitsOf(UserSession, token), 6)
    })

    test("and meet a log-out, are all told that the session has ended", function* () {
      const store = yield* VirtualStore
      const { fibers, open, token } = yield* begun(4)
      store.gate = () => Effect.void
      const leaving = yield* UserSessionElsewhere.open(token)
      yield* leaving.destroy
      yield* open
      for (const fiber of fibers) assert.deepStrictEqual(yield* Fiber.join(fiber), Option.none())
      assert.deepStrictEqual(yield* activeFields, [])
    })

    test("leave one out whose value does not fit, which fails alone", function* () {
      const { sessions, token } = yield* opened(5)
      yield* (sessions[2] ?? assert.fail()).set({ visits: 0.5 })
      const { open } = yield* shut
      const fibers = yield* Effect.forEach(sessions, (session, i) =>
        Effect.forkChild(i === 2 ? session.commit : write(session), { startImmediately: true })
      )
      yield* open
      const exits = yield* Effect.forEach(fibers, Fiber.await)
      assert.deepStrictEqual(exits.map(Exit.isSuccess), [true, true, false, true, true])
      assert.strictEqual(yield* visitsOf(UserSession, token), 5)
    })

    test("take the changes of one along that is interrupted meanwhile, and do not make them again", function* () {
      const store = yield* VirtualStore
      const { fibers, open, sessions, token } = yield* begun(3)
      yield* open
      const latch = yield* Deferred.make<void>()
      store.gate = () => Deferred.await(latch)
      yield* settle
      yield* Fiber.interrupt(fibers[2] ?? assert.fail())
      yield* Deferred.succeed(latch, undefined)
      yield* Fiber.join(fibers[1] ?? assert.fail())
      assert.strictEqual(yield* visitsOf(UserSession, token), 4)
      assert.isTrue(Option.isSome(yield* (sessions[2] ?? assert.fail()).commit))
      assert.strictEqual(yield* visitsOf(UserSession, token), 4)
    })

    test("leave a renewal its turn, and go on behind it", function* () {
      const { sessions, token } = yield* opened(4)
      yield* (sessions[2] ?? assert.fail()).renewToken
      const { open } = yield* shut
      const fibers = yield* Effect.forEach(sessions, (session) =>
        Effect.forkChild(write(session), { startImmediately: true })
      )
      yield* open
      const outcomes = yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(outcomes.map(Option.isSome), [true, true, true, false])
      assert.isFalse(yield* opens(token))
      const [renewed] = yield* activeFields
      assert.deepStrictEqual(renewed?.value, { visits: 4 })
    })

    test("leave nothing to be saved again", function* () {
      const store = yield* VirtualStore
      const { fibers, open, sessions } = yield* begun(3)
      yield* open
      yield* Effect.forEach(fibers, Fiber.join, { discard: true })
      store.calls.length = 0
      for (const session of sessions) {
        assert.strictEqual(yield* session.status, "unmodified")
        yield* session.commit
      }
      assert.deepStrictEqual(store.calls, [])
    })

    test("save nothing under a new token of a request that has the old one", function* () {
      const { sessions, token } = yield* opened(3)
      const [early = assert.fail(), renewed = assert.fail(), late = assert.fail()] = sessions
      yield* renewed.renewToken
      const next = Option.getOrThrow(yield* renewed.commit).token
      const { open } = yield* shut
      const fibers = yield* Effect.forEach([early, renewed, late], (session) =>
        Effect.forkChild(write(session), { startImmediately: true })
      )
      yield* open
      const outcomes = yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(outcomes.map(Option.isSome), [false, true, false])
      assert.strictEqual(yield* visitsOf(UserSession, next), 2)
      assert.isFalse(yield* opens(token))
    })

    test("leave one out that makes the session another user's, which renews it", function* () {
      const { open: openIt, token } = yield* stored(IndexedSession)
      const [first, second, third] = [yield* openIt, yield* openIt, yield* openIt]
      yield* third.update(logIn("ada"))
      const { open } = yield* shut
      const fibers = yield* Effect.forEach([write(first), write(second), third.commit], (commit) =>
        Effect.forkChild(commit, { startImmediately: true })
      )
      yield* open
      const outcomes = yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(
        outcomes.map((outcome) => Option.getOrThrow(outcome).isTokenNew),
        [false, false, true]
      )
      assert.strictEqual(yield* visitsOf(IndexedSession, token), 0)
      assert.deepStrictEqual((yield* activeFields)[0]?.value, { userId: "ada", visits: 3 })
      assert.strictEqual(yield* IndexedSession.destroyAllOf("user", "ada"), 1)
    })

    test("make a change once whose write had arrived unconfirmed before", function* () {
      const store = yield* VirtualStore
      const { sessions, token } = yield* opened(3)
      const [first = assert.fail(), second = assert.fail(), unsure = assert.fail()] = sessions
      store.plan(1, { when: "after", how: "fails" })
      yield* Effect.flip(write(unsure))
      const { open } = yield* shut
      const fibers = yield* Effect.forEach([first.reload, write(second), unsure.commit], (turn) =>
        Effect.forkChild(turn, { startImmediately: true })
      )
      yield* open
      yield* Effect.forEach(fibers, Fiber.join, { discard: true })
      assert.strictEqual(yield* visitsOf(UserSession, token), 3)
      assert.strictEqual(yield* unsure.status, "unmodified")
    })

    test("make the change of one once that commits again while it looks what its last try did", function* () {
      const store = yield* VirtualStore
      const { sessions, token } = yield* opened(1)
      const session = sessions[0] ?? assert.fail()
      store.plan(1, { when: "before", how: "fails" })
      yield* Effect.flip(write(session))
      const { open } = yield* shut
      const fibers = yield* Effect.replicateEffect(Effect.forkChild(session.commit, { startImmediately: true }), 2)
      yield* open
      yield* Effect.forEach(fibers, Fiber.join, { discard: true })
      assert.strictEqual(yield* visitsOf(UserSession, token), 2)
    })

    test("make the changes of one that commits twice once", function* () {
      const { sessions, token } = yield* opened(3)
      const [first = assert.fail(), second = assert.fail(), twice = assert.fail()] = sessions
      yield* Effect.forEach(sessions, ({ update }) => update(visit))
      const { open } = yield* shut
      const fibers = yield* Effect.forEach([first, second, twice, twice, second, first], ({ commit }) =>
        Effect.forkChild(commit, { startImmediately: true })
      )
      yield* open
      yield* Effect.forEach(fibers, Fiber.join, { discard: true })
      assert.strictEqual(yield* visitsOf(UserSession, token), 4)
    })

    test("and were not, are saved by nobody's next try but their own", function* () {
      const store = yield* VirtualStore
      const { fibers, open, sessions, token } = yield* begun(3)
      store.plan(1, { when: "before", how: "fails" })
      const latch = yield* Deferred.make<void>()
      const { gate } = store
      store.gate = (operation, caller) => (operation === "find" ? Deferred.await(latch) : gate(operation, caller))
      yield* open
      yield* settle
      yield* Fiber.interrupt(fibers[2] ?? assert.fail())
      assert.isTrue(Exit.isFailure(yield* Fiber.await(fibers[1] ?? assert.fail())))
      store.heal()
      yield* (sessions[1] ?? assert.fail()).commit
      assert.strictEqual(yield* visitsOf(UserSession, token), 3)
      yield* (sessions[2] ?? assert.fail()).commit
      assert.strictEqual(yield* visitsOf(UserSession, token), 4)
    })

    test("behind one that finds nothing left to write, are saved all the same", function* () {
      const store = yield* VirtualStore
      const { sessions, token } = yield* opened(3)
      const [first = assert.fail(), same = assert.fail(), last = assert.fail()] = sessions
      const elsewhere = yield* UserSessionElsewhere.open(token)
      yield* Effect.andThen(same.set({ visits: 7 }), elsewhere.set({ visits: 7 }))
      const { open } = yield* shut
      const fibers = yield* Effect.forEach([write(first), same.commit, write(last)], (commit) =>
        Effect.forkChild(commit, { startImmediately: true })
      )
      const inBetween = Effect.provideService(Effect.orDie(elsewhere.commit), Caller, "elsewhere")
      let writes = 0
      const { gate } = store
      store.gate = (operation, caller) =>
        Effect.suspend(() => {
          if (operation !== "replace" || caller !== "") return gate(operation, caller)
          return ++writes === 1 ? inBetween : Effect.void
        })
      yield* open
      yield* Effect.forEach(fibers, Fiber.join, { discard: true })
      assert.strictEqual(yield* visitsOf(UserSession, token), 8)
    })
  })

  describe("a queue", () => {
    const refuseNone = () => undefined

    it.effect("is kept only while somebody has a turn or waits for one", () =>
      Effect.gen(function* () {
        const queues = new Queues<number, never>()
        const store = {}
        const open = Latch.makeUnsafe(false)
        const get = () => queues.get(store, "key")
        const take = takeTurn(get, refuseNone, (_, restore) => restore(open.await))
        const first = get()
        const fibers = yield* Effect.replicateEffect(Effect.forkChild(take, { startImmediately: true }), 3)
        assert.strictEqual(get(), first)
        assert.notStrictEqual(queues.get({}, "key"), first)
        assert.notStrictEqual(queues.get(store, "other"), first)
        assert.strictEqual(first.waiting.length, 2)
        yield* Fiber.interrupt(fibers[1] ?? assert.fail())
        assert.strictEqual(first.waiting.length, 1)
        yield* Fiber.interrupt(fibers[0] ?? assert.fail())
        assert.strictEqual(get(), first)
        yield* open.open
        yield* Fiber.join(fibers[2] ?? assert.fail())
        assert.isFalse(first.isTaken)
        assert.strictEqual(first.waiting.length, 0)
        assert.notStrictEqual(get(), first)
      })
    )

    it.effect("goes on behind one that is interrupted just as its turn comes", () =>
      Effect.gen(function* () {
        const queue = makeQueue<number, never>()
        const open = Latch.makeUnsafe(false)
        const take = (after: () => void) =>
          takeTurn(
            () => queue,
            refuseNone,
            (_, restore) => restore(open.await),
            { after }
          )
        const nothing = () => {}
        const first = yield* Effect.forkChild(
          take(() => second.interruptUnsafe()),
          { startImmediately: true }
        )
        const second = yield* Effect.forkChild(take(nothing), { startImmediately: true })
        const third = yield* Effect.forkChild(take(nothing), { startImmediately: true })
        yield* open.open
        yield* Fiber.join(first)
        assert.isTrue(Exit.isFailure(yield* Fiber.await(second)))
        yield* Fiber.join(third)
        assert.isFalse(queue.isTaken)
      })
    )

    it.effect("counts those that were taken along among those that wait", () =>
      Effect.gen(function* () {
        const queue = makeQueue<number, string>()
        const open = Latch.makeUnsafe(false)
        const along = { make: () => "along", settled: () => Effect.void }
        const turn = takeTurn(
          () => queue,
          refuseNone,
          () => Effect.void,
          { along }
        )
        const body = Effect.andThen(
          Effect.andThen(
            open.await,
            Effect.sync(() => takeAlong(queue, (item) => item === "along"))
          ),
          Effect.never
        )
        const first = yield* Effect.forkChild(
          takeTurn(
            () => queue,
            refuseNone,
            (_, restore) => restore(body)
          ),
          { startImmediately: true }
        )
        const fibers = yield* Effect.replicateEffect(Effect.forkChild(turn, { startImmediately: true }), 3)
        yield* open.open
        yield* settle
        assert.lengthOf(queue.along, 3)
        const refused = takeTurn(
          () => queue,
          Effect.fail,
          () => Effect.void
        )
        assert.strictEqual(yield* Effect.flip(refused), 3)
        yield* Fiber.interrupt(first)
        yield* Effect.forEach(fibers, Fiber.join)
      })
    )

    it.effect("hands its turn to one at a time, also if one that was taken along is interrupted as it is told so", () =>
      Effect.gen(function* () {
        const queue = makeQueue<number, string>()
        const [open, last] = [Latch.makeUnsafe(false), Latch.makeUnsafe(false)]
        const along = { make: () => "along", settled: () => Effect.void }
        const first = yield* Effect.forkChild(
          takeTurn(
            () => queue,
            refuseNone,
            () =>
              Effect.map(open.await, () => {
                takeAlong(queue, () => true)
                settleAlong(queue, () => {})
                taken.interruptUnsafe()
              })
          ),
          { startImmediately: true }
        )
        const taken = yield* Effect.forkChild(
          takeTurn(
            () => queue,
            refuseNone,
            () => Effect.void,
            { along }
          ),
          { startImmediately: true }
        )
        let running = 0
        const turn = takeTurn(
          () => queue,
          refuseNone,
          () =>
            Effect.andThen(
              Effect.sync(() => assert.strictEqual(++running, 1)),
              Effect.map(last.await, () => running--)
            )
        )
        const fibers = yield* Effect.replicateEffect(Effect.forkChild(turn, { startImmediately: true }), 2)
        yield* open.open
        yield* settle
        yield* last.open
        yield* Fiber.join(first)
        yield* Effect.forEach(fibers, Fiber.join)
        yield* Fiber.await(taken)
        assert.isFalse(queue.isTaken)
      })
    )
  })
})
