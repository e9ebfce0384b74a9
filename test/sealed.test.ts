/**
 * `SealedStore`: the contract of a store, what an attacker sees and can do in the store below, and how keys are changed.
 */
import { inspect } from "node:util"
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, HashMap, Layer, Option, Redacted, Schema, Stream } from "effect"
import { MemStore, Session, SessionStore } from "effect-sessions"
import { SealedStore, type SealedStoreOptions } from "effect-sessions/sealed"
import { SessionStoreTest } from "effect-sessions/testing"

const newKey = () => Redacted.make(Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64"))

const [one, two] = [newKey(), newKey()]

const inAnHour = Effect.map(DateTime.now, DateTime.add({ hours: 1 }))

const memory = MemStore.layerWithCleanupInterval(0)

const sealedBy = (options: SealedStoreOptions) => SealedStore.layerWith(options)

SessionStoreTest.suite("SealedStore", Layer.provide(sealedBy({ current: one }), memory), it.effect)

SessionStoreTest.suite(
  "SealedStore with a previous key",
  Layer.provide(sealedBy({ current: two, previous: [one] }), memory),
  it.effect
)

/** The store in the context, as servers with these keys see it. */
const seenBy = (options: SealedStoreOptions) =>
  Effect.gen(function* () {
    const store = yield* SessionStore
    return yield* Effect.provide(SessionStore, Layer.provide(sealedBy(options), Layer.succeed(SessionStore, store)))
  })

const stored = (token: string) =>
  Effect.flatMap(SessionStore, (store) => Effect.map(store.find(token), Option.getOrThrow))

/** A test with the store that the attacker has. */
const test = (name: string, body: () => Generator<Effect.Effect<unknown, unknown, SessionStore>, void, never>) =>
  it.effect(name, () => Effect.provide(Effect.gen(body), memory))

class UserSession extends Session.Service<UserSession>()("test/UserSession", {
  schema: Schema.Struct({ userId: Schema.optionalKey(Schema.String) }),
  initial: () => ({}),
  indexes: { user: ({ userId }) => userId }
}) {}

class StrictSession extends Session.Service<StrictSession>()("test/UserSession", {
  schema: Schema.Struct({ userId: Schema.optionalKey(Schema.String) }),
  initial: () => ({}),
  undecodable: "fail"
}) {}

const logIn = Effect.gen(function* () {
  const session = yield* UserSession.open()
  yield* session.set({ userId: "ada" })
  const { token } = Option.getOrThrow(yield* session.commit)
  return { token, id: Option.getOrThrow(yield* session.id) }
})

describe("what the store below has", () => {
  test("is no value, but its length", function* () {
    const store = yield* seenBy({ current: one })
    yield* store.commit("token", "a value in the clear", yield* inAnHour)
    const text = yield* stored("token")
    assert.match(text, /^sealed\.1\.[\w-]{8}\.[\w-]+$/)
    assert.notInclude(Buffer.from(text.split(".")[3] ?? "", "base64url").toString("latin1"), "value")
    assert.lengthOf(text, "sealed.1.".length + 9 + Math.ceil(((20 + 12 + 16) * 4) / 3))
  })

  test("is the same each time for the same text in the same place, and another in another place", function* () {
    const expiry = yield* inAnHour
    const [store, other] = [yield* seenBy({ current: one }), yield* seenBy({ current: one })]
    yield* store.commit("token", "data", expiry)
    const first = yield* stored("token")
    yield* other.commit("token", "data", expiry)
    assert.strictEqual(yield* stored("token"), first)
    yield* other.commit("other", "data", expiry)
    assert.notStrictEqual((yield* stored("other")).slice(18), first.slice(18))
  })

  test("is taken for nothing that anybody sealed, where it was changed in any character", function* () {
    const store = yield* seenBy({ current: one })
    const expiry = yield* inAnHour
    yield* store.commit("token", '{"a":1}', expiry)
    const text = yield* stored("token")
    const below = yield* SessionStore
    for (let at = 0; at < text.length; at++) {
      for (const char of text[at] === "A" ? ["B", "="] : ["A", "="]) {
        yield* below.commit("token", text.slice(0, at) + char + text.slice(at + 1), expiry)
        const found = Option.getOrThrow(yield* store.find("token"))
        assert.notStrictEqual(found, '{"a":1}')
        assert.throws(() => JSON.parse(found))
      }
    }
  })

  test("is worth nothing in the place of another", function* () {
    const store = yield* seenBy({ current: one })
    const expiry = yield* inAnHour
    yield* store.commit("mine", "my data", expiry)
    yield* (yield* SessionStore).commit("yours", yield* stored("mine"), expiry)
    assert.notInclude(Option.getOrThrow(yield* store.find("yours")), "my data")
  })

  test("is no session if somebody writes it in the clear", function* () {
    const store = yield* seenBy({ current: one })
    const { id, token } = yield* logIn
    const plain = yield* stored(id)
    assert.include(plain, "ada")
    const opened = UserSession.open(token).pipe(Effect.provideService(SessionStore, store))
    assert.deepStrictEqual(yield* (yield* opened).get, {})
    const error = yield* Effect.flip(StrictSession.open(token).pipe(Effect.provideService(SessionStore, store)))
    assert.strictEqual(error._tag, "SessionDecodeError")
    assert.notInclude(inspect(error, { depth: 9 }), "ada")
  })

  test("can be changed and removed, by what was found, though it does not decode", function* () {
    const store = yield* seenBy({ current: one })
    const expiry = yield* inAnHour
    yield* (yield* SessionStore).commit("token", "in the clear", expiry)
    const found = Option.getOrThrow(yield* store.find("token"))
    assert.isFalse(yield* store.create("token", "data", expiry))
    assert.isTrue(yield* store.replace("token", found, "data", expiry))
    assert.deepStrictEqual(yield* store.find("token"), Option.some("data"))
    assert.isFalse(yield* store.replace("token", found, "more", expiry))
  })
})

describe("a change of the key", () => {
  test("keeps sessions: what the old key sealed is found, listed and replaced, and then sealed by the new one", function* () {
    const expiry = yield* inAnHour
    const [older, newer] = [yield* seenBy({ current: one }), yield* seenBy({ current: two, previous: [one] })]
    yield* older.commit("token", "first", expiry)
    assert.deepStrictEqual(yield* newer.find("token"), Option.some("first"))
    assert.deepStrictEqual(yield* Stream.runCollect(newer.entries), [["token", "first"]])
    assert.deepStrictEqual(HashMap.toEntries(yield* newer.all), [["token", "first"]])
    assert.isFalse(yield* newer.replace("token", "other", "second", expiry))
    assert.isTrue(yield* newer.replace("token", "first", "second", expiry))
    assert.deepStrictEqual(yield* (yield* seenBy({ current: two })).find("token"), Option.some("second"))
  })

  test("loses no update between a server that writes with the old key and one that writes with the new", function* () {
    const expiry = yield* inAnHour
    const servers = [yield* seenBy({ current: one, previous: [two] }), yield* seenBy({ current: two, previous: [one] })]
    yield* servers[0]?.commit("counter", "0", expiry) ?? Effect.void
    const increment = (store: SessionStore["Service"]): Effect.Effect<void, unknown> =>
      Effect.gen(function* () {
        while (true) {
          const found = Option.getOrThrow(yield* store.find("counter"))
          yield* Effect.yieldNow
          if (yield* store.replace("counter", found, String(Number(found) + 1), expiry)) return
        }
      })
    yield* Effect.forEach(
      servers.flatMap((server) => Array.from({ length: 50 }, () => server)),
      increment,
      { concurrency: "unbounded" }
    ).pipe(Effect.orDie)
    for (const server of servers) assert.deepStrictEqual(yield* server.find("counter"), Option.some("100"))
  })

  test("ends the sessions of a key that is dropped, and leaves their places free", function* () {
    const [older, newer] = [yield* seenBy({ current: one }), yield* seenBy({ current: two })]
    const { id, token } = yield* Effect.provideService(logIn, SessionStore, older)
    yield* Effect.gen(function* () {
      const session = yield* UserSession.open(token)
      assert.deepStrictEqual(yield* session.get, {})
      assert.deepStrictEqual(yield* Stream.runCollect(UserSession.sessionsOf("user", "ada")), [])
      yield* session.destroy
    }).pipe(Effect.provideService(SessionStore, newer))
    assert.deepStrictEqual(yield* older.find(id), Option.none())
  })
})

describe("sessions", () => {
  test("are renewed, merged, listed and ended by their user, as in any store", function* () {
    const store = yield* seenBy({ current: two, previous: [one] })
    yield* Effect.gen(function* () {
      const first = yield* logIn
      const session = yield* UserSession.open(first.token)
      yield* session.renewToken
      const { token } = Option.getOrThrow(yield* session.commit)
      // The old token opens an ended session: its tombstone was read.
      assert.strictEqual(yield* (yield* UserSession.open(first.token)).status, "ended")
      const other = yield* UserSession.open()
      yield* other.merge(token, (_mine, value) => value)
      yield* other.commit
      assert.deepStrictEqual(yield* other.get, { userId: "ada" })
      yield* logIn
      assert.lengthOf(yield* Stream.runCollect(UserSession.sessionsOf("user", "ada")), 2)
      assert.strictEqual(yield* UserSession.destroyAllOf("user", "ada"), 2)
      assert.lengthOf(yield* Stream.runCollect(UserSession.sessions), 0)
    }).pipe(Effect.provideService(SessionStore, store))
    const below = yield* (yield* SessionStore).all
    for (const text of HashMap.values(below)) assert.match(text, /^sealed\.1\./)
  })
})

describe("keys", () => {
  it("that are not 32 bytes in Base64 are refused, and not shown", () => {
    const keys = ["", "short", "A".repeat(42), "A".repeat(44), `${"A".repeat(42)}!`, `${"A".repeat(43)}==`]
    for (const key of keys) {
      assert.throws(() => sealedBy({ current: Redacted.make(key) }), /^SealedStore: a key is not 32 bytes in Base64$/)
      assert.throws(() => sealedBy({ current: one, previous: [Redacted.make(key)] }), TypeError)
    }
  })

  test("are not shown by the store", function* () {
    const store = yield* seenBy({ current: one })
    assert.notInclude(inspect(store, { depth: 9, showHidden: true }), Redacted.value(one))
  })
})
