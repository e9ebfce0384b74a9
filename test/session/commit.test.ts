import { assert, describe, it } from "@effect/vitest"
import { Cause, DateTime, Deferred, Duration, Effect, Exit, Fiber, HashMap, Option, Redacted, Schema } from "effect"
import { TestClock } from "effect/testing"
import { MemStore, Session, SessionStoreError } from "effect-sessions"
import {
  assertSameToken,
  commit,
  IdleSession,
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
import { during, VirtualStore } from "./virtualStore.ts"

describe("Session", () => {
  describe("commit", () => {
    test("writes nothing for a visitor who only reads", function* () {
      const spy = yield* VirtualStore
      const store = yield* MemStore
      const session = yield* UserSession.open()
      yield* session.get
      assert.deepStrictEqual(yield* session.commit, Option.none())
      assert.deepStrictEqual(spy.calls, [])
      assert.strictEqual(yield* store.size, 0)
    })

    test("writes nothing for a new session whose changes changed nothing", function* () {
      const spy = yield* VirtualStore
      const session = yield* UserSession.open()
      yield* session.modify(({ userId, ...user }) => [userId, user])
      assert.deepStrictEqual(yield* session.commit, Option.none())
      assert.strictEqual(yield* session.status, "unmodified")
      assert.deepStrictEqual(spy.calls, [])
      yield* session.setRememberMe(true)
      assert.isTrue(Option.isSome(yield* session.commit))
    })

    test("writes nothing for a session that nothing was changed in, and still says what carries it", function* () {
      const spy = yield* VirtualStore
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      spy.calls.length = 0
      const committed = Option.getOrThrow(yield* session.commit)
      assertSameToken(committed.token, token)
      assert.isFalse(committed.isTokenNew || committed.isExpiryNew || committed.isRememberMeNew)
      assert.deepStrictEqual(spy.calls, [])
      yield* session.update((user) => ({ ...user }))
      yield* session.commit
      assert.deepStrictEqual(spy.calls, ["find"])
    })

    test("takes one write to add a session, and one to change it", function* () {
      const spy = yield* VirtualStore
      const { open } = yield* stored(UserSession)
      assert.deepStrictEqual(spy.calls, ["create"])
      const session = yield* open
      yield* session.update(visit)
      yield* session.update(visit)
      yield* session.commit
      assert.deepStrictEqual(spy.calls, ["create", "find", "replace"])
    })

    test("returns a token of 32 random bytes in base64url", function* () {
      const tokens = new Set<string>()
      for (let i = 0; i < 100; i++) {
        const { token } = yield* stored(UserSession)
        assert.match(Redacted.value(token), /^[A-Za-z0-9_-]{43}$/)
        assert.strictEqual(Buffer.from(Redacted.value(token), "base64url").length, 32)
        tokens.add(Redacted.value(token))
      }
      assert.strictEqual(tokens.size, 100)
    })

    test("leaves nothing to save, until there is another change", function* () {
      const session = yield* UserSession.open()
      yield* session.update(visit)
      const token = yield* commit(session)
      assert.strictEqual(yield* session.status, "unmodified")
      yield* session.update(visit)
      assert.strictEqual(yield* session.status, "modified")
      assertSameToken(yield* commit(session), token)
      assert.strictEqual(yield* visitsOf(UserSession, token), 2)
    })

    test("applies its changes again where another request was faster", function* () {
      const { open, token } = yield* stored(UserSession)
      const sessions = yield* Effect.replicateEffect(open, 10)
      for (const session of sessions) yield* session.update(visit)
      for (const session of sessions) yield* session.commit
      assert.strictEqual(yield* visitsOf(UserSession, token), 11)
      assert.strictEqual((yield* (sessions[9] ?? assert.fail()).get).visits, 11)
    })

    test("applies all changes again in their order, each to the newer value", function* () {
      const { open } = yield* stored(UserSession)
      const [slow, fast] = [yield* open, yield* open]
      yield* slow.update((user) => ({ ...user, visits: user.visits * 10 }))
      assert.strictEqual(yield* slow.modify((user) => [user.visits, visit(user)]), 10)
      yield* slow.setRememberMe(true)
      yield* fast.update((user) => logIn("ada")({ ...user, visits: 4 }))
      yield* fast.commit
      yield* slow.commit
      assert.deepStrictEqual(yield* (yield* open).get, { userId: "ada", visits: 41 })
      assert.isTrue(Option.getOrThrow(yield* (yield* open).commit).rememberMe)
    })

    it.effect.prop(
      "loses no update, in whatever order requests open, change and commit",
      {
        order: Schema.Array(
          Schema.Tuple([Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 4 })), Schema.Boolean])
        )
      },
      ({ order }) =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          const sessions = yield* Effect.replicateEffect(open, 5)
          let changes = 0
          for (const [index, isCommit] of order) {
            const session = sessions[index] ?? assert.fail()
            if (isCommit) yield* session.commit
            else {
              yield* session.update(visit)
              changes++
            }
          }
          for (const session of sessions) yield* session.commit
          assert.strictEqual(yield* visitsOf(UserSession, token), 1 + changes)
        }).pipe(Effect.provide(VirtualStore.layer))
    )

    for (const [how, end] of [
      ["was destroyed", (session: UserHandle) => session.destroy],
      ["was renewed", (session: UserHandle) => Effect.andThen(session.renewToken, session.commit)],
      ["has expired", () => TestClock.adjust("25 hours")]
    ] as const) {
      test(`writes nothing back where the session ${how} in the meantime`, function* () {
        const store = yield* MemStore
        const { open, token } = yield* stored(UserSession)
        const [slow, fast] = [yield* open, yield* open]
        yield* slow.update(logIn("ada"))
        yield* end(fast)
        assert.deepStrictEqual(yield* slow.commit, Option.none())
        assert.strictEqual(yield* slow.status, "ended")
        assert.isFalse(yield* opens(token))
        yield* slow.update(visit)
        yield* slow.renewToken
        yield* slow.update(visit)
        assert.deepStrictEqual(yield* slow.commit, Option.none())
        assert.strictEqual((yield* slow.get).userId, "ada")
        const left = [...HashMap.values(yield* store.all)]
        assert.isFalse(left.some((data) => data.includes("ada")))
      })
    }

    test("keeps the changes where the store fails, to be committed again", function* () {
      const spy = yield* VirtualStore
      const session = yield* UserSession.open()
      yield* session.update(visit)
      spy.failing.add("create")
      assert.instanceOf(yield* Effect.flip(session.commit), SessionStoreError)
      assert.strictEqual(yield* session.status, "modified")
      spy.heal()
      const token = yield* commit(session)
      yield* session.update(visit)
      spy.failing.add("replace")
      assert.instanceOf(yield* Effect.flip(session.commit), SessionStoreError)
      spy.heal()
      yield* session.commit
      assert.strictEqual(yield* visitsOf(UserSession, token), 2)
    })

    test("makes one session of a new one that two fibers commit", function* () {
      const spy = yield* VirtualStore
      const store = yield* MemStore
      spy.gate = () => Effect.yieldNow
      const session = yield* UserSession.open()
      yield* session.update(visit)
      const [one, two] = yield* Effect.all([commit(session), commit(session)], { concurrency: 2 })
      assertSameToken(one, two)
      assert.strictEqual(yield* store.size, 1)
    })

    test("loses no change that is made while it waits for the store", function* () {
      for (const session of [yield* UserSession.open(), yield* (yield* stored(UserSession)).open]) {
        const before = (yield* session.get).visits
        yield* session.update(visit)
        yield* during(session.commit, session.update(visit))
        assert.strictEqual(yield* session.status, "modified")
        assert.strictEqual(yield* visitsOf(UserSession, Option.getOrThrow(yield* session.token)), before + 1)
        assert.strictEqual(yield* visitsOf(UserSession, yield* commit(session)), before + 2)
      }
    })

    test("can be given up while the store hangs", function* () {
      const spy = yield* VirtualStore
      const session = yield* UserSession.open()
      yield* session.update(visit)
      spy.gate = () => Effect.never
      const fiber = yield* Effect.forkChild(session.commit, { startImmediately: true })
      yield* Fiber.interrupt(fiber)
      spy.gate = () => Effect.void
      assert.strictEqual(yield* visitsOf(UserSession, yield* commit(session)), 1)
    })

    test("is done to the end where its caller cannot be interrupted, as in a finalizer", function* () {
      const spy = yield* VirtualStore
      const { open, token } = yield* stored(UserSession)
      spy.gate = () => Effect.yieldNow
      const started = yield* Deferred.make<void>()
      const work = Effect.acquireUseRelease(
        open,
        (session) =>
          session
            .update(visit)
            .pipe(Effect.andThen(Deferred.succeed(started, undefined)), Effect.andThen(Effect.never)),
        (session) => Effect.orDie(session.commit)
      )
      const fiber = yield* Effect.forkChild(work)
      yield* Deferred.await(started)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(yield* visitsOf(UserSession, token), 2)
    })

    test("applies its changes to the newer value also where they come to what was loaded", function* () {
      const { open } = yield* stored(UserSession)
      const [slow, fast] = [yield* open, yield* open]
      yield* slow.set({ visits: 1 })
      yield* fast.update(logIn("mallory"))
      yield* fast.commit
      yield* slow.commit
      assert.deepStrictEqual(yield* (yield* open).get, { visits: 1 })

      const [late, ender] = [yield* open, yield* open]
      yield* late.set({ visits: 1 })
      yield* ender.destroy
      assert.deepStrictEqual(yield* late.commit, Option.none())
    })

    test("counts a change once that is made while a write is under way which then conflicts", function* () {
      const { open, token } = yield* stored(UserSession)
      const [slow, fast] = [yield* open, yield* UserSessionElsewhere.open(token)]
      yield* slow.update(visit)
      yield* fast.update(visit)
      yield* during(slow.commit, Effect.andThen(slow.update(visit), fast.commit))
      // The try after the conflict takes it along.
      assert.strictEqual(yield* visitsOf(UserSession, token), 4)
      yield* slow.commit
      assert.strictEqual(yield* visitsOf(UserSession, token), 4)
    })

    test("saves nothing of a new session that is past its deadline by then", function* () {
      const session = yield* UserSession.open()
      yield* session.update(visit)
      yield* TestClock.adjust("25 hours")
      assert.deepStrictEqual(yield* session.commit, Option.none())
      assert.strictEqual(yield* (yield* MemStore).size, 0)
    })

    test("ends a new session that is past its deadline by then: nothing of it is saved any more, whatever is done to it", function* () {
      const later = DateTime.makeUnsafe(Duration.toMillis("30 days"))
      const endings = [
        (session: UserHandle) => session.update(visit),
        (session: UserHandle) => session.setDeadline(later),
        (session: UserHandle) => session.renewToken
      ]
      for (const doMore of endings) {
        const session = yield* UserSession.open()
        yield* session.update(visit)
        yield* TestClock.adjust("25 hours")
        yield* session.commit
        assert.strictEqual(yield* session.status, "ended")
        assert.deepStrictEqual(yield* session.get, { visits: 1 })
        yield* doMore(session)
        assert.deepStrictEqual(yield* session.commit, Option.none())
      }
      assert.strictEqual(yield* (yield* MemStore).size, 0)
    })

    test("says that the expiry is new where an idle timeout is taken away or added", function* () {
      const taken = yield* (yield* stored(IdleSession)).open
      yield* taken.setIdleTimeout(Duration.infinity)
      assert.isTrue(Option.getOrThrow(yield* taken.commit).isExpiryNew)
      const added = yield* (yield* stored(UserSession)).open
      yield* added.setIdleTimeout("5 minutes")
      assert.isTrue(Option.getOrThrow(yield* added.commit).isExpiryNew)
    })

    test("saves a change that was made in place once, also after another request was faster", function* () {
      class Items extends Session.Service<Items>()("test/Items", {
        schema: Schema.mutable(Schema.Array(Schema.String)),
        initial: () => []
      }) {}
      const add = (item: string) => (items: Array<string>) => {
        items.push(item)
        return items
      }
      const first = yield* Items.open()
      yield* first.update(add("a"))
      const token = yield* commit(first)
      const [slow, fast] = [yield* Items.open(token), yield* Items.open(token)]
      yield* slow.update(add("c"))
      yield* fast.update(add("b"))
      yield* fast.commit
      assert.deepStrictEqual(yield* (yield* Items.open(token)).get, ["a", "b"])
      yield* slow.commit
      assert.deepStrictEqual(yield* (yield* Items.open(token)).get, ["a", "b", "c"])
      assert.deepStrictEqual(yield* slow.get, ["a", "b", "c"])
    })

    test("dies where the value has no JSON, so that it could never be opened", function* () {
      class AnySession extends Session.Service<AnySession>()("test/AnySession", {
        schema: Schema.Any,
        initial: () => null
      }) {}
      for (const value of [undefined, () => 1, Symbol("value")]) {
        const session = yield* AnySession.open()
        yield* session.set(value)
        const exit = yield* Effect.exit(session.commit)
        const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
        assert.instanceOf(defect, TypeError)
        assert.strictEqual(defect.message, "test/AnySession: the value does not fit its schema: It has no JSON")
      }
      assert.strictEqual(yield* (yield* MemStore).size, 0)
    })

    test("dies where the value does not fit its schema, and says where but not what it is", function* () {
      const session = yield* UserSession.open()
      yield* session.set({ visits: 47.11 })
      const exit = yield* Effect.exit(session.commit)
      const message = String(Exit.isFailure(exit) ? Cause.squash(exit.cause) : exit)
      assert.include(message, "TypeError: test/UserSession: the value does not fit its schema")
      assert.include(message, "visits")
      assert.notInclude(message, "47")
    })

    test("says what is new since the session was opened, however often it was committed since", function* () {
      const flags = (committed: Option.Option<Session.Committed>) => {
        const { isExpiryNew, isRememberMeNew, isTokenNew } = Option.getOrThrow(committed)
        return { isTokenNew, isExpiryNew, isRememberMeNew }
      }
      const first = yield* UserSession.open()
      yield* first.update(visit)
      const token = yield* commit(first)
      yield* first.update(visit)
      assert.deepStrictEqual(flags(yield* first.commit), {
        isTokenNew: true,
        isExpiryNew: true,
        isRememberMeNew: false
      })

      const second = yield* UserSession.open(token)
      yield* second.update(visit)
      assert.deepStrictEqual(flags(yield* second.commit), {
        isTokenNew: false,
        isExpiryNew: false,
        isRememberMeNew: false
      })
      yield* second.setRememberMe(true)
      yield* second.setDeadline(DateTime.makeUnsafe(Duration.toMillis("48 hours")))
      yield* second.commit
      assert.deepStrictEqual(flags(yield* second.commit), {
        isTokenNew: false,
        isExpiryNew: true,
        isRememberMeNew: true
      })

      yield* second.renewToken
      assert.isTrue(flags(yield* second.commit).isTokenNew)
    })

    test("leaves the value in memory as it is where the session has ended", function* () {
      const { open } = yield* stored(UserSession)
      const [slow, fast] = [yield* open, yield* open]
      yield* fast.destroy
      for (let visits = 2; visits <= 4; visits++) {
        yield* slow.update(visit)
        yield* slow.commit
        assert.strictEqual((yield* slow.get).visits, visits)
      }
    })

    test("applies no change twice that is made while it waits to try again", function* () {
      const { open, token } = yield* stored(UserSession)
      const [slow, fast] = [yield* open, yield* UserSessionElsewhere.open(token)]
      yield* fast.update(visit)
      yield* slow.update(visit)
      yield* during(slow.commit, Effect.andThen(fast.commit, slow.update(visit)))
      assert.strictEqual((yield* slow.get).visits, 4)
      assert.strictEqual(yield* slow.status, "unmodified")
      assert.strictEqual(yield* visitsOf(UserSession, token), 4)
      yield* slow.commit
      assert.strictEqual(yield* visitsOf(UserSession, token), 4)
    })

    test("adds a session whose deadline is this very millisecond", function* () {
      const session = yield* UserSession.open()
      yield* session.setDeadline(yield* DateTime.now)
      assert.strictEqual(yield* visitsOf(UserSession, yield* commit(session)), 0)
      assert.strictEqual(yield* (yield* MemStore).size, 1)
    })

    test("can be given up while it waits for another", function* () {
      const spy = yield* VirtualStore
      const session = yield* (yield* stored(UserSession)).open
      yield* session.update(visit)
      spy.gate = () => Effect.never
      const first = yield* Effect.forkChild(session.commit, { startImmediately: true })
      const second = yield* Effect.forkChild(session.commit, { startImmediately: true })
      yield* Fiber.interrupt(second)
      yield* Fiber.interrupt(first)
    })

    test("can be given up while the store hangs, as can all that asks it for something", function* () {
      const spy = yield* VirtualStore
      const other = yield* stored(UserSession)
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      yield* session.update(visit)
      spy.gate = () => Effect.never
      const renewal = Effect.andThen(session.renewToken, session.commit)
      const merge = session.merge(other.token, (mine) => mine)
      for (const act of [session.commit, session.reload, session.destroy, merge, renewal]) {
        const fiber = yield* Effect.forkChild(Effect.asVoid(act), { startImmediately: true })
        yield* Fiber.interrupt(fiber)
      }
      spy.gate = () => Effect.void
      assert.strictEqual(yield* visitsOf(UserSession, token), 1)
    })
  })
})
