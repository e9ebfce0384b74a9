import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { type DateTime, Effect, type HashMap, type Option, Schema, type Stream } from "effect"
import { MemStore, SessionStore, SessionStoreError } from "effect-sessions"

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

  for (const operation of ["find", "commit", "replace", "delete", "all", "entries"] as const) {
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

describe("the tags", () => {
  it("have keys by which two copies of the package find each other's stores", () => {
    assert.strictEqual(SessionStore.key, "effect-sessions/SessionStore")
    assert.strictEqual(MemStore.key, "effect-sessions/MemStore")
  })
})

describe("types", () => {
  it("every operation of SessionStore can fail with SessionStoreError and nothing else", () => {
    type Store = SessionStore["Service"]
    type Entries = Stream.Stream<readonly [token: string, data: Uint8Array], SessionStoreError>
    expectTypeOf<Store["find"]>().toEqualTypeOf<
      (token: string) => Effect.Effect<Option.Option<Uint8Array>, SessionStoreError>
    >()
    expectTypeOf<Store["commit"]>().toEqualTypeOf<
      (token: string, data: Uint8Array, expiry: DateTime.DateTime) => Effect.Effect<void, SessionStoreError>
    >()
    expectTypeOf<Store["replace"]>().toEqualTypeOf<
      (
        token: string,
        expected: Uint8Array,
        data: Uint8Array,
        expiry: DateTime.DateTime
      ) => Effect.Effect<boolean, SessionStoreError>
    >()
    expectTypeOf<Store["delete"]>().toEqualTypeOf<(token: string) => Effect.Effect<void, SessionStoreError>>()
    expectTypeOf<Store["all"]>().toEqualTypeOf<Effect.Effect<HashMap.HashMap<string, Uint8Array>, SessionStoreError>>()
    expectTypeOf<Store["entries"]>().toEqualTypeOf<Entries>()
  })

  it("a MemStore is a SessionStore", () => {
    expectTypeOf<MemStore["Service"]>().toExtend<SessionStore["Service"]>()
    expectTypeOf(MemStore.key).toEqualTypeOf<"effect-sessions/MemStore">()
    expectTypeOf(SessionStore.key).toEqualTypeOf<"effect-sessions/SessionStore">()
  })
})
