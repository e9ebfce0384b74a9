import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Fiber, HashMap, Option, type Redacted, Stream } from "effect"
import { TestClock } from "effect/testing"
import { MemStore, type SessionStore } from "effect-sessions"
import {
  activeFields,
  add,
  assertSameToken,
  commit,
  IndexedSession,
  logIn,
  opens,
  stored,
  test,
  type User,
  type UserHandle,
  UserSession,
  UserSessionElsewhere,
  visit,
  visitsOf
} from "./fixtures.ts"
import { type Fault, faults, settle, VirtualStore, type VirtualStoreControl } from "./virtualStore.ts"

/**
 * A store that fails, or hangs until its caller is interrupted, at each operation of a commit, before and after the work is
 * done: what is left if the commit is given up, and what comes of it if it is tried again.
 */

const describeFault = ({ how, when }: Fault) => `${how === "fails" ? "fails" : "is given up"} ${when} operation`

/** Runs what fails or hangs. What hangs is interrupted, as by a client that goes away. */
const giveUp = Effect.fnUntraced(function* <A, E>(effect: Effect.Effect<A, E>, { how }: Fault) {
  const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
  yield* settle
  if (how === "hangs") yield* Fiber.interrupt(fiber)
  const exit = yield* Fiber.await(fiber)
  assert.isTrue(Exit.isFailure(exit))
})

/** The same for each fault at each of so many operations of a commit. */
const testFaults = (
  name: string,
  operations: number,
  body: (fault: Fault) => (n: number) => Effect.Effect<void, unknown, VirtualStore | SessionStore | MemStore>
): void => {
  for (const fault of faults) {
    for (let n = 1; n <= operations; n++) {
      test(`${name}: the store ${describeFault(fault)} ${n}`, () => body(fault)(n))
    }
  }
}

/** Has the `n`th operation of an effect go wrong, and gives the effect up. */
const failing = Effect.fnUntraced(function* <A, E>(effect: Effect.Effect<A, E>, n: number, fault: Fault) {
  const store = yield* VirtualStore
  const { hasCome } = store.plan(n, fault)
  yield* giveUp(effect, fault)
  assert.isTrue(hasCome())
  store.heal()
})

/** Sessions that anybody could open or list. */
const active = Effect.map(activeFields, (all) => all.filter(({ pending }) => pending === undefined))

const assertOne = Effect.fnUntraced(function* (token: Redacted.Redacted<string>, value: User) {
  assert.deepStrictEqual(
    (yield* active).map((fields) => fields.value),
    [value]
  )
  assert.deepStrictEqual(yield* (yield* UserSession.open(token)).get, value)
  assert.isTrue(yield* opens(token))
})

const renewing = Effect.gen(function* () {
  const { open, token } = yield* stored(UserSession)
  const session = yield* open
  yield* session.update(visit)
  yield* session.update(logIn("ada"))
  yield* session.renewToken
  return { session, token }
})

describe("Session", () => {
  describe("a commit that renews", () => {
    testFaults("given up, leaves the old session as it was", 3, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { session, token } = yield* renewing
        yield* failing(session.commit, n, fault)
        yield* assertOne(token, { visits: 1 })
        // Nor is anything left of the new one.
        yield* TestClock.adjust("61 seconds")
        assert.strictEqual((yield* activeFields).length, 1)
      })
    )

    testFaults("tried again, renews, and loses and doubles nothing", 3, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { session, token } = yield* renewing
        yield* failing(session.commit, n, fault)
        assert.strictEqual(yield* session.status, "modified")
        const renewed = yield* commit(session)
        yield* assertOne(renewed, { userId: "ada", visits: 2 })
        assert.isFalse(yield* opens(token))
        assert.strictEqual((yield* activeFields).length, 1)
        assert.strictEqual(yield* session.status, "unmodified")
      })
    )

    testFaults("tried again after more was changed here and elsewhere, loses and doubles nothing", 3, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { session, token } = yield* renewing
        yield* failing(session.commit, n, fault)
        yield* session.update(visit)
        const other = yield* UserSessionElsewhere.open(token)
        yield* other.update(visit)
        assert.isTrue(Option.isSome(yield* other.commit))
        yield* assertOne(yield* commit(session), { userId: "ada", visits: 4 })
      })
    )

    testFaults("asked for and tried again, takes the same new token", 3, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { session } = yield* renewing
        yield* failing(session.commit, n, fault)
        yield* session.renewToken
        yield* assertOne(yield* commit(session), { userId: "ada", visits: 2 })
        assert.strictEqual((yield* activeFields).length, 1)
      })
    )

    testFaults("given up, is ended by a log-out by the old token, for good", 3, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { session, token } = yield* renewing
        yield* failing(session.commit, n, fault)
        yield* (yield* UserSession.open(token)).destroy
        assert.deepStrictEqual(yield* active, [])
        assert.deepStrictEqual(yield* session.commit, Option.none())
        assert.strictEqual(yield* session.status, "ended")
        assert.deepStrictEqual(yield* activeFields, [])
      })
    )

    testFaults("given up, can be logged out of by itself", 3, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { session, token } = yield* renewing
        yield* failing(session.commit, n, fault)
        yield* session.destroy
        assert.deepStrictEqual(yield* active, [])
        assert.isFalse(yield* opens(token))
        yield* TestClock.adjust("61 seconds")
        assert.strictEqual((yield* activeFields).length, 0)
      })
    )

    testFaults("given up, is still active when it is loaded anew", 3, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { session } = yield* renewing
        yield* failing(session.commit, n, fault)
        assert.isTrue(yield* session.reload)
        assert.strictEqual(yield* session.status, "modified")
        yield* assertOne(yield* commit(session), { userId: "ada", visits: 2 })
      })
    )
  })

  describe("a renewal whose putting back fails too", () => {
    for (const fault of faults) {
      for (let n = 1; n <= 3; n++) {
        for (let more = 1; more <= 3; more++) {
          test(`is made by the next try: the store ${describeFault(fault)} ${n}, and ${more} later`, function* () {
            const store = yield* VirtualStore
            const { session, token } = yield* renewing
            store.plan(n, fault)
            const fiber = yield* Effect.forkChild(session.commit, { startImmediately: true })
            yield* settle
            store.plan(more, fault)
            const interruption = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
            // What hangs is waited for by a second at most.
            yield* Effect.andThen(settle, TestClock.adjust("1 second"))
            yield* Fiber.join(interruption)
            store.heal()
            const renewed = yield* commit(session)
            yield* assertOne(renewed, { userId: "ada", visits: 2 })
            assert.isFalse(yield* opens(token))
          })
        }
      }
    }
  })

  describe("a renewal that is cut off while it writes", () => {
    /** Cuts a renewal off after its nth write arrived, of which it was not told, and then does as told. */
    const cutOff = Effect.fnUntraced(function* <E>(
      session: UserHandle,
      n: number,
      then: (store: VirtualStoreControl) => Effect.Effect<void, E, VirtualStore | SessionStore | MemStore>
    ) {
      const store = yield* VirtualStore
      store.plan(n, { when: "after", how: "hangs" })
      const fiber = yield* Effect.forkChild(session.commit, { startImmediately: true })
      yield* settle
      store.heal()
      yield* then(store)
      const interruption = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
      yield* Effect.andThen(settle, TestClock.adjust("1 second"))
      yield* Fiber.join(interruption)
      store.heal()
    })

    test("puts the old session back, though its new one cannot be removed", function* () {
      const { session, token } = yield* renewing
      yield* cutOff(session, 2, (store) => Effect.sync(() => store.plan(1, { when: "before", how: "fails" })))
      yield* assertOne(token, { visits: 1 })
    })

    test("leaves the new session to those who have changed it since, and the old one does not come back", function* () {
      const { session, token } = yield* renewing
      yield* cutOff(session, 3, () =>
        Effect.gen(function* () {
          const [listed] = yield* Stream.runCollect(UserSession.sessions)
          if (listed === undefined) return assert.fail("not listed")
          yield* listed.update(visit)
          yield* listed.commit
        })
      )
      assert.isFalse(yield* opens(token))
      assert.deepStrictEqual(
        (yield* active).map(({ value }) => value),
        [{ userId: "ada", visits: 3 }]
      )
      // The next try takes that over, under the new token.
      yield* assertOne(yield* commit(session), { userId: "ada", visits: 3 })
    })

    test("and is tried again leaves no removal on its way that could still end the new session", function* () {
      const { session } = yield* renewing
      yield* cutOff(session, 3, (store) =>
        Effect.sync(() => {
          store.gate = () => Effect.never
        })
      )
      const [before] = yield* active
      yield* session.commit
      const [after] = yield* active
      assert.isString(before?.write)
      // Another write id is another text, so a compare-and-set of the former text fails.
      assert.notStrictEqual(after?.write, before?.write)
      assert.deepStrictEqual(after?.value, before?.value)
    })

    test("is still active when it is loaded anew, though the old session was not put back", function* () {
      const { session, token } = yield* renewing
      yield* cutOff(session, 2, (store) =>
        Effect.sync(() => {
          store.gate = () => Effect.never
        })
      )
      assert.isFalse(yield* opens(token))
      assert.isTrue(yield* session.reload)
      assert.strictEqual(yield* session.status, "modified")
      yield* assertOne(yield* commit(session), { userId: "ada", visits: 2 })
    })
  })

  describe("a commit that adds a session", () => {
    const newOne = Effect.gen(function* () {
      const session = yield* UserSession.open()
      yield* session.update(visit)
      return session
    })

    testFaults("tried again, adds one", 1, (fault) =>
      Effect.fnUntraced(function* (n) {
        const session = yield* newOne
        yield* failing(session.commit, n, fault)
        yield* assertOne(yield* commit(session), { visits: 1 })
      })
    )

    testFaults("tried again after more was changed, adds one with all of it", 1, (fault) =>
      Effect.fnUntraced(function* (n) {
        const session = yield* newOne
        yield* failing(session.commit, n, fault)
        yield* session.update(visit)
        yield* assertOne(yield* commit(session), { visits: 2 })
        assert.strictEqual(yield* session.status, "unmodified")
      })
    )

    testFaults("given up, leaves nothing after a log-out", 1, (fault) =>
      Effect.fnUntraced(function* (n) {
        const session = yield* newOne
        yield* failing(session.commit, n, fault)
        yield* session.destroy
        assert.strictEqual((yield* activeFields).length, 0)
        yield* session.update(visit)
        yield* assertOne(yield* commit(session), { visits: 1 })
      })
    )

    for (const fault of faults.filter(({ when }) => when === "after")) {
      test(`tried again after another request has changed it from a list, keeps both: the store ${describeFault(fault)} 1`, function* () {
        const session = yield* newOne
        yield* failing(session.commit, 1, fault)
        const [listed] = yield* Stream.runCollect(UserSession.sessions)
        if (listed === undefined) return assert.fail("not listed")
        yield* listed.update(logIn("ada"))
        yield* listed.commit
        const token = yield* commit(session)
        assert.deepStrictEqual(yield* session.get, { userId: "ada", visits: 1 })
        yield* session.update(visit)
        yield* session.commit
        yield* assertOne(token, { userId: "ada", visits: 2 })
      })
    }

    // It finds and adds the record of the index, then adds the session.
    testFaults(
      "tried again after all sessions of its user ended, adds nothing, not even what is still on its way",
      3,
      (fault) =>
        Effect.fnUntraced(function* (n) {
          const session = yield* IndexedSession.open()
          yield* session.set({ userId: "ada", visits: 1 })
          yield* failing(session.commit, n, fault)
          yield* TestClock.adjust("1 second")
          yield* IndexedSession.destroyAllOf("user", "ada")
          assert.deepStrictEqual(yield* session.commit, Option.none())
          assert.strictEqual(yield* session.status, "ended")
          const texts = [...HashMap.values(yield* (yield* MemStore).all)]
          assert.lengthOf(
            texts.filter((text) => text.includes('"ended":true')),
            1
          )
          assert.lengthOf(
            texts.filter((text) => text.includes('"visits":1')),
            0
          )
        })
    )

    test("takes no other token for any of its tries", function* () {
      const store = yield* VirtualStore
      const session = yield* newOne
      for (let tries = 0; tries < 3; tries++) {
        yield* failing(session.commit, 1, { when: "after", how: "fails" })
        yield* session.update(visit)
      }
      store.heal()
      yield* assertOne(yield* commit(session), { visits: 4 })
    })
  })

  describe("a commit that changes a session", () => {
    const changed = Effect.gen(function* () {
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      yield* session.update(visit)
      return { session, token }
    })

    testFaults("tried again, changes it once", 1, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { session, token } = yield* changed
        yield* failing(session.commit, n, fault)
        assert.strictEqual(yield* session.status, "modified")
        assertSameToken(yield* commit(session), token)
        yield* assertOne(token, { visits: 2 })
        assert.strictEqual(yield* session.status, "unmodified")
      })
    )

    testFaults("tried again after more was changed, makes each change once", 1, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { session, token } = yield* changed
        yield* failing(session.commit, n, fault)
        yield* session.update(visit)
        yield* failing(session.commit, 1, { when: "before", how: "fails" })
        yield* session.update(visit)
        yield* failing(session.commit, n + 1, fault)
        yield* session.commit
        yield* assertOne(token, { visits: 4 })
      })
    )

    testFaults("loaded anew and tried again, changes it once", 1, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { session, token } = yield* changed
        yield* failing(session.commit, n, fault)
        assert.isTrue(yield* session.reload)
        assert.strictEqual((yield* session.get).visits, 2)
        assert.strictEqual(yield* session.status, fault.when === "after" ? "unmodified" : "modified")
        yield* session.commit
        yield* assertOne(token, { visits: 2 })
      })
    )

    testFaults("tried again, is ended by a log-out of another in between", 1, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { session, token } = yield* changed
        yield* failing(session.commit, n, fault)
        yield* (yield* UserSession.open(token)).destroy
        assert.deepStrictEqual(yield* session.commit, Option.none())
        assert.strictEqual((yield* activeFields).length, 0)
      })
    )
  })

  describe("a log-out", () => {
    testFaults("tried again, ends the session", 1, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { open } = yield* stored(UserSession)
        const session = yield* open
        yield* failing(session.destroy, n, fault)
        yield* session.destroy
        assert.strictEqual((yield* activeFields).length, 0)
        assert.strictEqual(yield* session.status, "destroyed")
      })
    )

    // It finds and seals the tombstone, and finds and ends what took over.
    testFaults("by an old token, tried again, ends what took over", 4, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { open, token } = yield* stored(UserSession)
        const session = yield* open
        yield* session.renewToken
        yield* session.commit
        const late = yield* UserSession.open(token)
        yield* failing(late.destroy, n, fault)
        yield* late.destroy
        assert.deepStrictEqual(yield* activeFields, [])
      })
    )
  })

  describe("a commit that merges", () => {
    const merging = Effect.gen(function* () {
      const other = yield* stored(UserSession)
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      yield* session.update(logIn("ada"))
      yield* session.merge(other.token, add)
      return { session, token, other: other.token }
    })

    /** Has the `n`th operation go wrong. A commit succeeds all the same once its value is saved. */
    const troubled = Effect.fnUntraced(function* (session: UserHandle, n: number, fault: Fault) {
      const store = yield* VirtualStore
      const { hasCome } = store.plan(n, fault)
      const fiber = yield* Effect.forkChild(session.commit, { startImmediately: true })
      yield* settle
      yield* Fiber.interrupt(fiber)
      store.heal()
      assert.isTrue(hasCome())
      return Exit.getSuccess(yield* Fiber.await(fiber))
    })

    // It holds the other, saves this one, and finds and buries the other.
    testFaults("given up, leaves both as they were, or this one with the value of both", 4, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { other, session, token } = yield* merging
        const told = yield* troubled(session, n, fault)
        assert.strictEqual(Option.isSome(told), n > 2 && fault.how === "fails")
        const isSaved = (yield* visitsOf(UserSession, token)) === 2
        if (n > 2) assert.isTrue(isSaved)
        // If the unconfirmed write arrived, both may have the value until the next try.
        if (!isSaved) assert.strictEqual(yield* visitsOf(UserSession, other), 1)
        if (n > 2) assert.isFalse(yield* opens(other))
        assert.isTrue(yield* opens(token))
      })
    )

    testFaults("tried again, has the value once, and the other has ended", 4, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { other, session, token } = yield* merging
        yield* troubled(session, n, fault)
        assertSameToken(yield* commit(session), token)
        yield* assertOne(token, { userId: "ada", visits: 2 })
        assert.isFalse(yield* opens(other))
      })
    )

    testFaults("and renews, tried again, has the value once, and the other has ended", 6, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { other, session, token } = yield* merging
        yield* session.renewToken
        yield* troubled(session, n, fault)
        yield* assertOne(yield* commit(session), { userId: "ada", visits: 2 })
        assert.isFalse((yield* opens(other)) || (yield* opens(token)))
      })
    )

    testFaults("and renews, given up before it has come to its end, leaves both as they were", 4, (fault) =>
      Effect.fnUntraced(function* (n) {
        const { other, session, token } = yield* merging
        yield* session.renewToken
        assert.isTrue(Option.isNone(yield* troubled(session, n, fault)))
        assert.strictEqual(yield* visitsOf(UserSession, token), 1)
        assert.strictEqual(yield* visitsOf(UserSession, other), 1)
        assert.strictEqual((yield* active).length, 2)
      })
    )

    testFaults("into a new session, tried again, has the value once, and the other has ended", 5, (fault) =>
      Effect.fnUntraced(function* (n) {
        const other = yield* stored(UserSession)
        const session = yield* UserSession.open()
        yield* session.merge(other.token, add)
        yield* troubled(session, n, fault)
        yield* assertOne(yield* commit(session), { visits: 1 })
        assert.isFalse(yield* opens(other.token))
      })
    )

    testFaults("into a new session, given up, loses no value", 5, (fault) =>
      Effect.fnUntraced(function* (n) {
        const other = yield* stored(UserSession)
        const session = yield* UserSession.open()
        yield* session.merge(other.token, add)
        yield* troubled(session, n, fault)
        const visits = (yield* active).map(({ value }) => value)
        assert.deepInclude(visits, { visits: 1 })
        if (n < 3) assert.strictEqual(yield* visitsOf(UserSession, other.token), 1)
      })
    )

    testFaults("into a new session, given up before it merges, lists no new session, and leaves none", 1, (fault) =>
      Effect.fnUntraced(function* (n) {
        const other = yield* stored(UserSession)
        const session = yield* UserSession.open()
        yield* session.merge(other.token, add)
        yield* troubled(session, n, fault)
        assert.strictEqual((yield* Stream.runCollect(UserSession.sessions)).length, 1)
        yield* assertOne(other.token, { visits: 1 })
        yield* TestClock.adjust("61 seconds")
        assert.strictEqual((yield* activeFields).length, 1)
      })
    )

    for (const fault of faults) {
      for (const more of [1, 2]) {
        test(`goes on from what it holds, if that is not put back: the store ${describeFault(fault)} 1, and ${more} later`, function* () {
          const store = yield* VirtualStore
          const { other, session, token } = yield* merging
          store.plan(1, { when: "after", how: "hangs" })
          const fiber = yield* Effect.forkChild(session.commit, { startImmediately: true })
          yield* settle
          store.plan(more, fault)
          const interruption = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
          yield* Effect.andThen(settle, TestClock.adjust("1 second"))
          yield* Fiber.join(interruption)
          store.heal()
          assertSameToken(yield* commit(session), token)
          yield* assertOne(token, { userId: "ada", visits: 2 })
          assert.isFalse(yield* opens(other))
        })
      }
    }

    test("puts the other back where this one turns out to have ended", function* () {
      const { other, session, token } = yield* merging
      yield* (yield* UserSession.open(token)).destroy
      assert.deepStrictEqual(yield* session.commit, Option.none())
      assert.strictEqual(yield* session.status, "ended")
      yield* assertOne(other, { visits: 1 })
      const going = yield* UserSession.open(other)
      yield* going.update(visit)
      yield* going.commit
      yield* assertOne(other, { visits: 2 })
    })
  })
})
