import { inspect } from "node:util"
import { assert, describe, expect, expectTypeOf, it } from "@effect/vitest"
import { DateTime, Duration, Effect, HashMap, Option, Redacted, Schema } from "effect"
import { TestClock } from "effect/testing"
import { MemStore, Session, SessionStore, SessionStoreError } from "effect-sessions"
import { withLog } from "../telemetry.ts"
import {
  activeFields,
  assertSameToken,
  commit,
  fieldsAt,
  IdleSession,
  keyOf,
  logIn,
  malformed,
  NameSession,
  NewerSession,
  nobody,
  StrictSession,
  stored,
  test,
  User,
  type UserHandle,
  UserSession,
  visit,
  visitsOf
} from "./fixtures.ts"
import { VirtualStore } from "./virtualStore.ts"

const undecodableWarning =
  "Warn: test/UserSession: a session in the store does not decode; it is taken as ended. If its schema changed, give new " +
  'fields a default, such as by Schema.withDecodingDefaultKey; the class option undecodable: "fail" tells where it ' +
  "does not fit"

const brokenFields = ["createdAt", "issuedAt", "usedAt", "deadline", "idleTimeout", "rememberMe", "pending"] as const

describe("Session", () => {
  describe("Service", () => {
    it("is a tag under its key", () => {
      assert.strictEqual(UserSession.key, "test/UserSession")
    })

    it("has the type of the schema, also where the initial value has a narrower one", () => {
      expectTypeOf<typeof UserSession.Service.get>().toEqualTypeOf<Effect.Effect<User>>()
    })

    it("requires a store, and can fail as a session can", () => {
      expectTypeOf<ReturnType<typeof UserSession.open>>().toEqualTypeOf<
        Effect.Effect<Session.Session<User>, Session.SessionError, SessionStore>
      >()
      expectTypeOf<Session.SessionError>().toEqualTypeOf<
        SessionStoreError | Session.SessionDecodeError | Session.SessionBusyError
      >()
    })

    for (const [what, options] of [
      ["a lifetime of zero", { lifetime: 0 }],
      ["a negative lifetime", { lifetime: "-1 minutes" }],
      ["an infinite lifetime", { lifetime: Duration.infinity }],
      ["a lifetime of more than a thousand years", { lifetime: "365001 days" }],
      ["a lifetime that is no duration", { lifetime: Number.NaN }],
      ["an idle timeout of zero", { idleTimeout: 0 }],
      ["an idle timeout that is no duration", { idleTimeout: "soon" as "1 hour" }],
      ["a negative touch interval", { idleTimeout: "1 hour", touchInterval: -1 }],
      ["a touch interval that is no duration", { idleTimeout: "1 hour", touchInterval: "soon" as "1 hour" }],
      ["a touch interval that is not a number", { idleTimeout: "1 hour", touchInterval: Number.NaN }],
      ["a touch interval as long as the idle timeout", { idleTimeout: "1 hour", touchInterval: "60 minutes" }],
      ["an infinite touch interval", { idleTimeout: "1 hour", touchInterval: Duration.infinity }]
    ] as const) {
      it(`refuses ${what} and names the class`, () => {
        const make = () => Session.Service<UserSession>()("test/Refused", { schema: User, initial: nobody, ...options })
        assert.throws(make, TypeError, "test/Refused: the ")
      })
    }

    it("takes a touch interval of zero, and any where there is no idle timeout", () => {
      for (const more of [
        { idleTimeout: "1 hour", touchInterval: 0 },
        { idleTimeout: "1 hour", touchInterval: "59 minutes" },
        { idleTimeout: Duration.infinity, touchInterval: "1 hour" },
        { touchInterval: "1 hour" }
      ] as const) {
        const options = { schema: User, initial: nobody, ...more }
        assert.strictEqual(Session.Service<UserSession>()("test/Taken", options).key, "test/Taken")
      }
    })

    it("takes a lifetime of a thousand years", () => {
      const options = { schema: User, initial: nobody, lifetime: "365000 days" } as const
      assert.strictEqual(Session.Service<UserSession>()("test/Taken", options).key, "test/Taken")
    })
  })

  describe("open", () => {
    test("opens a new session where there is no token", function* () {
      const session = yield* UserSession.open()
      assert.deepStrictEqual(yield* session.get, { visits: 0 })
      assert.deepStrictEqual(yield* session.token, Option.none())
      assert.isTrue(Option.isNone(yield* session.id))
      assert.strictEqual(yield* session.status, "unmodified")
    })

    test("opens what was committed, any number of times", function* () {
      const { open, token } = yield* stored(UserSession)
      for (let i = 0; i < 2; i++) {
        const session = yield* open
        assert.deepStrictEqual(yield* session.get, { visits: 1 })
        assertSameToken(Option.getOrThrow(yield* session.token), token)
        assert.strictEqual(yield* session.status, "unmodified")
      }
    })

    test("never asks the store for what does not look like a token", function* () {
      const spy = yield* VirtualStore
      for (const token of malformed) {
        const session = yield* UserSession.open(Redacted.make(token))
        assert.deepStrictEqual(yield* session.token, Option.none())
      }
      assert.deepStrictEqual(spy.calls, [])
    })

    test("never adopts a token that the store does not know", function* () {
      const chosen = Redacted.make("a".repeat(43))
      const session = yield* UserSession.open(chosen)
      assert.deepStrictEqual(yield* session.token, Option.none())
      yield* session.update(visit)
      const token = yield* commit(session)
      assert.notStrictEqual(Redacted.value(token), Redacted.value(chosen))
      assert.strictEqual(yield* visitsOf(UserSession, chosen), 0)
      assert.strictEqual(yield* visitsOf(UserSession, token), 1)
    })

    test("opens nothing by the token of another class", function* () {
      const { token } = yield* stored(UserSession)
      const session = yield* IdleSession.open(token)
      assert.deepStrictEqual(yield* session.token, Option.none())
      yield* session.update(visit)
      yield* session.commit
      assert.strictEqual(yield* visitsOf(UserSession, token), 1)
    })

    test("fails where the store fails", function* () {
      const spy = yield* VirtualStore
      const { open } = yield* stored(UserSession)
      spy.failing.add("find")
      assert.instanceOf(yield* Effect.flip(open), SessionStoreError)
    })

    test("warns once of a token of another class, without showing it", () =>
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
      ))

    test("takes the session of another class, whatever its schema, for none, and leaves it alone", function* () {
      const store = yield* MemStore
      const { token } = yield* stored(UserSession)
      const session = yield* NameSession.open(token)
      assert.deepStrictEqual(yield* session.get, { user: "nobody" })
      yield* session.set({ user: "ada" })
      yield* session.commit
      assert.strictEqual(yield* store.size, 2)
      assert.strictEqual(yield* visitsOf(UserSession, token), 1)
    })
  })

  describe("a session", () => {
    test("works also where its operations are taken off it", function* () {
      const { commit, get, modify, set, update } = yield* UserSession.open()
      yield* set({ visits: 1 })
      yield* update(visit)
      yield* modify((user) => [undefined, visit(user)])
      yield* commit
      assert.strictEqual((yield* get).visits, 3)
    })
  })

  describe("token", () => {
    test("is in the store as its SHA-256 alone, which is the id", function* () {
      const { open, token } = yield* stored(UserSession)
      const keys = [...HashMap.keys(yield* (yield* SessionStore).all)]
      assert.deepStrictEqual(keys, [keyOf(token)])
      assert.deepStrictEqual(yield* (yield* open).id, Option.some(keyOf(token)))
    })

    test("opens nothing in the form in which the store has it", function* () {
      const { token } = yield* stored(UserSession)
      assert.strictEqual(yield* visitsOf(UserSession, Redacted.make(keyOf(token))), 0)
    })

    test("is not shown by a session that is printed, nor is the value", function* () {
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      yield* session.update(logIn("ada"))
      const printed = inspect(session, { depth: 10, showHidden: true }) + JSON.stringify(session) + String(session)
      for (const secret of [Redacted.value(token), keyOf(token), "ada"]) assert.notInclude(printed, secret)
    })

    test("is redacted wherever it is printed", function* () {
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
  })

  describe("data that does not decode", () => {
    test("opens a new session, with one warning that shows neither data nor token", () =>
      withLog((logged) =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          yield* (yield* open).update(logIn("ada"))
          const session = yield* NewerSession.open(token)
          assert.deepStrictEqual(yield* session.get, { user: "nobody" })
          assert.deepStrictEqual(yield* session.token, Option.none())
          assert.deepStrictEqual(logged, [undecodableWarning])
        })
      ))

    test("is removed when the new session is saved or destroyed, and not before", function* () {
      const store = yield* MemStore
      const ends = [
        (session: Session.Session<{ readonly user: string }>) =>
          Effect.andThen(session.set({ user: "ada" }), session.commit),
        (session: Session.Session<{ readonly user: string }>) => session.destroy,
        (session: Session.Session<{ readonly user: string }>) =>
          session.set({ user: "ada" }).pipe(Effect.andThen(session.renewToken), Effect.andThen(session.commit))
      ]
      for (const end of ends) {
        const { token } = yield* stored(UserSession)
        const session = yield* NewerSession.open(token)
        yield* session.renewToken
        yield* session.commit
        assert.isTrue(Option.isSome(yield* store.find(keyOf(token))))
        yield* end(session)
        assert.isTrue(Option.isNone(yield* store.find(keyOf(token))))
      }
    })

    for (const [how, act] of [
      ["changed", (session: UserHandle) => Effect.andThen(session.update(visit), session.commit)],
      ["renewed", (session: UserHandle) => Effect.andThen(session.renewToken, session.commit)]
    ] as const) {
      test(`is ended by a log-out also where the other deployment has ${how} it in the meantime`, function* () {
        const { open, token } = yield* stored(UserSession)
        const newer = yield* NewerSession.open(token)
        yield* act(yield* open)
        yield* newer.destroy
        assert.deepStrictEqual(yield* activeFields, [])
      })
    }

    test("fails where the class says so, with an error that shows neither data nor token", function* () {
      const { token } = yield* stored(UserSession)
      const store = yield* SessionStore
      const expiry = DateTime.add(yield* DateTime.now, { hours: 1 })
      const envelope = {
        ...{ version: 1, session: "test/UserSession", createdAt: 0, issuedAt: 0, usedAt: 0, deadline: 4711 },
        value: { user: "secret" }
      }
      const broken = [
        JSON.stringify({ ...envelope, value: { user: 4711 } }),
        JSON.stringify({ ...envelope, version: 2 }),
        ...brokenFields.map((field) => JSON.stringify({ ...envelope, [field]: "4711" })),
        "secret",
        "null",
        '"secret"',
        ""
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
        ['at ["user"]', JSON.stringify({ ...envelope, value: { user: 4711 } })],
        ...brokenFields.map(
          (field) => [`The field ${field} `, JSON.stringify({ ...envelope, [field]: "4711" })] as const
        ),
        ["The data is not JSON", "secret"],
        ["The data is not an object", "4711"],
        ["The data is not a session of version 1", "{}"]
      ] as const) {
        yield* store.commit(keyOf(token), data, expiry)
        assert.include(String((yield* Effect.flip(StrictSession.open(token))).cause), where)
      }
      yield* store.commit(keyOf(token), JSON.stringify(envelope), expiry)
      assert.deepStrictEqual(yield* (yield* StrictSession.open(token)).get, { user: "secret" })
    })

    test("ends a session that another deployment rewrote in the meantime", function* () {
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      const store = yield* SessionStore
      const data = JSON.stringify({ version: 1, session: "test/UserSession", deadline: 1, value: {} })
      yield* store.commit(keyOf(token), data, DateTime.add(yield* DateTime.now, { hours: 1 }))
      yield* session.update(visit)
      assert.deepStrictEqual(yield* session.commit, Option.none())
      assert.deepStrictEqual(yield* store.find(keyOf(token)), Option.some(data))
    })

    test("is not what an unknown token names, nor a session that has ended", function* () {
      const first = yield* StrictSession.open(Redacted.make("a".repeat(43)))
      yield* first.set({ user: "ada" })
      const token = yield* commit(first)
      const [slow, fast] = [yield* StrictSession.open(token), yield* StrictSession.open(token)]
      yield* fast.destroy
      yield* slow.set({ user: "grace" })
      assert.deepStrictEqual(yield* slow.commit, Option.none())
    })

    test("is merged as nothing, with a warning, or fails the merge where the class says so", () =>
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
      ))
  })

  describe("the format in the store", () => {
    test("is versioned JSON with the fields that the module documents", function* () {
      yield* TestClock.adjust("1 second")
      const { open, token } = yield* stored(UserSession)
      const writes = new Set<unknown>()
      const read = Effect.map(fieldsAt(keyOf(token)), (fields) => {
        const { write, ...rest } = fields ?? assert.fail("nothing there")
        writes.add(write)
        return rest
      })
      const bare = {
        version: 1,
        session: "test/UserSession",
        createdAt: 1000,
        issuedAt: 1000,
        deadline: 1000 + Duration.toMillis("24 hours"),
        value: { visits: 1 },
        usedAt: 1000
      }
      assert.deepStrictEqual(yield* read, bare)

      yield* TestClock.adjust("1 second")
      const session = yield* open
      yield* session.setRememberMe(true)
      yield* session.setIdleTimeout("5 minutes")
      yield* session.commit
      assert.deepStrictEqual(yield* read, { ...bare, usedAt: 2000, rememberMe: true, idleTimeout: 300_000 })
      yield* session.setIdleTimeout(Duration.infinity)
      yield* session.commit
      assert.deepStrictEqual(yield* read, { ...bare, usedAt: 2000, rememberMe: true, idleTimeout: null })
      assert.strictEqual(writes.size, 3)
    })

    test("is, after a renewal, a tombstone that names the successor, and nothing of the value", function* () {
      const { open, token } = yield* stored(UserSession)
      const session = yield* open
      yield* session.update(logIn("ada"))
      yield* session.renewToken
      const renewed = yield* commit(session)
      const tombstone = { version: 1, session: "test/UserSession", successor: keyOf(renewed) }
      assert.deepStrictEqual(yield* fieldsAt(keyOf(token)), tombstone)
      yield* (yield* UserSession.open(token)).destroy
      assert.deepStrictEqual(yield* fieldsAt(keyOf(token)), { ...tombstone, ended: true })
    })

    test("encodes the value by its schema", function* () {
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
  })
})

describe("SessionDecodeError", () => {
  it("can be told from other errors by its tag", () => {
    const error = new Session.SessionDecodeError({ session: "test", cause: new Error("no") })
    expect(error).toMatchObject({ _tag: "SessionDecodeError", session: "test" })
  })
})

describe("SessionBusyError", () => {
  it("can be told from other errors by its tag", () => {
    const error = new Session.SessionBusyError({ session: "test" })
    expect(error).toMatchObject({ _tag: "SessionBusyError", session: "test" })
    assert.strictEqual(error.message, "test: too many commits of one session are waiting")
  })
})
