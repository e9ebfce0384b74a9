import { createHash } from "node:crypto"
import { inspect } from "node:util"
import { assert, describe, expect, expectTypeOf, it } from "@effect/vitest"
import {
  Cause,
  DateTime,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  HashMap,
  Layer,
  Metric,
  Option,
  Redacted,
  Schema,
  Stream
} from "effect"
import { TestClock } from "effect/testing"
import { MemStore, Session, SessionStore, SessionStoreError } from "effect-sessions"
import { bytes } from "./counter.ts"
import { withLog, withSpans } from "./telemetry.ts"

// Without cleanup: to adjust the clock by days is to wait for thousands of sweeps.
const memory = MemStore.layerWithCleanupInterval(0)

const User = Schema.Struct({ userId: Schema.optionalKey(Schema.String), visits: Schema.Int })

const nobody = () => ({ visits: 0 })

class UserSession extends Session.Service<UserSession>()("test/UserSession", {
  schema: User,
  initial: nobody
}) {}

class IdleSession extends Session.Service<IdleSession>()("test/IdleSession", {
  schema: User,
  initial: nobody,
  lifetime: "1 hour",
  idleTimeout: "20 minutes"
}) {}

class PlainSession extends Session.Service<PlainSession>()("test/PlainSession", {
  schema: User,
  initial: nobody,
  hashToken: false
}) {}

/** The class of another deployment: same key, another schema. */
class NewerSession extends Session.Service<NewerSession>()("test/UserSession", {
  schema: Schema.Struct({ user: Schema.String }),
  initial: () => ({ user: "nobody" })
}) {}

/** Another class, whose values fit no other schema. */
class NameSession extends Session.Service<NameSession>()("test/NameSession", {
  schema: Schema.Struct({ user: Schema.String }),
  initial: () => ({ user: "nobody" }),
  undecodable: "fail"
}) {}

class StrictSession extends Session.Service<StrictSession>()("test/UserSession", {
  schema: Schema.Struct({ user: Schema.String }),
  initial: () => ({ user: "nobody" }),
  undecodable: "fail"
}) {}

const visit = (user: typeof User.Type): typeof User.Type => ({ ...user, visits: user.visits + 1 })

const logIn = (userId: string) => (user: typeof User.Type) => ({ ...user, userId })

/** Saves and returns the token. */
const commit = <A>(session: Session.Session<A>) =>
  Effect.map(session.commit, (committed) => Option.getOrThrow(committed).token)

/** A token shows nothing of itself, to `deepStrictEqual` neither: that takes any two for equal. */
const assertSameToken = (one: Redacted.Redacted<string>, other: Redacted.Redacted<string>) =>
  assert.strictEqual(Redacted.value(one), Redacted.value(other))

const undecodableWarning =
  "Warn: test/UserSession: a session in the store does not decode; it is taken as ended. If its schema changed, give new " +
  'fields a default, such as by Schema.withDecodingDefaultKey; the class option undecodable: "fail" tells where it ' +
  "does not fit"

/** A session that is in the store, opened anew by each call. */
const stored = Effect.fnUntraced(function* <Self, Id extends string>(
  session: Session.ServiceClass<Self, Id, typeof User.Type>
) {
  const first = yield* session.open()
  yield* first.update(visit)
  const token = yield* commit(first)
  return { token, open: session.open(token) }
})

const visitsOf = Effect.fnUntraced(function* <Self, Id extends string>(
  session: Session.ServiceClass<Self, Id, typeof User.Type>,
  token: Redacted.Redacted<string>
) {
  return (yield* (yield* session.open(token)).get).visits
})

const keyOf = (token: Redacted.Redacted<string>) =>
  createHash("sha256").update(Redacted.value(token)).digest("base64url")

const malformed = [
  "",
  "token",
  "a".repeat(42),
  "a".repeat(44),
  "a".repeat(10_000),
  `${"a".repeat(42)}\0`,
  "é".repeat(43)
]

/** A store that counts what is asked of it, and can be told to fail or to wait. */
const makeSpy = Effect.gen(function* () {
  const store = yield* MemStore
  const calls: Array<string> = []
  const spy = { calls, failing: new Set<string>(), latch: Effect.void as Effect.Effect<void> }
  const watched =
    <Args extends ReadonlyArray<unknown>, A>(
      operation: "find" | "commit" | "replace" | "delete",
      f: (...args: Args) => Effect.Effect<A>
    ) =>
    (...args: Args): Effect.Effect<A, SessionStoreError> =>
      Effect.suspend(() => {
        calls.push(operation)
        return spy.failing.has(operation)
          ? Effect.fail(new SessionStoreError({ operation, cause: new Error("down") }))
          : Effect.andThen(spy.latch, f(...args))
      })
  const operations: SessionStore["Service"] = {
    ...store,
    find: watched("find", store.find),
    commit: watched("commit", store.commit),
    replace: watched("replace", store.replace),
    delete: watched("delete", store.delete)
  }
  return { ...spy, spy, store, layer: Layer.succeed(SessionStore, operations) }
})

const spied = <A, E>(
  f: (spy: Effect.Success<typeof makeSpy>["spy"], store: MemStore["Service"]) => Effect.Effect<A, E, SessionStore>
) =>
  Effect.flatMap(makeSpy, ({ spy, store, layer }) => Effect.provide(f(spy, store), layer)).pipe(Effect.provide(memory))

const test =
  <A, E>(effect: () => Effect.Effect<A, E, SessionStore | MemStore>) =>
  () =>
    Effect.provide(effect(), memory)

describe("Session", () => {
  describe("Service", () => {
    it("is a tag under its key", () => {
      assert.strictEqual(UserSession.key, "test/UserSession")
    })

    it("has the type of the schema, also where the initial value has a narrower one", () => {
      expectTypeOf<typeof UserSession.Service.get>().toEqualTypeOf<Effect.Effect<typeof User.Type>>()
    })

    it("requires a store, and can fail as a store can, or for what it holds", () => {
      expectTypeOf<ReturnType<typeof UserSession.open>>().toEqualTypeOf<
        Effect.Effect<Session.Session<typeof User.Type>, SessionStoreError | Session.SessionDecodeError, SessionStore>
      >()
    })

    for (const [what, options] of [
      ["a lifetime of zero", { lifetime: 0 }],
      ["a negative lifetime", { lifetime: "-1 minutes" }],
      ["an infinite lifetime", { lifetime: Duration.infinity }],
      ["a lifetime of more than a thousand years", { lifetime: "365001 days" }],
      ["a lifetime that is no duration", { lifetime: Number.NaN }],
      ["an idle timeout of zero", { idleTimeout: 0 }],
      ["an idle timeout that is no duration", { idleTimeout: "soon" as "1 hour" }]
    ] as const) {
      it(`refuses ${what} and names the class`, () => {
        const make = () => Session.Service<UserSession>()("test/Refused", { schema: User, initial: nobody, ...options })
        assert.throws(make, TypeError, "test/Refused: the ")
      })
    }

    it("takes a lifetime of a thousand years", () => {
      const options = { schema: User, initial: nobody, lifetime: "365000 days" } as const
      assert.strictEqual(Session.Service<UserSession>()("test/Taken", options).key, "test/Taken")
    })
  })

  describe("open", () => {
    it.effect(
      "opens a new session where there is no token",
      test(() =>
        Effect.gen(function* () {
          const session = yield* UserSession.open()
          assert.deepStrictEqual(yield* session.get, { visits: 0 })
          assert.deepStrictEqual(yield* session.token, Option.none())
          assert.isTrue(Option.isNone(yield* session.id))
          assert.strictEqual(yield* session.status, "unmodified")
        })
      )
    )

    it.effect(
      "opens what was committed, any number of times",
      test(() =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          for (let i = 0; i < 2; i++) {
            const session = yield* open
            assert.deepStrictEqual(yield* session.get, { visits: 1 })
            assertSameToken(Option.getOrThrow(yield* session.token), token)
            assert.strictEqual(yield* session.status, "unmodified")
          }
        })
      )
    )

    it.effect("never asks the store for what does not look like a token", () =>
      spied((spy) =>
        Effect.gen(function* () {
          for (const token of malformed) {
            const session = yield* UserSession.open(Redacted.make(token))
            assert.deepStrictEqual(yield* session.token, Option.none())
          }
          assert.deepStrictEqual(spy.calls, [])
        })
      )
    )

    it.effect(
      "never adopts a token that the store does not know",
      test(() =>
        Effect.gen(function* () {
          const chosen = Redacted.make("a".repeat(43))
          const session = yield* UserSession.open(chosen)
          assert.deepStrictEqual(yield* session.token, Option.none())
          yield* session.update(visit)
          const token = yield* commit(session)
          assert.notStrictEqual(Redacted.value(token), Redacted.value(chosen))
          assert.strictEqual(yield* visitsOf(UserSession, chosen), 0)
          assert.strictEqual(yield* visitsOf(UserSession, token), 1)
        })
      )
    )

    it.effect(
      "opens nothing by the token of another class",
      test(() =>
        Effect.gen(function* () {
          const { token } = yield* stored(UserSession)
          const session = yield* IdleSession.open(token)
          assert.deepStrictEqual(yield* session.token, Option.none())
          yield* session.update(visit)
          yield* session.commit
          assert.strictEqual(yield* visitsOf(UserSession, token), 1)
        })
      )
    )

    it.effect("fails where the store fails", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const { open } = yield* stored(UserSession)
          spy.failing.add("find")
          assert.instanceOf(yield* Effect.flip(open), SessionStoreError)
        })
      )
    )

    it.effect(
      "warns once of a token of another class, without showing it",
      test(() =>
        withLog((logged) =>
          Effect.gen(function* () {
            class SharingSession extends Session.Service<SharingSession>()("test/SharingSession", {
              schema: User,
              initial: nobody
            }) {}
            const { token } = yield* stored(UserSession)
            yield* SharingSession.open(token)
            yield* SharingSession.open(token)
            yield* UserSession.open(token)
            assert.deepStrictEqual(logged, [
              "Warn: test/SharingSession: a token opens a session of another class, and so none here. Do two classes share " +
                "the name of a cookie, or was the key of this one changed?"
            ])
          })
        )
      )
    )

    it.effect("takes the session of another class, whatever its schema, for none, and leaves it alone", () =>
      spied((_, store) =>
        Effect.gen(function* () {
          const { token } = yield* stored(UserSession)
          const session = yield* NameSession.open(token)
          assert.deepStrictEqual(yield* session.get, { user: "nobody" })
          yield* session.set({ user: "ada" })
          yield* session.commit
          assert.strictEqual(yield* store.size, 2)
          assert.strictEqual(yield* visitsOf(UserSession, token), 1)
        })
      )
    )
  })

  describe("a session", () => {
    it.effect(
      "works also where its operations are taken off it",
      test(() =>
        Effect.gen(function* () {
          const { commit, get, modify, set, update } = yield* UserSession.open()
          yield* set({ visits: 1 })
          yield* update(visit)
          yield* modify((user) => [undefined, visit(user)])
          yield* commit
          assert.strictEqual((yield* get).visits, 3)
        })
      )
    )
  })

  describe("lifetime", () => {
    it.effect(
      "ends a session also in a store whose clock is behind",
      test(() =>
        Effect.gen(function* () {
          const { token } = yield* stored(UserSession)
          const store = yield* SessionStore
          const data = Option.getOrThrow(yield* store.find(keyOf(token)))
          yield* store.commit(keyOf(token), data, DateTime.add(yield* DateTime.now, { days: 30 }))
          yield* TestClock.adjust("25 hours")
          assert.strictEqual(yield* visitsOf(UserSession, token), 0)
        })
      )
    )

    it.effect(
      "may be a fraction of a millisecond longer",
      test(() =>
        Effect.gen(function* () {
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
      )
    )

    it.effect(
      "is whole milliseconds where the clock has fractions",
      test(() =>
        Effect.gen(function* () {
          yield* TestClock.adjust("1500 micros")
          const { open, token } = yield* stored(UserSession)
          assert.strictEqual(yield* visitsOf(UserSession, token), 1)
          const session = yield* open
          yield* session.renewToken
          assert.strictEqual(yield* visitsOf(UserSession, yield* commit(session)), 1)
        })
      )
    )

    it.effect(
      "ends a session, however much it is used",
      test(() =>
        Effect.gen(function* () {
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
      )
    )

    it.effect(
      "is the deadline of a new session, counted from its opening",
      test(() =>
        Effect.gen(function* () {
          yield* TestClock.adjust("1 hour")
          const session = yield* UserSession.open()
          assert.strictEqual(DateTime.toEpochMillis(yield* session.deadline), Duration.toMillis("25 hours"))
        })
      )
    )
  })

  describe("idle timeout", () => {
    it.effect(
      "ends a session that goes unused",
      test(() =>
        Effect.gen(function* () {
          const { open } = yield* stored(IdleSession)
          yield* TestClock.adjust("20 minutes")
          assert.isTrue(Option.isSome(yield* (yield* open).token))
          yield* TestClock.adjust("1 millis")
          assert.isTrue(Option.isNone(yield* (yield* open).token))
        })
      )
    )

    it.effect(
      "is moved on by a commit of an unchanged session, up to the deadline",
      test(() =>
        Effect.gen(function* () {
          const { open } = yield* stored(IdleSession)
          for (let minutes = 15; minutes <= 60; minutes += 15) {
            yield* TestClock.adjust("15 minutes")
            const { expiry } = Option.getOrThrow(yield* (yield* open).commit)
            assert.strictEqual(
              DateTime.toEpochMillis(expiry),
              Math.min(Duration.toMillis("1 hour"), Duration.toMillis({ minutes: minutes + 20 }))
            )
          }
          yield* TestClock.adjust("1 millis")
          assert.isTrue(Option.isNone(yield* (yield* open).token))
        })
      )
    )

    it.effect(
      "moves on also where another request changed the session in the meantime",
      test(() =>
        Effect.gen(function* () {
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
      )
    )
  })

  describe("get, set, update, modify", () => {
    it.effect(
      "read and change the value at once, and mark the session modified",
      test(() =>
        Effect.gen(function* () {
          const session = yield* UserSession.open()
          yield* session.set({ visits: 5 })
          yield* session.update(visit)
          assert.strictEqual(yield* session.modify((user) => [user.visits, { visits: 10 }]), 6)
          assert.deepStrictEqual(yield* session.get, { visits: 10 })
          assert.strictEqual(yield* session.status, "modified")
        })
      )
    )

    it.effect(
      "leave the session as it was where a function throws",
      test(() =>
        Effect.gen(function* () {
          const session = yield* UserSession.open()
          const fail = (): never => {
            throw new Error("no")
          }
          assert.isTrue(Exit.isFailure(yield* Effect.exit(session.update(fail))))
          assert.isTrue(Exit.isFailure(yield* Effect.exit(session.modify(fail))))
          assert.strictEqual(yield* session.status, "unmodified")
          assert.deepStrictEqual(yield* session.commit, Option.none())
        })
      )
    )
  })

  describe("clear", () => {
    it.effect(
      "goes back to the initial value and keeps token and deadline",
      test(() =>
        Effect.gen(function* () {
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
      )
    )
  })

  describe("commit", () => {
    it.effect("writes nothing for a visitor who only reads", () =>
      spied((spy, store) =>
        Effect.gen(function* () {
          const session = yield* UserSession.open()
          yield* session.get
          assert.deepStrictEqual(yield* session.commit, Option.none())
          assert.deepStrictEqual(spy.calls, [])
          assert.strictEqual(yield* store.size, 0)
        })
      )
    )

    it.effect("writes nothing for a new session whose changes changed nothing", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const session = yield* UserSession.open()
          yield* session.modify(({ userId, ...user }) => [userId, user])
          assert.deepStrictEqual(yield* session.commit, Option.none())
          assert.strictEqual(yield* session.status, "unmodified")
          assert.deepStrictEqual(spy.calls, [])
          yield* session.rememberMe(true)
          assert.isTrue(Option.isSome(yield* session.commit))
        })
      )
    )

    it.effect("writes nothing for a session that nothing was changed in, and still says what carries it", () =>
      spied((spy) =>
        Effect.gen(function* () {
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
      )
    )

    it.effect("takes one write to add a session, and one to change it", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const { open } = yield* stored(UserSession)
          assert.deepStrictEqual(spy.calls, ["commit"])
          const session = yield* open
          yield* session.update(visit)
          yield* session.update(visit)
          yield* session.commit
          assert.deepStrictEqual(spy.calls, ["commit", "find", "replace"])
        })
      )
    )

    it.effect(
      "returns a token of 32 random bytes in base64url",
      test(() =>
        Effect.gen(function* () {
          const tokens = new Set<string>()
          for (let i = 0; i < 100; i++) {
            const { token } = yield* stored(UserSession)
            assert.match(Redacted.value(token), /^[A-Za-z0-9_-]{43}$/)
            assert.strictEqual(Buffer.from(Redacted.value(token), "base64url").length, 32)
            tokens.add(Redacted.value(token))
          }
          assert.strictEqual(tokens.size, 100)
        })
      )
    )

    it.effect(
      "leaves nothing to save, until there is another change",
      test(() =>
        Effect.gen(function* () {
          const session = yield* UserSession.open()
          yield* session.update(visit)
          const token = yield* commit(session)
          assert.strictEqual(yield* session.status, "unmodified")
          yield* session.update(visit)
          assert.strictEqual(yield* session.status, "modified")
          assertSameToken(yield* commit(session), token)
          assert.strictEqual(yield* visitsOf(UserSession, token), 2)
        })
      )
    )

    it.effect(
      "applies its changes again where another request was faster",
      test(() =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          const sessions = yield* Effect.replicateEffect(open, 10)
          for (const session of sessions) yield* session.update(visit)
          for (const session of sessions) yield* session.commit
          assert.strictEqual(yield* visitsOf(UserSession, token), 11)
          assert.strictEqual((yield* (sessions[9] ?? assert.fail()).get).visits, 11)
        })
      )
    )

    it.effect(
      "applies all changes again in their order, each to the newer value",
      test(() =>
        Effect.gen(function* () {
          const { open } = yield* stored(UserSession)
          const [slow, fast] = [yield* open, yield* open]
          yield* slow.update((user) => ({ ...user, visits: user.visits * 10 }))
          assert.strictEqual(yield* slow.modify((user) => [user.visits, visit(user)]), 10)
          yield* slow.rememberMe(true)
          yield* fast.update((user) => logIn("ada")({ ...user, visits: 4 }))
          yield* fast.commit
          yield* slow.commit
          assert.deepStrictEqual(yield* (yield* open).get, { userId: "ada", visits: 41 })
          assert.isTrue(Option.getOrThrow(yield* (yield* open).commit).rememberMe)
        })
      )
    )

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
        }).pipe(Effect.provide(memory))
    )

    for (const [how, end] of [
      ["was destroyed", (session: Session.Session<typeof User.Type>) => session.destroy],
      [
        "was renewed",
        (session: Session.Session<typeof User.Type>) => Effect.andThen(session.renewToken, session.commit)
      ],
      ["has expired", () => TestClock.adjust("25 hours")]
    ] as const) {
      it.effect(`writes nothing back where the session ${how} in the meantime`, () =>
        spied((_, store) =>
          Effect.gen(function* () {
            const { open, token } = yield* stored(UserSession)
            const [slow, fast] = [yield* open, yield* open]
            yield* slow.update(logIn("ada"))
            yield* end(fast)
            assert.deepStrictEqual(yield* slow.commit, Option.none())
            assert.deepStrictEqual(yield* store.find(keyOf(token)), Option.none())
            yield* slow.update(visit)
            yield* slow.renewToken
            yield* slow.update(visit)
            assert.deepStrictEqual(yield* slow.commit, Option.none())
            assert.strictEqual((yield* slow.get).userId, "ada")
            const left = [...HashMap.values(yield* store.all)].map((data) => new TextDecoder().decode(data))
            assert.isFalse(left.some((data) => data.includes("ada")))
          })
        )
      )
    }

    it.effect("keeps the changes where the store fails, to be committed again", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const session = yield* UserSession.open()
          yield* session.update(visit)
          spy.failing.add("commit")
          assert.instanceOf(yield* Effect.flip(session.commit), SessionStoreError)
          assert.strictEqual(yield* session.status, "modified")
          spy.failing.clear()
          const token = yield* commit(session)
          yield* session.update(visit)
          spy.failing.add("replace")
          assert.instanceOf(yield* Effect.flip(session.commit), SessionStoreError)
          spy.failing.clear()
          yield* session.commit
          assert.strictEqual(yield* visitsOf(UserSession, token), 2)
        })
      )
    )

    it.effect("makes one session of a new one that two fibers commit", () =>
      spied((spy, store) =>
        Effect.gen(function* () {
          spy.latch = Effect.yieldNow
          const session = yield* UserSession.open()
          yield* session.update(visit)
          const [one, two] = yield* Effect.all([commit(session), commit(session)], { concurrency: 2 })
          assertSameToken(one, two)
          assert.strictEqual(yield* store.size, 1)
        })
      )
    )

    it.effect("loses no change that is made while it waits for the store", () =>
      spied((spy) =>
        Effect.gen(function* () {
          for (const session of [yield* UserSession.open(), yield* (yield* stored(UserSession)).open]) {
            const before = (yield* session.get).visits
            const latch = yield* Deferred.make<void>()
            yield* session.update(visit)
            spy.latch = Deferred.await(latch)
            const fiber = yield* Effect.forkChild(session.commit, { startImmediately: true })
            yield* session.update(visit)
            yield* Deferred.succeed(latch, undefined)
            yield* Fiber.join(fiber)
            spy.latch = Effect.void
            assert.strictEqual(yield* session.status, "modified")
            assert.strictEqual(yield* visitsOf(UserSession, Option.getOrThrow(yield* session.token)), before + 1)
            assert.strictEqual(yield* visitsOf(UserSession, yield* commit(session)), before + 2)
          }
        })
      )
    )

    it.effect("can be given up while the store hangs", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const session = yield* UserSession.open()
          yield* session.update(visit)
          spy.latch = Effect.never
          const fiber = yield* Effect.forkChild(session.commit, { startImmediately: true })
          yield* Fiber.interrupt(fiber)
          spy.latch = Effect.void
          assert.strictEqual(yield* visitsOf(UserSession, yield* commit(session)), 1)
        })
      )
    )

    it.effect("is done to the end where its caller cannot be interrupted, as in a finalizer", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          spy.latch = Effect.yieldNow
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
      )
    )

    it.effect(
      "applies its changes to the newer value also where they come to what was loaded",
      test(() =>
        Effect.gen(function* () {
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
      )
    )

    it.effect("counts a change once that is made while a write is under way which then conflicts", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          const [slow, fast] = [yield* open, yield* open]
          yield* slow.update(visit)
          const latch = yield* Deferred.make<void>()
          spy.latch = Deferred.await(latch)
          const fiber = yield* Effect.forkChild(slow.commit, { startImmediately: true })
          yield* slow.update(visit)
          spy.latch = Effect.void
          yield* fast.update(visit)
          yield* fast.commit
          yield* Deferred.succeed(latch, undefined)
          yield* Fiber.join(fiber)
          assert.strictEqual(yield* visitsOf(UserSession, token), 3)
          yield* slow.commit
          assert.strictEqual(yield* visitsOf(UserSession, token), 4)
        })
      )
    )

    it.effect(
      "saves nothing of a new session that is past its deadline by then",
      test(() =>
        Effect.gen(function* () {
          const session = yield* UserSession.open()
          yield* session.update(visit)
          yield* TestClock.adjust("25 hours")
          assert.deepStrictEqual(yield* session.commit, Option.none())
          assert.strictEqual(yield* (yield* MemStore).size, 0)
        })
      )
    )

    it.effect(
      "ends a new session that is past its deadline by then: nothing of it is saved any more, whatever is done to it",
      test(() =>
        Effect.gen(function* () {
          const later = DateTime.makeUnsafe(Duration.toMillis("30 days"))
          const endings = [
            (session: Session.Session<typeof User.Type>) => session.update(visit),
            (session: Session.Session<typeof User.Type>) => session.setDeadline(later),
            (session: Session.Session<typeof User.Type>) => session.renewToken
          ]
          for (const doMore of endings) {
            const session = yield* UserSession.open()
            yield* session.update(visit)
            yield* TestClock.adjust("25 hours")
            yield* session.commit
            assert.strictEqual(yield* session.status, "unmodified")
            assert.deepStrictEqual(yield* session.get, { visits: 1 })
            yield* doMore(session)
            assert.deepStrictEqual(yield* session.commit, Option.none())
          }
          assert.strictEqual(yield* (yield* MemStore).size, 0)
        })
      )
    )

    it.effect(
      "says that the expiry is new where an idle timeout is taken away or added",
      test(() =>
        Effect.gen(function* () {
          const taken = yield* (yield* stored(IdleSession)).open
          yield* taken.setIdleTimeout(Duration.infinity)
          assert.isTrue(Option.getOrThrow(yield* taken.commit).isExpiryNew)
          const added = yield* (yield* stored(UserSession)).open
          yield* added.setIdleTimeout("5 minutes")
          assert.isTrue(Option.getOrThrow(yield* added.commit).isExpiryNew)
        })
      )
    )

    it.effect(
      "saves a change that was made in place once, also after another request was faster",
      test(() =>
        Effect.gen(function* () {
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
      )
    )

    it.effect(
      "dies where the value has no JSON, so that it could never be opened",
      test(() =>
        Effect.gen(function* () {
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
      )
    )

    it.effect(
      "dies where the value does not fit its schema, and says where but not what it is",
      test(() =>
        Effect.gen(function* () {
          const session = yield* UserSession.open()
          yield* session.set({ visits: 47.11 })
          const exit = yield* Effect.exit(session.commit)
          const message = String(Exit.isFailure(exit) ? Cause.squash(exit.cause) : exit)
          assert.include(message, "TypeError: test/UserSession: the value does not fit its schema")
          assert.include(message, "visits")
          assert.notInclude(message, "47")
        })
      )
    )

    it.effect(
      "says what is new since the session was opened, however often it was committed since",
      test(() =>
        Effect.gen(function* () {
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
          yield* second.rememberMe(true)
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
      )
    )

    it.effect(
      "leaves the value in memory as it is where the session has ended",
      test(() =>
        Effect.gen(function* () {
          const { open } = yield* stored(UserSession)
          const [slow, fast] = [yield* open, yield* open]
          yield* fast.destroy
          for (let visits = 2; visits <= 4; visits++) {
            yield* slow.update(visit)
            yield* slow.commit
            assert.strictEqual((yield* slow.get).visits, visits)
          }
        })
      )
    )

    it.effect("applies no change twice that is made while it waits to try again", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          const [slow, fast] = [yield* open, yield* open]
          yield* fast.update(visit)
          yield* slow.update(visit)
          const latch = yield* Deferred.make<void>()
          spy.latch = Deferred.await(latch)
          const fiber = yield* Effect.forkChild(slow.commit, { startImmediately: true })
          spy.latch = Effect.void
          yield* fast.commit
          yield* slow.update(visit)
          yield* Deferred.succeed(latch, undefined)
          yield* Fiber.join(fiber)
          assert.strictEqual((yield* slow.get).visits, 4)
          assert.strictEqual(yield* visitsOf(UserSession, token), 3)
          yield* slow.commit
          assert.strictEqual(yield* visitsOf(UserSession, token), 4)
        })
      )
    )

    it.effect(
      "leaves the data as another deployment wrote it, byte for byte, where only the expiry moves on",
      test(() =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(IdleSession)
          const store = yield* SessionStore
          const written = {
            session: "test/IdleSession",
            value: { more: true, visits: 1 },
            version: 1,
            deadline: 3_600_000
          }
          const data = bytes(JSON.stringify(written, null, 2))
          yield* store.commit(keyOf(token), data, DateTime.makeUnsafe(Duration.toMillis("20 minutes")))
          yield* TestClock.adjust("15 minutes")
          yield* (yield* open).commit
          yield* TestClock.adjust("15 minutes")
          assert.deepStrictEqual(yield* store.find(keyOf(token)), Option.some(data))
        })
      )
    )

    it.effect(
      "adds a session whose deadline is this very millisecond",
      test(() =>
        Effect.gen(function* () {
          const session = yield* UserSession.open()
          yield* session.setDeadline(yield* DateTime.now)
          assert.strictEqual(yield* visitsOf(UserSession, yield* commit(session)), 0)
          assert.strictEqual(yield* (yield* MemStore).size, 1)
        })
      )
    )

    it.effect("can be given up while it waits for another", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const session = yield* (yield* stored(UserSession)).open
          yield* session.update(visit)
          spy.latch = Effect.never
          const first = yield* Effect.forkChild(session.commit, { startImmediately: true })
          const second = yield* Effect.forkChild(session.commit, { startImmediately: true })
          yield* Fiber.interrupt(second)
          yield* Fiber.interrupt(first)
        })
      )
    )

    it.effect("can be given up while the store hangs, as can all that asks it for something", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const other = yield* stored(UserSession)
          const { open, token } = yield* stored(UserSession)
          const session = yield* open
          yield* session.update(visit)
          spy.latch = Effect.never
          for (const act of [
            session.commit,
            session.renewToken,
            session.destroy,
            session.merge(other.token, (mine) => mine)
          ]) {
            const fiber = yield* Effect.forkChild(Effect.asVoid(act), { startImmediately: true })
            yield* Fiber.interrupt(fiber)
          }
          spy.latch = Effect.void
          assert.strictEqual(yield* visitsOf(UserSession, token), 1)
        })
      )
    )
  })

  describe("renewToken", () => {
    it.effect(
      "ends the old token at once and keeps the value under a new one",
      test(() =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          const session = yield* open
          yield* session.renewToken
          assert.strictEqual(yield* visitsOf(UserSession, token), 0)
          assert.deepStrictEqual(yield* session.token, Option.none())
          assert.strictEqual(yield* session.status, "modified")
          yield* session.update(logIn("ada"))
          const renewed = yield* commit(session)
          assert.notStrictEqual(Redacted.value(renewed), Redacted.value(token))
          assert.deepStrictEqual(yield* (yield* UserSession.open(renewed)).get, { userId: "ada", visits: 1 })
        })
      )
    )

    it.effect(
      "starts the lifetime anew, for a new session too",
      test(() =>
        Effect.gen(function* () {
          const { open } = yield* stored(UserSession)
          const sessions = [yield* UserSession.open(), yield* open]
          yield* TestClock.adjust("3 hours")
          for (const session of sessions) {
            yield* session.renewToken
            assert.strictEqual(DateTime.toEpochMillis(yield* session.deadline), Duration.toMillis("27 hours"))
          }
        })
      )
    )

    it.effect("writes nothing for a new session that nothing was changed in", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const session = yield* UserSession.open()
          yield* session.renewToken
          assert.deepStrictEqual(yield* session.commit, Option.none())
          yield* session.update(visit)
          yield* session.renewToken
          assert.strictEqual(yield* visitsOf(UserSession, yield* commit(session)), 1)
          assert.deepStrictEqual(spy.calls, ["commit", "find"])
        })
      )
    )

    it.effect(
      "keeps its own changes and those that another request committed before it",
      test(() =>
        Effect.gen(function* () {
          const { open } = yield* stored(UserSession)
          const [slow, fast] = [yield* open, yield* open]
          yield* slow.update(logIn("ada"))
          yield* fast.update(visit)
          yield* fast.commit
          yield* slow.renewToken
          const token = yield* commit(slow)
          assert.deepStrictEqual(yield* (yield* UserSession.open(token)).get, { userId: "ada", visits: 2 })
        })
      )
    )

    for (const when of ["before", "after"] as const) {
      it.effect(
        `is ended by a log-out that comes before its commit, of a session that was opened ${when} it`,
        test(() =>
          Effect.gen(function* () {
            const { open } = yield* stored(UserSession)
            const renewing = yield* open
            const early = yield* open
            yield* renewing.renewToken
            yield* renewing.update(logIn("ada"))
            const leaving = when === "before" ? early : yield* open
            assert.strictEqual((yield* leaving.get).visits, when === "before" ? 1 : 0)
            yield* leaving.destroy
            assert.deepStrictEqual(yield* renewing.commit, Option.none())
            assert.strictEqual(yield* Stream.runCount(UserSession.sessions), 0)
            assert.strictEqual(yield* renewing.status, "unmodified")
          })
        )
      )
    }

    it.effect(
      "is ended by a log-out that comes before its commit, also where the old deadline passes in between",
      test(() =>
        Effect.gen(function* () {
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
      )
    )

    it.effect(
      "can be found and ended among all sessions before its commit, and is one session after it",
      test(() =>
        Effect.gen(function* () {
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
      )
    )

    it.effect(
      "has ten minutes until its commit, and has ended after them",
      test(() =>
        Effect.gen(function* () {
          for (const [minutes, isSaved] of [
            [10, true],
            [11, false]
          ] as const) {
            const session = yield* (yield* stored(UserSession)).open
            yield* session.renewToken
            yield* TestClock.adjust({ minutes })
            assert.strictEqual(Option.isSome(yield* session.commit), isSaved)
          }
        })
      )
    )

    it.effect(
      "leaves the old token dead also where all sessions are listed and changed before its commit",
      test(() =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          const session = yield* open
          yield* session.renewToken
          yield* session.update(logIn("ada"))
          yield* Stream.runForEach(UserSession.sessions, (listed) =>
            Effect.andThen(listed.update(visit), listed.commit)
          )
          assert.strictEqual(yield* visitsOf(UserSession, token), 0)
          const renewed = yield* commit(session)
          assert.strictEqual(yield* visitsOf(UserSession, token), 0)
          assert.deepStrictEqual(yield* (yield* UserSession.open(renewed)).get, { userId: "ada", visits: 1 })
          assert.strictEqual(yield* Stream.runCount(UserSession.sessions), 1)
        })
      )
    )

    type Use = (
      listed: Session.Session<typeof User.Type>
    ) => Effect.Effect<Option.Option<Session.Committed>, Session.SessionError>

    const listedBeforeCommit = <Self, Id extends string>(
      Class: Session.ServiceClass<Self, Id, typeof User.Type>,
      use: Use
    ) =>
      Effect.gen(function* () {
        const session = yield* (yield* stored(Class)).open
        yield* session.renewToken
        const id = yield* Effect.map(Stream.runCollect(Class.sessions), ([listed]) => listed?.id ?? Effect.succeedNone)
        assert.isTrue(Option.isSome(yield* id))
        yield* Stream.runForEach(Class.sessions, (listed) =>
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* listed.token, Option.none())
            assert.deepStrictEqual(yield* use(listed), Option.none())
          })
        )
        const renewed = yield* commit(session)
        assert.strictEqual(yield* visitsOf(Class, renewed), 1)
        assert.strictEqual(yield* Stream.runCount(Class.sessions), 1)
      })

    for (const [how, use] of [
      ["committed", ({ commit }) => commit],
      ["changed", ({ commit, update }) => Effect.andThen(update(visit), commit)],
      ["renewed", ({ commit, renewToken }) => Effect.andThen(renewToken, commit)],
      ["given a deadline", ({ commit, setDeadline }) => Effect.andThen(setDeadline(DateTime.makeUnsafe(0)), commit)]
    ] satisfies ReadonlyArray<readonly [string, Use]>) {
      it.effect(
        `saves the session all the same where it is listed and ${how} before its commit`,
        test(() =>
          Effect.gen(function* () {
            yield* listedBeforeCommit(UserSession, use)
            yield* listedBeforeCommit(IdleSession, use)
            yield* listedBeforeCommit(PlainSession, use)
          })
        )
      )
    }

    it.effect(
      "is ended by a log-out of a session that was open already, also after a commit which found it ended",
      test(() =>
        Effect.gen(function* () {
          const { open } = yield* stored(UserSession)
          const [session, other] = [yield* open, yield* open]
          yield* session.renewToken
          yield* other.update(visit)
          yield* other.commit
          yield* other.destroy
          assert.isTrue(Option.isNone(yield* other.id))
          assert.deepStrictEqual(yield* session.commit, Option.none())
          assert.isTrue(Option.isNone(yield* session.id))
          assert.strictEqual(yield* (yield* MemStore).size, 0)
        })
      )
    )

    it.effect(
      "writes the session anew also where its value is the initial one",
      test(() =>
        Effect.gen(function* () {
          const session = yield* (yield* stored(UserSession)).open
          yield* session.clear
          yield* session.commit
          yield* session.renewToken
          assert.isTrue(Option.isSome(yield* session.commit))
        })
      )
    )

    it.effect("never lets changes be saved under the old token where it failed", () =>
      spied((spy, store) =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          const session = yield* open
          yield* session.update(logIn("victim"))
          spy.failing.add("replace")
          assert.instanceOf(yield* Effect.flip(session.renewToken), SessionStoreError)
          assert.instanceOf(yield* Effect.flip(session.commit), SessionStoreError)
          spy.failing.clear()
          const renewed = yield* commit(session)
          assert.notStrictEqual(Redacted.value(renewed), Redacted.value(token))
          assert.strictEqual((yield* (yield* UserSession.open(token)).get).userId, undefined)
          assert.strictEqual((yield* (yield* UserSession.open(renewed)).get).userId, "victim")
          assert.strictEqual(HashMap.size(yield* store.all), 1)
        })
      )
    )

    it.effect(
      "gives one of two requests that renew the same session a new token, and the other none",
      test(() =>
        Effect.gen(function* () {
          const { open } = yield* stored(UserSession)
          const sessions = [yield* open, yield* open]
          for (const session of sessions) yield* session.renewToken
          const committed = yield* Effect.forEach(sessions, (session) => session.commit)
          assert.deepStrictEqual(committed.map(Option.isSome), [true, false])
        })
      )
    )

    it.effect(
      "renews once: later commits keep the new token",
      test(() =>
        Effect.gen(function* () {
          const session = yield* (yield* stored(UserSession)).open
          yield* session.renewToken
          const token = yield* commit(session)
          yield* session.update(visit)
          assertSameToken(yield* commit(session), token)
        })
      )
    )

    it.effect("that failed says nothing of the session that comes after a log-out", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const session = yield* (yield* stored(UserSession)).open
          spy.failing.add("replace")
          yield* Effect.flip(session.renewToken)
          spy.failing.clear()
          yield* session.destroy
          yield* session.update(visit)
          const token = yield* commit(session)
          yield* session.update(visit)
          assertSameToken(yield* commit(session), token)
        })
      )
    )

    it.effect(
      "is not undone by a commit of another request before its own",
      test(() =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          const [slow, fast] = [yield* open, yield* open]
          yield* fast.renewToken
          yield* slow.update(visit)
          assert.deepStrictEqual(yield* slow.commit, Option.none())
          assert.strictEqual(yield* visitsOf(UserSession, token), 0)
          assert.strictEqual(yield* visitsOf(UserSession, yield* commit(fast)), 1)
        })
      )
    )

    it.effect(
      "called twice brings nothing back that was logged out in between",
      test(() =>
        Effect.gen(function* () {
          const { open } = yield* stored(UserSession)
          const session = yield* open
          yield* session.renewToken
          yield* session.renewToken
          yield* (yield* open).destroy
          assert.deepStrictEqual(yield* session.commit, Option.none())
          assert.strictEqual(yield* (yield* MemStore).size, 0)
        })
      )
    )

    it.effect(
      "leaves nothing in the store for longer than ten minutes where it is not committed",
      test(() =>
        Effect.gen(function* () {
          const store = yield* MemStore
          yield* (yield* (yield* stored(UserSession)).open).renewToken
          yield* TestClock.adjust("10 minutes")
          assert.strictEqual(HashMap.size(yield* store.all), 1)
          yield* TestClock.adjust("1 millis")
          assert.strictEqual(HashMap.size(yield* store.all), 0)
        })
      )
    )
  })

  describe("destroy", () => {
    it.effect(
      "removes the session at once, and forgets its value",
      test(() =>
        Effect.gen(function* () {
          const { open } = yield* stored(UserSession)
          const session = yield* open
          yield* session.update(logIn("ada"))
          yield* session.destroy
          assert.strictEqual(yield* (yield* MemStore).size, 0)
          assert.deepStrictEqual(yield* session.get, { visits: 0 })
          assert.deepStrictEqual(yield* session.token, Option.none())
          assert.strictEqual(yield* session.status, "destroyed")
          assert.deepStrictEqual(yield* session.commit, Option.none())
          assert.strictEqual(yield* session.status, "destroyed")
        })
      )
    )

    it.effect(
      "lets what is written afterwards belong to a new session",
      test(() =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          const session = yield* open
          yield* TestClock.adjust("1 hour")
          yield* session.destroy
          yield* session.update(visit)
          assert.strictEqual(yield* session.status, "modified")
          assert.strictEqual(DateTime.toEpochMillis(yield* session.deadline), Duration.toMillis("25 hours"))
          const renewed = yield* commit(session)
          assert.notStrictEqual(Redacted.value(renewed), Redacted.value(token))
          assert.strictEqual(yield* visitsOf(UserSession, renewed), 1)
          assert.strictEqual(yield* visitsOf(UserSession, token), 0)
        })
      )
    )

    it.effect("asks nothing of the store for a session that was never committed", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const session = yield* UserSession.open()
          yield* session.update(visit)
          yield* session.destroy
          assert.deepStrictEqual(spy.calls, [])
          assert.strictEqual(yield* session.status, "destroyed")
        })
      )
    )

    it.effect("fails where the store fails, and has destroyed nothing", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const session = yield* (yield* stored(UserSession)).open
          spy.failing.add("delete")
          assert.instanceOf(yield* Effect.flip(session.destroy), SessionStoreError)
          assert.strictEqual((yield* session.get).visits, 1)
        })
      )
    )
  })

  describe("merge", () => {
    const add = (mine: typeof User.Type, other: typeof User.Type) => ({ ...mine, visits: mine.visits + other.visits })

    it.effect(
      "takes the value of another session in, and ends that one",
      test(() =>
        Effect.gen(function* () {
          const other = yield* stored(UserSession)
          yield* TestClock.adjust("1 hour")
          const { open, token } = yield* stored(UserSession)
          const session = yield* open
          const deadline = yield* session.deadline
          yield* session.merge(other.token, add)
          assert.deepStrictEqual(yield* session.get, { visits: 2 })
          assert.deepStrictEqual(yield* session.deadline, deadline)
          assert.strictEqual(yield* visitsOf(UserSession, other.token), 0)
          yield* session.commit
          assert.strictEqual(yield* visitsOf(UserSession, token), 2)
        })
      )
    )

    it.effect(
      "does nothing for a token that opens nothing, or this very session",
      test(() =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          const session = yield* open
          const foreign = yield* stored(IdleSession)
          const tokens = [...malformed, "a".repeat(43), Redacted.value(token), Redacted.value(foreign.token)]
          for (const other of tokens) yield* session.merge(Redacted.make(other), add)
          assert.strictEqual(yield* session.status, "unmodified")
          assert.strictEqual(yield* visitsOf(UserSession, token), 1)
          assert.strictEqual(yield* visitsOf(IdleSession, foreign.token), 1)
        })
      )
    )

    it.effect(
      "leaves the other session alone where the function throws",
      test(() =>
        Effect.gen(function* () {
          const other = yield* stored(UserSession)
          const session = yield* UserSession.open()
          const bug = () => {
            throw new Error("bug")
          }
          assert.isTrue(Exit.isFailure(yield* Effect.exit(session.merge(other.token, bug))))
          assert.strictEqual(yield* session.status, "unmodified")
          assert.strictEqual(yield* visitsOf(UserSession, other.token), 1)
        })
      )
    )

    it.effect("loses no update of the other session that was committed before it", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const other = yield* stored(UserSession)
          const fast = yield* other.open
          yield* fast.update(visit)
          const session = yield* UserSession.open()
          // The other request commits after the merge has found the session, and before it ends it.
          const latch = yield* Deferred.make<void>()
          spy.latch = Effect.suspend(() => (spy.calls.at(-1) === "replace" ? Deferred.await(latch) : Effect.void))
          const fiber = yield* Effect.forkChild(session.merge(other.token, add), { startImmediately: true })
          spy.latch = Effect.void
          yield* fast.commit
          yield* Deferred.succeed(latch, undefined)
          yield* Fiber.join(fiber)
          assert.deepStrictEqual(yield* session.get, { visits: 2 })
        })
      )
    )

    it.effect(
      "leaves the other session alone where this one has ended",
      test(() =>
        Effect.gen(function* () {
          const other = yield* stored(UserSession)
          const { open } = yield* stored(UserSession)
          const [slow, fast] = [yield* open, yield* open]
          yield* fast.destroy
          yield* slow.update(visit)
          yield* slow.commit
          yield* slow.merge(other.token, add)
          assert.strictEqual(yield* visitsOf(UserSession, other.token), 1)
        })
      )
    )

    it.effect("takes nothing of a session that another request ended in the meantime", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const other = yield* stored(UserSession)
          const fast = yield* other.open
          const session = yield* UserSession.open()
          // The other request ends it after the merge has found it, and before the merge does.
          const latch = yield* Deferred.make<void>()
          spy.latch = Effect.suspend(() => (spy.calls.at(-1) === "replace" ? Deferred.await(latch) : Effect.void))
          const fiber = yield* Effect.forkChild(session.merge(other.token, add), { startImmediately: true })
          spy.latch = Effect.void
          yield* fast.destroy
          yield* Deferred.succeed(latch, undefined)
          yield* Fiber.join(fiber)
          assert.deepStrictEqual(yield* session.get, { visits: 0 })
          assert.strictEqual(yield* session.status, "unmodified")
        })
      )
    )

    it.effect("fails where the store fails, and has changed nothing", () =>
      spied((spy) =>
        Effect.gen(function* () {
          const other = yield* stored(UserSession)
          const session = yield* UserSession.open()
          for (const operation of ["find", "replace"]) {
            spy.failing.add(operation)
            assert.instanceOf(yield* Effect.flip(session.merge(other.token, add)), SessionStoreError)
            spy.failing.clear()
          }
          assert.strictEqual(yield* session.status, "unmodified")
          assert.strictEqual(yield* visitsOf(UserSession, other.token), 1)
        })
      )
    )

    it.effect(
      "leaves nothing of the other session in the store",
      test(() =>
        Effect.gen(function* () {
          const other = yield* stored(UserSession)
          yield* (yield* UserSession.open()).merge(other.token, add)
          assert.strictEqual(HashMap.size(yield* (yield* MemStore).all), 0)
        })
      )
    )
  })

  describe("rememberMe", () => {
    it.effect(
      "is kept with the session",
      test(() =>
        Effect.gen(function* () {
          const { open } = yield* stored(UserSession)
          for (const rememberMe of [true, false]) {
            const session = yield* open
            yield* session.rememberMe(rememberMe)
            yield* session.commit
            const committed = Option.getOrThrow(yield* (yield* open).commit)
            assert.strictEqual(committed.rememberMe, rememberMe)
            assert.isFalse(committed.isRememberMeNew)
          }
        })
      )
    )
  })

  describe("setDeadline", () => {
    it.effect(
      "moves the end of the session",
      test(() =>
        Effect.gen(function* () {
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
      )
    )

    it.effect(
      "ends the session at the commit where it is in the past",
      test(() =>
        Effect.gen(function* () {
          yield* TestClock.adjust("1 hour")
          const { open } = yield* stored(UserSession)
          const session = yield* open
          yield* session.setDeadline(DateTime.makeUnsafe(0))
          yield* session.commit
          assert.deepStrictEqual(yield* (yield* open).token, Option.none())
        })
      )
    )

    it.effect(
      "takes one between two milliseconds for the later",
      test(() =>
        Effect.gen(function* () {
          const { open } = yield* stored(UserSession)
          const session = yield* open
          yield* session.setDeadline(DateTime.addDuration(DateTime.makeUnsafe(3_600_000), "500 micros"))
          yield* session.commit
          assert.strictEqual(DateTime.toEpochMillis(yield* (yield* open).deadline), 3_600_001)
        })
      )
    )
  })

  describe("setIdleTimeout", () => {
    it.effect(
      "gives one session an idle timeout of its own, and keeps it with the session",
      test(() =>
        Effect.gen(function* () {
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
      )
    )

    it.effect(
      "takes the idle timeout of the class away where it is infinite",
      test(() =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(IdleSession)
          const session = yield* open
          yield* session.setIdleTimeout(Duration.infinity)
          yield* session.commit
          yield* TestClock.adjust("1 hour")
          assert.strictEqual(yield* visitsOf(IdleSession, token), 1)
        })
      )
    )

    it.effect(
      "dies where it is no duration longer than zero",
      test(() =>
        Effect.gen(function* () {
          const session = yield* UserSession.open()
          for (const input of [0, -1, Number.NaN]) {
            const exit = yield* Effect.exit(session.setIdleTimeout(input))
            const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
            assert.instanceOf(defect, TypeError)
            assert.match(defect.message, /^test\/UserSession: the idle timeout is no duration longer than zero: /)
          }
          assert.strictEqual(yield* session.status, "unmodified")
        })
      )
    )
  })

  describe("token", () => {
    it.effect(
      "is in the store as its SHA-256 alone, which is the id",
      test(() =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          const keys = [...HashMap.keys(yield* (yield* SessionStore).all)]
          assert.deepStrictEqual(keys, [keyOf(token)])
          assert.deepStrictEqual(yield* (yield* open).id, Option.some(keyOf(token)))
        })
      )
    )

    it.effect(
      "opens nothing in the form in which the store has it",
      test(() =>
        Effect.gen(function* () {
          const { token } = yield* stored(UserSession)
          assert.strictEqual(yield* visitsOf(UserSession, Redacted.make(keyOf(token))), 0)
        })
      )
    )

    it.effect(
      "is in the store as it is where hashToken is off, and the id is its SHA-256 all the same",
      test(() =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(PlainSession)
          const keys = [...HashMap.keys(yield* (yield* SessionStore).all)]
          assert.deepStrictEqual(keys, [Redacted.value(token)])
          assert.deepStrictEqual(yield* (yield* open).id, Option.some(keyOf(token)))
          assert.strictEqual(yield* visitsOf(PlainSession, token), 1)
        })
      )
    )

    it.effect(
      "is not shown by a session that is printed, nor is the value",
      test(() =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          const session = yield* open
          yield* session.update(logIn("ada"))
          const printed = inspect(session, { depth: 10, showHidden: true }) + JSON.stringify(session) + String(session)
          for (const secret of [Redacted.value(token), keyOf(token), "ada"]) assert.notInclude(printed, secret)
        })
      )
    )

    it.effect(
      "is redacted wherever it is printed",
      test(() =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          const session = yield* open
          const printed = [
            String(yield* session.token),
            JSON.stringify(yield* session.token),
            JSON.stringify(yield* session.commit)
          ].join()
          assert.notInclude(printed, Redacted.value(token))
          assert.include(printed, "<redacted:session token>")
        })
      )
    )
  })

  describe("sessions", () => {
    it.effect(
      "has every active session of the class, each of which can be read, changed and destroyed",
      test(() =>
        Effect.gen(function* () {
          const tokens = yield* Effect.replicateEffect(
            Effect.map(stored(UserSession), ({ token }) => token),
            3
          )
          yield* stored(IdleSession)
          const listed = yield* Stream.runCollect(UserSession.sessions)
          const ids = yield* Effect.forEach(listed, (session) => session.id)
          assert.deepStrictEqual(new Set(ids.map(Option.getOrThrow)), new Set(tokens.map(keyOf)))
          for (const session of listed) assert.deepStrictEqual(yield* session.get, { visits: 1 })

          const [first, second] = listed
          assert.isDefined(first)
          assert.isDefined(second)
          yield* first.destroy
          yield* second.update(visit)
          assert.deepStrictEqual(yield* second.commit, Option.none())
          const visits = yield* Effect.forEach(tokens, (token) => visitsOf(UserSession, token))
          assert.deepStrictEqual(visits.sort(), [0, 1, 2])
        })
      )
    )

    it.effect(
      "has the token where the store has it",
      test(() =>
        Effect.gen(function* () {
          const hashed = yield* stored(UserSession)
          const plain = yield* stored(PlainSession)
          assert.isDefined(hashed)
          const [one] = yield* Stream.runCollect(UserSession.sessions)
          const [two] = yield* Stream.runCollect(PlainSession.sessions)
          assert.deepStrictEqual(yield* (one ?? assert.fail()).token, Option.none())
          assertSameToken(Option.getOrThrow(yield* (two ?? assert.fail()).token), plain.token)
        })
      )
    )

    it.effect("keeps no session from going idle", () =>
      spied((spy) =>
        Effect.gen(function* () {
          yield* stored(IdleSession)
          spy.calls.length = 0
          assert.strictEqual(yield* Stream.runCount(IdleSession.sessions), 1)
          assert.deepStrictEqual(spy.calls, [])
        })
      )
    )

    it.effect(
      "leaves out what does not decode, or fails where the class says so",
      test(() =>
        Effect.gen(function* () {
          yield* stored(UserSession)
          assert.strictEqual(yield* Stream.runCount(NewerSession.sessions), 0)
          const error = yield* Effect.flip(Stream.runCount(StrictSession.sessions))
          assert.instanceOf(error, Session.SessionDecodeError)
        })
      )
    )
  })

  describe("data that does not decode", () => {
    it.effect(
      "opens a new session, with one warning that shows neither data nor token",
      test(() =>
        withLog((logged) =>
          Effect.gen(function* () {
            const { open, token } = yield* stored(UserSession)
            yield* (yield* open).update(logIn("ada"))
            const session = yield* NewerSession.open(token)
            assert.deepStrictEqual(yield* session.get, { user: "nobody" })
            assert.deepStrictEqual(yield* session.token, Option.none())
            assert.deepStrictEqual(logged, [undecodableWarning])
          })
        )
      )
    )

    it.effect(
      "is removed when the new session is committed, renewed or destroyed, and not before",
      test(() =>
        Effect.gen(function* () {
          const store = yield* MemStore
          const ends = [
            (session: Session.Session<{ readonly user: string }>) =>
              Effect.andThen(session.set({ user: "ada" }), session.commit),
            (session: Session.Session<{ readonly user: string }>) => session.destroy,
            (session: Session.Session<{ readonly user: string }>) => session.renewToken
          ]
          for (const end of ends) {
            const { token } = yield* stored(UserSession)
            const session = yield* NewerSession.open(token)
            yield* session.commit
            assert.isTrue(Option.isSome(yield* store.find(keyOf(token))))
            yield* end(session)
            assert.isTrue(Option.isNone(yield* store.find(keyOf(token))))
          }
        })
      )
    )

    it.effect(
      "fails where the class says so, with an error that shows neither data nor token",
      test(() =>
        Effect.gen(function* () {
          const { token } = yield* stored(UserSession)
          const store = yield* SessionStore
          const expiry = DateTime.add(yield* DateTime.now, { hours: 1 })
          const envelope = { version: 1, session: "test/UserSession", deadline: 4711, value: { user: "secret" } }
          const broken = [
            bytes(JSON.stringify({ ...envelope, value: { user: 4711 } })),
            bytes(JSON.stringify({ ...envelope, version: 2 })),
            bytes(JSON.stringify({ ...envelope, deadline: "4711" })),
            bytes("secret"),
            bytes(""),
            new Uint8Array([0x22, 0xff, 0x22])
          ]
          for (const data of broken) {
            yield* store.commit(keyOf(token), data, expiry)
            const error = yield* Effect.flip(StrictSession.open(token))
            assert.instanceOf(error, Session.SessionDecodeError)
            assert.strictEqual(error.message, "test/UserSession: a session in the store does not decode")
            const printed = `${JSON.stringify(error)} ${error.stack} ${String(error.cause)}`
            for (const secret of ["secret", "4711", Redacted.value(token), keyOf(token)]) {
              assert.notInclude(printed, secret)
            }
          }
          for (const [where, data] of [
            ['at ["value"]["user"]', JSON.stringify({ ...envelope, value: { user: 4711 } })],
            ['at ["deadline"]', JSON.stringify({ ...envelope, deadline: "4711" })],
            ["The data is no JSON in UTF-8", "secret"]
          ] as const) {
            yield* store.commit(keyOf(token), bytes(data), expiry)
            assert.include(String((yield* Effect.flip(StrictSession.open(token))).cause), where)
          }
          yield* store.commit(keyOf(token), bytes(JSON.stringify(envelope)), expiry)
          assert.deepStrictEqual(yield* (yield* StrictSession.open(token)).get, { user: "secret" })
        })
      )
    )

    it.effect(
      "ends a session that another deployment rewrote in the meantime",
      test(() =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          const session = yield* open
          const store = yield* SessionStore
          const data = bytes(JSON.stringify({ version: 1, session: "test/UserSession", deadline: 1, value: {} }))
          yield* store.commit(keyOf(token), data, DateTime.add(yield* DateTime.now, { hours: 1 }))
          yield* session.update(visit)
          assert.deepStrictEqual(yield* session.commit, Option.none())
          assert.deepStrictEqual(yield* store.find(keyOf(token)), Option.some(data))
        })
      )
    )

    it.effect(
      "is not read with other characters in the place of bytes that are no UTF-8",
      test(() =>
        Effect.gen(function* () {
          const { token } = yield* stored(UserSession)
          const envelope = { version: 1, session: "test/UserSession", deadline: 4711, value: { user: "?" } }
          const data = bytes(JSON.stringify(envelope))
          data[data.indexOf("?".charCodeAt(0))] = 0xff
          yield* (yield* SessionStore).commit(keyOf(token), data, DateTime.add(yield* DateTime.now, { hours: 1 }))
          assert.instanceOf(yield* Effect.flip(StrictSession.open(token)), Session.SessionDecodeError)
        })
      )
    )

    it.effect(
      "is not what an unknown token names, nor a session that has ended",
      test(() =>
        Effect.gen(function* () {
          const first = yield* StrictSession.open(Redacted.make("a".repeat(43)))
          yield* first.set({ user: "ada" })
          const token = yield* commit(first)
          const [slow, fast] = [yield* StrictSession.open(token), yield* StrictSession.open(token)]
          yield* fast.destroy
          yield* slow.set({ user: "grace" })
          assert.deepStrictEqual(yield* slow.commit, Option.none())
        })
      )
    )

    it.effect(
      "is merged as nothing, with a warning, or fails the merge where the class says so",
      test(() =>
        withLog((logged) =>
          Effect.gen(function* () {
            const { token } = yield* stored(UserSession)
            const combine = <A>(_: A, other: A) => other
            const session = yield* NewerSession.open()
            yield* session.merge(token, combine)
            assert.strictEqual(yield* session.status, "unmodified")
            assert.deepStrictEqual(logged, [undecodableWarning])
            const strict = yield* StrictSession.open()
            assert.instanceOf(yield* Effect.flip(strict.merge(token, combine)), Session.SessionDecodeError)
            assert.strictEqual(yield* visitsOf(UserSession, token), 1)
          })
        )
      )
    )
  })

  describe("the format in the store", () => {
    it.effect(
      "is versioned JSON with the fields that the module documents",
      test(() =>
        Effect.gen(function* () {
          const read = (token: Redacted.Redacted<string>) =>
            Effect.map(
              Effect.flatMap(SessionStore, (store) => store.find(keyOf(token))),
              (data) => JSON.parse(new TextDecoder().decode(Option.getOrThrow(data)))
            )
          const { open, token } = yield* stored(UserSession)
          const bare = {
            version: 1,
            session: "test/UserSession",
            deadline: Duration.toMillis("24 hours"),
            value: { visits: 1 }
          }
          assert.deepStrictEqual(yield* read(token), bare)

          const session = yield* open
          yield* session.rememberMe(true)
          yield* session.setIdleTimeout("5 minutes")
          yield* session.commit
          assert.deepStrictEqual(yield* read(token), { ...bare, rememberMe: true, idleTimeout: 300_000 })
          yield* session.setIdleTimeout(Duration.infinity)
          yield* session.commit
          assert.deepStrictEqual(yield* read(token), { ...bare, rememberMe: true, idleTimeout: null })
        })
      )
    )

    it.effect(
      "encodes the value by its schema",
      test(() =>
        Effect.gen(function* () {
          class Dated extends Session.Service<Dated>()("test/Dated", {
            schema: Schema.Struct({ since: Schema.DateTimeUtc, name: Schema.String }),
            initial: () => ({ since: DateTime.makeUnsafe(0), name: "" })
          }) {}
          const session = yield* Dated.open()
          const value = { since: DateTime.makeUnsafe(47), name: "Zoë 🎈" }
          yield* session.set(value)
          const token = yield* commit(session)
          assert.deepStrictEqual(yield* (yield* Dated.open(token)).get, value)
        })
      )
    )
  })

  describe("spans", () => {
    it.effect(
      "name the class and what is done, and show neither token nor value",
      test(() =>
        withSpans((spans) =>
          Effect.gen(function* () {
            const { open } = yield* stored(UserSession)
            const session = yield* open
            yield* session.update(logIn("ada"))
            yield* session.commit
            assert.deepStrictEqual(
              spans.map(({ name }) => name),
              ["Session.commit", "Session.open", "Session.commit"]
            )
            for (const { attributes, events } of spans) {
              assert.deepStrictEqual([...attributes], [["session", "test/UserSession"]])
              assert.deepStrictEqual(events, [])
            }
          })
        )
      )
    )

    it.effect(
      "are made of what asks something of the store, and of nothing else",
      test(() =>
        withSpans((spans) =>
          Effect.gen(function* () {
            const names = () => spans.splice(0).map(({ name }) => name)
            yield* (yield* UserSession.open()).commit
            assert.deepStrictEqual(names(), [])
            const { open } = yield* stored(UserSession)
            yield* (yield* open).commit
            assert.deepStrictEqual(names(), ["Session.commit", "Session.open"])
            const idle = yield* stored(IdleSession)
            yield* (yield* idle.open).commit
            assert.deepStrictEqual(names(), ["Session.commit", "Session.open", "Session.commit"])
          })
        )
      )
    )
  })

  describe("metrics", () => {
    it.effect(
      "count by class what was created, destroyed, tried again and not decoded",
      test(() =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          const [slow, fast] = [yield* open, yield* open]
          for (const session of [slow, fast]) {
            yield* session.update(visit)
            yield* session.commit
          }
          yield* NewerSession.open(token)
          yield* slow.destroy
          const metrics = (yield* Metric.snapshot).filter(
            ({ attributes }) => attributes?.session === "test/UserSession"
          )
          assert.isTrue(metrics.every(({ state }) => "incremental" in state && state.incremental))
          const counts = metrics.map(({ id, state }) => [id, "count" in state ? state.count : state] as const)
          assert.deepStrictEqual(Object.fromEntries(counts), {
            sessions_created: 1,
            session_conflicts: 1,
            sessions_undecodable: 1,
            sessions_destroyed: 1
          })
        }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
      )
    )
  })
})

describe("SessionDecodeError", () => {
  it("can be told from other errors by its tag", () => {
    const error = new Session.SessionDecodeError({ session: "test", cause: new Error("no") })
    expect(error).toMatchObject({ _tag: "SessionDecodeError", session: "test" })
  })
})
