import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Latch, Option } from "effect"
import { TestClock } from "effect/testing"
import { Session } from "effect-sessions"
import { Queues, takeTurn } from "../../src/internal/turns.ts"
import {
  activeFields,
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

/**
 * Commits of one session at once, in one process: they take turns.
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
    test("of a thousand requests need one write each", function* () {
      const store = yield* VirtualStore
      const { sessions, token } = yield* opened(1000)
      store.calls.length = 0
      store.gate = () => Effect.yieldNow
      yield* Effect.forEach(sessions, write, { concurrency: "unbounded", discard: true })
      assert.strictEqual(yield* visitsOf(UserSession, token), 1001)
      assert.isAtMost(store.calls.length, 1001)
      assert.isAtMost(store.calls.filter((operation) => operation === "replace").length, 1000)
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
      // A place that somebody gives up is free.
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
  })
})
