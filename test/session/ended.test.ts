import { inspect } from "node:util"
import { assert, describe } from "@effect/vitest"
import { DateTime, Duration, Effect, Option, Redacted, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Session, SessionStore, SessionStoreError } from "effect-sessions"
import { withLog } from "../telemetry.ts"
import {
  activeFields,
  add,
  assertSameToken,
  commit,
  keyOf,
  logIn,
  NewerSession,
  opens,
  StrictSession,
  stored,
  test,
  type UserHandle,
  UserSession,
  visit,
  visitsOf
} from "./fixtures.ts"
import { VirtualStore } from "./virtualStore.ts"

/** A session, and the token that it had before it was renewed. */
const renewed = Effect.gen(function* () {
  const { open, token: old } = yield* stored(UserSession)
  const session = yield* open
  yield* session.update(logIn("ada"))
  yield* session.renewToken
  return { old, session, token: yield* commit(session) }
})

const hidden = Effect.fnUntraced(function* (ended: UserHandle) {
  assert.strictEqual(yield* ended.status, "ended")
  assert.deepStrictEqual(yield* ended.token, Option.none())
  assert.deepStrictEqual(yield* ended.id, Option.none())
  assert.deepStrictEqual(yield* ended.commit, Option.none())
})

describe("Session", () => {
  describe("the token of before a renewal", () => {
    test("opens a session that has ended: nothing that is done to it is saved", function* () {
      const spy = yield* VirtualStore
      const { old, token } = yield* renewed
      const before = yield* (yield* SessionStore).all
      const late = yield* UserSession.open(old)
      assert.deepStrictEqual(yield* late.get, { visits: 0 })
      yield* hidden(late)
      spy.calls.length = 0
      yield* late.update(visit)
      yield* late.setRememberMe(true)
      yield* late.setDeadline(DateTime.add(yield* DateTime.now, { days: 30 }))
      yield* late.renewToken
      yield* late.merge(token, add)
      // What is read is what was written, as of any session.
      assert.deepStrictEqual(yield* late.get, { visits: 1 })
      yield* hidden(late)
      assert.deepStrictEqual(spy.calls, [])
      assert.deepStrictEqual(yield* (yield* SessionStore).all, before)
    })

    test("never shows the session that took over", function* () {
      const { old, token } = yield* renewed
      const late = yield* UserSession.open(old)
      assert.isFalse(yield* late.reload)
      assert.deepStrictEqual(yield* late.get, { visits: 0 })
      const other = yield* UserSession.open()
      yield* other.update(visit)
      yield* other.merge(old, add)
      yield* other.commit
      assert.deepStrictEqual(yield* other.get, { visits: 1 })
      const printed = inspect(late, { depth: 10, showHidden: true })
      for (const secret of [Redacted.value(token), keyOf(token), "ada"]) assert.notInclude(printed, secret)
    })

    test("is no session in the list", function* () {
      const { token } = yield* renewed
      const listed = yield* Stream.runCollect(UserSession.sessions)
      assert.deepStrictEqual(yield* Effect.forEach(listed, ({ id }) => id), [Option.some(keyOf(token))])
    })

    test("opens a new session after a minute, as any unknown token does", function* () {
      const { old } = yield* renewed
      yield* TestClock.adjust("60 seconds")
      assert.strictEqual(yield* (yield* UserSession.open(old)).status, "ended")
      yield* TestClock.adjust("1 millis")
      const late = yield* UserSession.open(old)
      assert.strictEqual(yield* late.status, "unmodified")
      yield* late.update(visit)
      assert.isTrue(Option.isSome(yield* late.commit))
    })

    test("ends by a log-out the session that took over, for a minute", function* () {
      for (const [wait, isEnded] of [
        ["60 seconds", true],
        ["61 seconds", false]
      ] as const) {
        const { old, token } = yield* renewed
        yield* TestClock.adjust(wait)
        yield* (yield* UserSession.open(old)).destroy
        assert.strictEqual(yield* opens(token), !isEnded)
      }
    })

    test("ends by a log-out whatever took over, however often that was renewed", function* () {
      const { old, session } = yield* renewed
      const tokens: Array<Redacted.Redacted<string>> = []
      for (let i = 0; i < 3; i++) {
        yield* session.renewToken
        tokens.push(yield* commit(session))
      }
      yield* (yield* UserSession.open(old)).destroy
      for (const token of tokens) assert.isFalse(yield* opens(token))
      assert.deepStrictEqual(yield* activeFields, [])
    })

    test("lets what is written after a log-out belong to a new session", function* () {
      const { old } = yield* renewed
      const late = yield* UserSession.open(old)
      yield* late.destroy
      assert.strictEqual(yield* late.status, "destroyed")
      yield* late.update(visit)
      assert.isTrue(yield* opens(yield* commit(late)))
    })

    test("of a page whose three requests overlap does not log the user out by the late one", function* () {
      const { open, token: old } = yield* stored(UserSession)
      const [logInRequest, reader, late] = [yield* open, yield* open, yield* open]
      yield* logInRequest.update(logIn("ada"))
      yield* logInRequest.renewToken
      yield* late.update(visit)
      const token = yield* commit(logInRequest)
      assertSameToken(yield* commit(reader), old)
      // No token, so no cookie that would push the new one out of the browser.
      assert.deepStrictEqual(yield* late.commit, Option.none())
      assert.strictEqual(yield* late.status, "ended")
      assert.deepStrictEqual(yield* (yield* UserSession.open(token)).get, { userId: "ada", visits: 1 })
    })
  })

  describe("status", () => {
    test("is unmodified, modified, destroyed or ended", function* () {
      const { open } = yield* stored(UserSession)
      const [session, other] = [yield* open, yield* open]
      assert.strictEqual(yield* session.status, "unmodified")
      yield* session.renewToken
      assert.strictEqual(yield* session.status, "modified")
      yield* session.commit
      assert.strictEqual(yield* session.status, "unmodified")
      yield* session.destroy
      assert.strictEqual(yield* session.status, "destroyed")
      assert.strictEqual(yield* other.status, "unmodified")
      assert.isFalse(yield* other.reload)
      assert.strictEqual(yield* other.status, "ended")
    })

    test("does not say what a commit without a change has not asked", function* () {
      const spy = yield* VirtualStore
      const { open } = yield* stored(UserSession)
      const [session, other] = [yield* open, yield* open]
      yield* other.destroy
      spy.calls.length = 0
      assert.isTrue(Option.isSome(yield* session.commit))
      assert.strictEqual(yield* session.status, "unmodified")
      assert.deepStrictEqual(spy.calls, [])
    })
  })

  describe("reload", () => {
    test("has what others changed, with the changes of this session on top", function* () {
      const spy = yield* VirtualStore
      const { open, token } = yield* stored(UserSession)
      const [session, other] = [yield* open, yield* open]
      yield* session.update(visit)
      yield* other.update((user) => logIn("ada")({ ...user, visits: 40 }))
      yield* other.commit
      spy.calls.length = 0
      assert.isTrue(yield* session.reload)
      assert.deepStrictEqual(spy.calls, ["find"])
      assert.deepStrictEqual(yield* session.get, { userId: "ada", visits: 41 })
      assert.strictEqual(yield* session.status, "modified")
      yield* session.commit
      assert.deepStrictEqual(spy.calls, ["find", "replace"])
      assert.strictEqual(yield* visitsOf(UserSession, token), 41)
    })

    test("shows what others changed where nothing was changed here", function* () {
      const { open } = yield* stored(UserSession)
      const [session, other] = [yield* open, yield* open]
      yield* other.update(visit)
      yield* other.commit
      assert.isTrue(yield* session.reload)
      assert.strictEqual((yield* session.get).visits, 2)
      assert.strictEqual(yield* session.status, "unmodified")
    })

    for (const [how, end] of [
      ["was destroyed", (other: UserHandle) => other.destroy],
      ["was renewed", (other: UserHandle) => Effect.andThen(other.renewToken, other.commit)],
      ["was destroyed by an old token", (other: UserHandle) => Effect.andThen(other.destroy, other.reload)],
      ["has expired", () => TestClock.adjust("25 hours")]
    ] as const) {
      test(`says no where the session ${how}, and keeps the value in memory`, function* () {
        const { open } = yield* stored(UserSession)
        const [session, other] = [yield* open, yield* open]
        yield* session.update(visit)
        yield* end(other)
        assert.isFalse(yield* session.reload)
        yield* hidden(session)
        assert.strictEqual((yield* session.get).visits, 2)
        assert.isFalse(yield* session.reload)
      })
    }

    test("says no where the session was merged into another", function* () {
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      const other = yield* UserSession.open()
      yield* other.merge(token, add)
      assert.isTrue(yield* session.reload)
      yield* other.commit
      assert.isFalse(yield* session.reload)
    })

    test("says yes of a new session, and of one whose renewal is not committed, and changes nothing", function* () {
      const spy = yield* VirtualStore
      const session = yield* UserSession.open()
      yield* session.update(visit)
      assert.isTrue(yield* session.reload)
      assert.deepStrictEqual(spy.calls, [])
      yield* session.commit
      yield* session.renewToken
      assert.isTrue(yield* session.reload)
      assert.strictEqual(yield* session.status, "modified")
    })

    test("says no after a log-out of its own", function* () {
      const session = yield* (yield* stored(UserSession)).open
      yield* session.destroy
      assert.isFalse(yield* session.reload)
      assert.strictEqual(yield* session.status, "destroyed")
    })

    test("says yes of a session that was just renewed here", function* () {
      const { session } = yield* renewed
      assert.isTrue(yield* session.reload)
      assert.strictEqual(yield* session.status, "unmodified")
    })

    test("says no of a session that no longer decodes, with a warning, or fails where the class says so", () =>
      withLog((logged) =>
        Effect.gen(function* () {
          const store = yield* SessionStore
          const strict = yield* StrictSession.open()
          yield* strict.set({ user: "ada" })
          const token = yield* commit(strict)
          const lenient = yield* NewerSession.open(token)
          yield* store.commit(keyOf(token), "no session", DateTime.add(yield* DateTime.now, { hours: 1 }))
          assert.instanceOf(yield* Effect.flip(strict.reload), Session.SessionDecodeError)
          assert.isFalse(yield* lenient.reload)
          assert.strictEqual(yield* lenient.status, "ended")
          assert.strictEqual(logged.length, 1)
        })
      ))

    test("fails where the store fails, and has changed nothing", function* () {
      const spy = yield* VirtualStore
      const session = yield* (yield* stored(UserSession)).open
      yield* session.update(visit)
      spy.failing.add("find")
      assert.instanceOf(yield* Effect.flip(session.reload), SessionStoreError)
      spy.heal()
      assert.strictEqual(yield* session.status, "modified")
      assert.isTrue(Option.isSome(yield* session.commit))
    })

    test("says that the expiry is new where another request has moved it", function* () {
      const { open } = yield* stored(UserSession)
      const [session, other] = [yield* open, yield* open]
      yield* other.setDeadline(DateTime.makeUnsafe(Duration.toMillis("30 days")))
      yield* other.commit
      yield* session.reload
      const committed = Option.getOrThrow(yield* session.commit)
      assert.isTrue(committed.isExpiryNew)
      assert.strictEqual(DateTime.toEpochMillis(committed.expiry), Duration.toMillis("30 days"))
    })
  })
})
