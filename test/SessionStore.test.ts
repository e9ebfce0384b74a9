import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { Cause, DateTime, Effect, Exit, type HashMap, Option, Schema, Stream } from "effect"
import { MemStore, SessionStore, SessionStoreError, type SessionStoreOperations } from "effect-sessions"

const inAnHour = Effect.map(DateTime.now, DateTime.add({ hours: 1 }))

const operations = ["find", "create", "commit", "replace", "delete", "all", "entries"] as const

describe("SessionStoreError", () => {
  const error = new SessionStoreError({ operation: "commit", cause: new Error("connection refused") })

  it.effect("is caught by its tag, with operation and cause", () =>
    Effect.gen(function* () {
      const caught = yield* Effect.catchTag(Effect.fail(error), "SessionStoreError", Effect.succeed)
      assert.strictEqual(caught.operation, "commit")
      assert.deepStrictEqual(caught.cause, new Error("connection refused"))
    })
  )

  it("has a message that names the operation and nothing else", () => {
    assert.strictEqual(error.message, "Session store failed to commit")
  })

  for (const operation of operations) {
    it.effect(`of the operation ${operation} survives the way through JSON`, () =>
      Effect.gen(function* () {
        const codec = Schema.toCodecJson(SessionStoreError)
        const failed = new SessionStoreError({ operation, cause: new Error("connection refused") })
        const json = JSON.stringify(yield* Schema.encodeEffect(codec)(failed))
        const decoded = yield* Schema.decodeUnknownEffect(codec)(JSON.parse(json))
        assert.instanceOf(decoded, SessionStoreError)
        assert.strictEqual(decoded.operation, operation)
      })
    )
  }
})

describe("SessionStore.make", () => {
  /** A store whose operations all fail with their name, and one that must not be called. */
  const failing = {
    find: () => Effect.fail("find"),
    create: () => Effect.fail("create"),
    commit: () => Effect.fail("commit"),
    replace: () => Effect.fail("replace"),
    delete: () => Effect.fail("delete"),
    entries: Stream.fail("entries")
  }

  const called = (store: SessionStoreOperations, token: string, data: string, expiry: DateTime.DateTime) =>
    ({
      find: store.find(token),
      create: store.create(token, data, expiry),
      commit: store.commit(token, data, expiry),
      replace: store.replace(token, "old", data, expiry),
      delete: store.delete(token),
      all: store.all,
      entries: Stream.runDrain(store.entries)
    }) satisfies Record<(typeof operations)[number], Effect.Effect<unknown, SessionStoreError>>

  const store = SessionStore.make(failing, (operation, cause) => new SessionStoreError({ operation, cause }))

  for (const operation of operations) {
    it.effect(`makes the error of ${operation}, which names it, out of what the primitive failed with`, () =>
      Effect.gen(function* () {
        const effect: Effect.Effect<unknown, SessionStoreError> = called(store, "token", "data", yield* inAnHour)[
          operation
        ]
        const error = yield* Effect.flip(effect)
        assert.strictEqual(error.operation, operation)
        assert.strictEqual(error.cause, operation === "all" ? "entries" : operation)
      })
    )
  }

  it.effect("asks a primitive for nothing that is not text: writes die, and all else finds no such session", () =>
    Effect.gen(function* () {
      const expiry = yield* inAnHour
      const secret = "secret \ud800"
      for (const [token, data] of [
        [secret, "data"],
        ["token", secret],
        [secret, secret]
      ] as const) {
        const { create, commit, replace } = called(store, token, data, expiry)
        for (const write of data === secret ? [create, commit, replace] : [create, commit]) {
          const exit: Exit.Exit<unknown, SessionStoreError> = yield* Effect.exit<unknown, SessionStoreError, never>(
            write
          )
          const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
          assert.instanceOf(defect, TypeError)
          const what = token === secret && write !== replace ? "token" : "data"
          assert.include(defect.message, `the ${what} has a lone surrogate`)
          assert.notInclude(defect.message, "secret")
        }
      }
      assert.deepStrictEqual(yield* store.find(secret), Option.none())
      assert.isFalse(yield* store.replace(secret, "old", "new", expiry))
      assert.isFalse(yield* store.replace("token", secret, "new", expiry))
      yield* store.delete(secret)
    })
  )

  it.effect("derives all from entries", () =>
    Effect.gen(function* () {
      const entries = Stream.fromIterable([
        ["a", "1"],
        ["b", "2"]
      ] as const)
      const some = SessionStore.make({ ...failing, entries }, (_, error) => error)
      assert.deepStrictEqual(new Map(yield* some.all), new Map(yield* Stream.runCollect(entries)))
    })
  )
})

describe("the tags", () => {
  it("have keys by which two copies of the package find each other's stores", () => {
    assert.strictEqual(SessionStore.key, "effect-sessions/SessionStore")
    assert.strictEqual(MemStore.key, "effect-sessions/MemStore")
  })
})

describe("types", () => {
  it("every operation of SessionStore can fail with SessionStoreError and nothing else", () => {
    type Store = SessionStore["Service"]
    type Entries = Stream.Stream<readonly [token: string, data: string], SessionStoreError>
    expectTypeOf<Store["find"]>().toEqualTypeOf<
      (token: string) => Effect.Effect<Option.Option<string>, SessionStoreError>
    >()
    expectTypeOf<Store["create"]>().toEqualTypeOf<
      (token: string, data: string, expiry: DateTime.DateTime) => Effect.Effect<boolean, SessionStoreError>
    >()
    expectTypeOf<Store["commit"]>().toEqualTypeOf<
      (token: string, data: string, expiry: DateTime.DateTime) => Effect.Effect<void, SessionStoreError>
    >()
    expectTypeOf<Store["replace"]>().toEqualTypeOf<
      (
        token: string,
        expected: string,
        data: string,
        expiry: DateTime.DateTime
      ) => Effect.Effect<boolean, SessionStoreError>
    >()
    expectTypeOf<Store["delete"]>().toEqualTypeOf<(token: string) => Effect.Effect<void, SessionStoreError>>()
    expectTypeOf<Store["all"]>().toEqualTypeOf<Effect.Effect<HashMap.HashMap<string, string>, SessionStoreError>>()
    expectTypeOf<Store["entries"]>().toEqualTypeOf<Entries>()
  })

  it("SessionStore.make asks for an error of its own only where a primitive can fail", () => {
    expectTypeOf(SessionStore.make).toBeCallableWith({
      find: () => Effect.succeedNone,
      create: () => Effect.succeed(true),
      commit: () => Effect.void,
      replace: () => Effect.succeed(true),
      delete: () => Effect.void,
      entries: Stream.empty
    })
  })

  it("a MemStore is a SessionStore", () => {
    expectTypeOf<MemStore["Service"]>().toExtend<SessionStore["Service"]>()
    expectTypeOf(MemStore.key).toEqualTypeOf<"effect-sessions/MemStore">()
    expectTypeOf(SessionStore.key).toEqualTypeOf<"effect-sessions/SessionStore">()
  })
})
