import { assert, describe } from "@effect/vitest"
import { DateTime, Effect, Exit, Fiber, Option, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { MemStore, SessionStore, SessionStoreError } from "effect-sessions"
import { makeHold } from "../../src/internal/envelope.ts"
import {
  activeFields,
  add,
  commit,
  fieldsAt,
  IdleSession,
  keyOf,
  logIn,
  malformed,
  opens,
  stored,
  test,
  type UserHandle,
  UserSession,
  UserSessionElsewhere,
  visit,
  visitsOf
} from "./fixtures.ts"
import { during, type Operation, settle, VirtualStore } from "./virtualStore.ts"

/** Holds a session for a merge into another, as a process that died in the middle of it leaves it. */
const hold = Effect.fnUntraced(function* (key: string, successor: string) {
  const store = yield* MemStore
  const held = Option.getOrThrow(yield* store.find(key))
  const inAnHour = yield* DateTime.now.pipe(Effect.map(DateTime.add({ hours: 1 })))
  yield* store.commit(key, makeHold("test/UserSession", successor, "a merge", held), inAnHour)
})

/** Two sessions, the one with the smaller key first. */
const byKey = Effect.gen(function* () {
  const two = [yield* stored(UserSession), yield* stored(UserSession)]
  const [smaller, larger] = two.sort((one, other) => (keyOf(one.token) < keyOf(other.token) ? -1 : 1))
  return smaller === undefined || larger === undefined ? assert.fail() : ([smaller, larger] as const)
})

/** Whether a commit waits for a merge that holds its session, which is never let go of. */
const waits = Effect.fnUntraced(function* (session: UserHandle) {
  const fiber = yield* Effect.forkChild(session.commit, { startImmediately: true })
  yield* settle
  const isWaiting = fiber.pollUnsafe() === undefined
  yield* TestClock.adjust("1 second")
  assert.deepStrictEqual(yield* Fiber.join(fiber), Option.none())
  return isWaiting
})

describe("Session", () => {
  describe("merge", () => {
    test("takes the value of another session in, and ends that one at the commit", function* () {
      const other = yield* stored(UserSession)
      yield* TestClock.adjust("1 hour")
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      const deadline = yield* session.deadline
      yield* session.merge(other.token, add)
      assert.deepStrictEqual(yield* session.get, { visits: 2 })
      assert.deepStrictEqual(yield* session.deadline, deadline)
      assert.strictEqual(yield* visitsOf(UserSession, other.token), 1)
      yield* session.commit
      assert.strictEqual(yield* visitsOf(UserSession, other.token), 0)
      assert.strictEqual(yield* visitsOf(UserSession, token), 2)
    })

    test("does nothing for a token that opens nothing, or this very session", function* () {
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      const foreign = yield* stored(IdleSession)
      const tokens = [...malformed, "a".repeat(43), Redacted.value(token), Redacted.value(foreign.token)]
      for (const other of tokens) yield* session.merge(Redacted.make(other), add)
      assert.strictEqual(yield* session.status, "unmodified")
      assert.strictEqual(yield* visitsOf(UserSession, token), 1)
      assert.strictEqual(yield* visitsOf(IdleSession, foreign.token), 1)
    })

    test("leaves the other session alone where the function throws", function* () {
      const other = yield* stored(UserSession)
      const session = yield* UserSession.open()
      const bug = () => {
        throw new Error("bug")
      }
      assert.isTrue(Exit.isFailure(yield* Effect.exit(session.merge(other.token, bug))))
      assert.strictEqual(yield* session.status, "unmodified")
      assert.strictEqual(yield* visitsOf(UserSession, other.token), 1)
    })

    for (const [when, isHeld] of [
      ["before it is held", (operation: string) => operation === "replace"],
      ["before it is looked for", () => true]
    ] as const) {
      test(`loses no update of the other session that was committed after the merge, ${when}`, function* () {
        const other = yield* stored(UserSession)
        const fast = yield* other.open
        yield* fast.update(visit)
        const session = yield* UserSession.open()
        yield* session.merge(other.token, add)
        const token = yield* during(commit(session), fast.commit, isHeld)
        assert.deepStrictEqual(yield* session.get, { visits: 2 })
        assert.strictEqual(yield* visitsOf(UserSession, token), 2)
        assert.strictEqual(yield* visitsOf(UserSession, other.token), 0)
      })
    }

    test("leaves the other session alone where this one has ended", function* () {
      const other = yield* stored(UserSession)
      const { open } = yield* stored(UserSession)
      const [slow, fast] = [yield* open, yield* open]
      yield* fast.destroy
      yield* slow.update(visit)
      yield* slow.commit
      yield* slow.merge(other.token, add)
      assert.strictEqual(yield* visitsOf(UserSession, other.token), 1)
    })

    test("takes nothing of a session that another request ended in the meantime", function* () {
      const other = yield* stored(UserSession)
      const fast = yield* other.open
      const session = yield* UserSession.open()
      yield* session.update(logIn("ada"))
      yield* session.merge(other.token, add)
      const token = yield* during(commit(session), fast.destroy, (operation) => operation === "replace")
      assert.deepStrictEqual(yield* session.get, { userId: "ada", visits: 0 })
      assert.strictEqual(yield* visitsOf(UserSession, token), 0)
      assert.strictEqual(yield* session.status, "unmodified")
    })

    test("by a process that died is waited for by the commits of what it holds, but for eight looks at the most", function* () {
      const spy = yield* VirtualStore
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      yield* session.update(visit)
      yield* hold(keyOf(token), "a".repeat(43))
      spy.calls.length = 0
      assert.isTrue(yield* waits(session))
      assert.lengthOf(
        spy.calls.filter((operation) => operation === "find"),
        9
      )
    })

    for (const what of ["smaller", "larger"] as const) {
      test(`of two sessions that merge each other ${what === "smaller" ? "ends at once" : "waits"}, if its key is the ${what} one`, function* () {
        const [smaller, larger] = yield* byKey
        const [mine, other] = what === "smaller" ? [smaller, larger] : [larger, smaller]
        const session = yield* mine.open
        yield* session.update(visit)
        yield* session.merge(other.token, add)
        yield* hold(keyOf(mine.token), keyOf(other.token))
        assert.strictEqual(yield* waits(session), what === "larger")
      })
    }

    test("waits for a merge into a third session, whatever the keys", function* () {
      const [mine, other] = yield* byKey
      const session = yield* mine.open
      yield* session.merge(other.token, add)
      yield* hold(keyOf(mine.token), "z".repeat(43))
      assert.isTrue(yield* waits(session))
    })

    test("of two sessions into each other, by processes that died, is ended by a log-out by either token", function* () {
      const [one, other] = yield* byKey
      const session = yield* one.open
      yield* hold(keyOf(one.token), keyOf(other.token))
      yield* hold(keyOf(other.token), keyOf(one.token))
      yield* session.destroy
      for (const { token } of [one, other]) {
        assert.strictEqual((yield* fieldsAt(keyOf(token)))?.ended, true)
        assert.isFalse(yield* opens(token))
      }
    })

    test("into a new session that takes more than a minute is called off", function* () {
      const other = yield* stored(UserSession)
      const session = yield* UserSession.open()
      yield* session.merge(other.token, add)
      const slow = (operation: Operation) => operation === "replace"
      assert.deepStrictEqual(yield* during(session.commit, TestClock.adjust("2 minutes"), slow), Option.none())
      assert.strictEqual(yield* session.status, "ended")
      assert.strictEqual(yield* visitsOf(UserSession, other.token), 1)
      assert.lengthOf(yield* activeFields, 1)
    })

    test("of a session that ended in the meantime leaves a new session to be saved, if that failed", function* () {
      const spy = yield* VirtualStore
      const other = yield* stored(UserSession)
      const elsewhere = yield* UserSessionElsewhere.open(other.token)
      const session = yield* UserSession.open()
      yield* session.merge(other.token, add)
      // It adds itself, and cannot hold the other, which a log-out replaces before it. It looks for it, and saves itself.
      spy.plan(5, { when: "before", how: "fails" })
      yield* Effect.flip(during(session.commit, elsewhere.destroy, (operation) => operation === "replace"))
      assert.strictEqual(yield* session.status, "modified")
      spy.heal()
      const token = yield* commit(session)
      assert.isTrue(yield* opens(token))
      assert.strictEqual(yield* session.status, "unmodified")
    })

    test("seals what a log-out by the token of the other sealed before the commit came to its end", function* () {
      const other = yield* stored(UserSession)
      const elsewhere = yield* UserSessionElsewhere.open(other.token)
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      yield* session.merge(other.token, add)
      // It holds the other and saves this one by what it knows, and looks for the other to let go of it.
      yield* during(session.commit, elsewhere.destroy, (operation) => operation === "find")
      assert.isFalse(yield* opens(token))
      assert.strictEqual((yield* fieldsAt(keyOf(other.token)))?.ended, true)
    })

    test("that is given up leaves no write on its way that could still hold the other", function* () {
      const spy = yield* VirtualStore
      const other = yield* stored(UserSession)
      const before = yield* fieldsAt(keyOf(other.token))
      const session = yield* (yield* stored(UserSession)).open
      yield* session.merge(other.token, add)
      spy.plan(1, { when: "before", how: "fails" })
      yield* Effect.flip(session.commit)
      spy.heal()
      const after = yield* fieldsAt(keyOf(other.token))
      // Another write id is another text, so a compare-and-set of the former text fails.
      assert.notStrictEqual(after?.write, before?.write)
      assert.deepStrictEqual({ ...after, write: before?.write }, before)
    })

    test("that failed is loaded anew with what another request saved since", function* () {
      const spy = yield* VirtualStore
      const other = yield* stored(UserSession)
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      yield* session.merge(other.token, add)
      spy.plan(2, { when: "before", how: "fails" })
      yield* Effect.flip(session.commit)
      spy.heal()
      const elsewhere = yield* UserSessionElsewhere.open(token)
      yield* elsewhere.update(logIn("ada"))
      yield* elsewhere.commit
      assert.isTrue(yield* session.reload)
      assert.deepStrictEqual(yield* session.get, { userId: "ada", visits: 2 })
    })

    test("fails where the store fails, and has changed nothing", function* () {
      const spy = yield* VirtualStore
      const other = yield* stored(UserSession)
      const session = yield* UserSession.open()
      spy.failing.add("find")
      assert.instanceOf(yield* Effect.flip(session.merge(other.token, add)), SessionStoreError)
      spy.heal()
      assert.strictEqual(yield* session.status, "unmodified")
      assert.strictEqual(yield* visitsOf(UserSession, other.token), 1)
    })

    test("ends the other also if what failed had arrived, and was loaded anew", function* () {
      const spy = yield* VirtualStore
      const other = yield* stored(UserSession)
      const session = yield* (yield* stored(UserSession)).open
      yield* session.update(logIn("ada"))
      yield* session.merge(other.token, add)
      spy.plan(2, { when: "after", how: "fails" })
      yield* Effect.flip(session.commit)
      spy.heal()
      assert.isTrue(yield* session.reload)
      yield* session.commit
      assert.deepStrictEqual(yield* session.get, { userId: "ada", visits: 2 })
      assert.strictEqual(yield* visitsOf(UserSession, other.token), 0)
    })

    test("leaves both alone until the commit, so that a handler which fails has merged nothing", function* () {
      const other = yield* stored(UserSession)
      const { open, token } = yield* stored(UserSession)
      const before = yield* (yield* SessionStore).all
      const session = yield* open
      yield* session.merge(other.token, add)
      assert.strictEqual(yield* session.status, "modified")
      assert.deepStrictEqual(yield* (yield* SessionStore).all, before)
      assert.isTrue((yield* opens(token)) && (yield* opens(other.token)))
    })

    test("takes one session in once, also if it is asked for twice", function* () {
      const other = yield* stored(UserSession)
      const session = yield* UserSession.open()
      yield* session.merge(other.token, add)
      yield* session.merge(other.token, add)
      assert.strictEqual(yield* visitsOf(UserSession, yield* commit(session)), 1)
    })

    test("takes several sessions in", function* () {
      const others = [yield* stored(UserSession), yield* stored(UserSession), yield* stored(UserSession)]
      const session = yield* UserSession.open()
      for (const { token } of others) yield* session.merge(token, add)
      assert.strictEqual(yield* visitsOf(UserSession, yield* commit(session)), 3)
      for (const { token } of others) assert.isFalse(yield* opens(token))
      assert.strictEqual((yield* activeFields).length, 1)
    })

    test("has a log-out by the token of the other end this session too", function* () {
      const other = yield* stored(UserSession)
      const late = yield* other.open
      const session = yield* UserSession.open()
      yield* session.merge(other.token, add)
      const token = yield* commit(session)
      yield* late.destroy
      assert.isFalse(yield* opens(token))
    })

    test("leaves nothing of the other session in the store", function* () {
      const other = yield* stored(UserSession)
      const session = yield* UserSession.open()
      yield* session.merge(other.token, (_, { visits }) => ({ visits: visits * 10 }))
      const token = yield* commit(session)
      const tombstone = { version: 1, session: "test/UserSession", successor: keyOf(token) }
      assert.deepStrictEqual(yield* fieldsAt(keyOf(other.token)), tombstone)
      assert.strictEqual((yield* activeFields).length, 1)
    })
  })
})
