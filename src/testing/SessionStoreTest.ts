/**
 * The contract of `SessionStore` as a suite of tests, for every store to run. It needs `@effect/vitest` and `vitest`.
 *
 * @module
 */
import { assert, describe, type Vitest } from "@effect/vitest"
import { Clock, DateTime, Duration, Effect, HashMap, type Layer, Option, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { SessionStore } from "../SessionStore.ts"

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

const inAnHour = Effect.map(DateTime.now, DateTime.add({ hours: 1 }))
const anHourAgo = Effect.map(DateTime.now, DateTime.subtract({ hours: 1 }))

const everyByte = Uint8Array.from({ length: 256 }, (_, i) => i)

// Tokens that a cookie may bring: the store has to take them for what they are, names it does not know.
const oddTokens = [
  "",
  " ",
  "\u0000",
  "a b",
  "ü",
  "\u{1F36A}",
  "*",
  "[a-z]",
  "' OR 1=1 --",
  "__proto__",
  "x".repeat(10_000)
]

const isTestClock = Effect.map(Clock.Clock, (clock) => "adjust" in clock)

/** Adds one to the number in a session: finds, changes and replaces it until no one else was faster. */
const increment = Effect.fnUntraced(function* (
  store: SessionStore["Service"],
  token: string,
  expiry: DateTime.DateTime
) {
  let isReplaced = false
  while (!isReplaced) {
    const found = Option.getOrThrow(yield* store.find(token))
    yield* Effect.yieldNow
    const next = bytes(`${Number(new TextDecoder().decode(found)) + 1}`)
    isReplaced = yield* store.replace(token, found, next, expiry)
  }
})

/**
 * Registers the contract of `SessionStore` as tests of a store.
 *
 * **When to use**: in the tests of a store of your own. One that passes can take the place of any other.
 *
 * **Details**: the layer is built anew for each test and has to provide an empty store. The tester is `it.effect`, whose
 * `TestClock` the tests adjust, or `it.live` for a store that follows the clock of another machine. With that, one test
 * waits for a second to pass; the two clocks may differ by a tenth of it.
 *
 * @example
 * ```ts
 * import { it } from "@effect/vitest"
 * import { MemStore } from "effect-sessions"
 * import { SessionStoreTest } from "effect-sessions/testing"
 *
 * SessionStoreTest.suite("MemStore", MemStore.layer, it.effect)
 * ```
 */
export const suite = <E, R = never>(
  name: string,
  layer: Layer.Layer<SessionStore, E, R>,
  test: Vitest.Tester<R | Scope.Scope>
) => {
  const it = <A, E2>(title: string, body: (store: SessionStore["Service"]) => Effect.Effect<A, E2>) =>
    test(title, () => Effect.provide(Effect.flatMap(SessionStore, body), layer))

  const entriesOf = (store: SessionStore["Service"]) =>
    Effect.map(Stream.runCollect(store.entries), (entries) => HashMap.fromIterable(entries))

  /** Commits 3,000 sessions, more than a store reads at a time. */
  const commitMany = (store: SessionStore["Service"], expiry: (i: number) => DateTime.DateTime) =>
    Effect.forEach(
      Array.from({ length: 3_000 }, (_, i) => i),
      (i) => store.commit(`token ${i}`, bytes(`data ${i}`), expiry(i)),
      { concurrency: 10, discard: true }
    )

  describe(`${name} keeps the contract of SessionStore`, () => {
    describe("find", () => {
      it("returns the data that was committed", (store) =>
        Effect.gen(function* () {
          yield* store.commit("token", bytes("data"), yield* inAnHour)
          assert.deepStrictEqual(yield* store.find("token"), Option.some(bytes("data")))
        }))

      it("returns every byte as it was", (store) =>
        Effect.gen(function* () {
          yield* store.commit("token", everyByte, yield* inAnHour)
          assert.deepStrictEqual(yield* store.find("token"), Option.some(everyByte))
        }))

      it("returns empty data as empty data", (store) =>
        Effect.gen(function* () {
          yield* store.commit("token", new Uint8Array(), yield* inAnHour)
          assert.deepStrictEqual(yield* store.find("token"), Option.some(new Uint8Array()))
        }))

      it("returns none for an unknown token", (store) =>
        Effect.gen(function* () {
          yield* store.commit("token", bytes("data"), yield* inAnHour)
          assert.deepStrictEqual(yield* store.find("other"), Option.none())
        }))

      it("returns none for an expired session", (store) =>
        Effect.gen(function* () {
          yield* store.commit("token", bytes("data"), yield* anHourAgo)
          assert.deepStrictEqual(yield* store.find("token"), Option.none())
        }))

      it("returns none for a token of any shape that it does not know", (store) =>
        Effect.gen(function* () {
          yield* store.commit("token", bytes("data"), yield* inAnHour)
          for (const token of oddTokens) assert.deepStrictEqual(yield* store.find(token), Option.none())
        }))

      it("returns plain arrays that share no memory with each other, nor with what is kept", (store) =>
        Effect.gen(function* () {
          yield* store.commit("token", bytes("data"), yield* inAnHour)
          const data = Option.getOrThrow(yield* store.find("token"))
          assert.strictEqual(Object.getPrototypeOf(data), Uint8Array.prototype)
          assert.strictEqual(data.buffer.byteLength, data.byteLength)
          data.fill(0)
          assert.deepStrictEqual(yield* store.find("token"), Option.some(bytes("data")))
        }))
    })

    describe("commit", () => {
      it("overwrites data and expiry", (store) =>
        Effect.gen(function* () {
          yield* store.commit("token", bytes("old"), yield* inAnHour)
          yield* store.commit("token", bytes("new"), yield* inAnHour)
          assert.deepStrictEqual(yield* store.find("token"), Option.some(bytes("new")))
          yield* store.commit("token", bytes("new"), yield* anHourAgo)
          assert.deepStrictEqual(yield* store.find("token"), Option.none())
        }))

      it("takes an expiry long past, at the end of time, or between two milliseconds", (store) =>
        Effect.gen(function* () {
          for (const past of [-8.64e15, -1]) {
            yield* store.commit("token", bytes("data"), yield* inAnHour)
            yield* store.commit("token", bytes("data"), DateTime.makeUnsafe(past))
            assert.deepStrictEqual(yield* store.find("token"), Option.none())
          }
          for (const future of [
            DateTime.makeUnsafe(8.64e15),
            DateTime.addDuration(yield* inAnHour, Duration.micros(1_500n))
          ]) {
            yield* store.commit("token", bytes("data"), future)
            assert.isTrue(yield* store.replace("token", bytes("data"), bytes("data"), future))
            assert.deepStrictEqual(yield* store.find("token"), Option.some(bytes("data")))
          }
        }))

      it("brings an expired session back to life", (store) =>
        Effect.gen(function* () {
          yield* store.commit("token", bytes("old"), yield* anHourAgo)
          yield* store.commit("token", bytes("new"), yield* inAnHour)
          assert.deepStrictEqual(yield* store.find("token"), Option.some(bytes("new")))
        }))

      it("copies the array when it is called, so that no later change of it gets into the store", (store) =>
        Effect.gen(function* () {
          const memory = bytes("xxdataxx")
          const data = memory.subarray(2, 6)
          const commit = store.commit("token", data, yield* inAnHour)
          data.fill(0)
          yield* commit
          memory.fill(1)
          assert.deepStrictEqual(yield* store.find("token"), Option.some(bytes("data")))
        }))

      it("keeps the sessions of all tokens apart", (store) =>
        Effect.gen(function* () {
          const expiry = yield* inAnHour
          for (const token of oddTokens) yield* store.commit(token, bytes(`data of ${token}`), expiry)
          for (const token of oddTokens) {
            assert.deepStrictEqual(yield* store.find(token), Option.some(bytes(`data of ${token}`)))
          }
        }))
    })

    describe("replace", () => {
      it("writes where the data is what was expected, and says so", (store) =>
        Effect.gen(function* () {
          yield* store.commit("token", everyByte, yield* inAnHour)
          assert.isTrue(yield* store.replace("token", everyByte, bytes("new"), yield* inAnHour))
          assert.deepStrictEqual(yield* store.find("token"), Option.some(bytes("new")))
        }))

      it("writes the expiry too", (store) =>
        Effect.gen(function* () {
          yield* store.commit("token", bytes("old"), yield* inAnHour)
          assert.isTrue(yield* store.replace("token", bytes("old"), bytes("new"), yield* anHourAgo))
          assert.deepStrictEqual(yield* store.find("token"), Option.none())
        }))

      it("writes nothing where the data differs, in any byte or in length", (store) =>
        Effect.gen(function* () {
          yield* store.commit("token", bytes("old"), yield* inAnHour)
          for (const expected of ["", "ol", "olD", "old ", "Old"]) {
            assert.isFalse(yield* store.replace("token", bytes(expected), bytes("new"), yield* inAnHour))
          }
          assert.deepStrictEqual(yield* store.find("token"), Option.some(bytes("old")))
        }))

      it("creates nothing for an unknown token, also where no data is expected", (store) =>
        Effect.gen(function* () {
          assert.isFalse(yield* store.replace("token", new Uint8Array(), bytes("new"), yield* inAnHour))
          assert.deepStrictEqual(yield* store.find("token"), Option.none())
        }))

      it("does not bring back a session that has expired or was deleted", (store) =>
        Effect.gen(function* () {
          yield* store.commit("expired", bytes("old"), yield* anHourAgo)
          yield* store.commit("deleted", bytes("old"), yield* inAnHour)
          yield* store.delete("deleted")
          for (const token of ["expired", "deleted"]) {
            assert.isFalse(yield* store.replace(token, bytes("old"), bytes("new"), yield* inAnHour))
            assert.deepStrictEqual(yield* store.find(token), Option.none())
          }
        }))

      it("keeps what it was handed, whatever the caller does to the arrays after", (store) =>
        Effect.gen(function* () {
          yield* store.commit("token", bytes("old"), yield* inAnHour)
          const expected = bytes("old")
          const data = bytes("new")
          const replace = store.replace("token", expected, data, yield* inAnHour)
          expected.fill(0)
          data.fill(0)
          assert.isTrue(yield* replace)
          assert.deepStrictEqual(yield* store.find("token"), Option.some(bytes("new")))
        }))

      it("lets exactly one of many fibers win each round", (store) =>
        Effect.gen(function* () {
          const expiry = yield* inAnHour
          yield* store.commit("token", bytes("0"), expiry)
          for (let round = 0; round < 20; round++) {
            const outcomes = yield* Effect.forEach(
              Array.from({ length: 32 }, (_, i) => i),
              (i) =>
                Effect.andThen(
                  Effect.yieldNow,
                  store.replace("token", bytes(`${round}`), bytes(`${round + 1} by ${i}`), expiry)
                ),
              { concurrency: "unbounded" }
            )
            assert.strictEqual(outcomes.filter((won) => won).length, 1)
            const winner = outcomes.indexOf(true)
            assert.deepStrictEqual(yield* store.find("token"), Option.some(bytes(`${round + 1} by ${winner}`)))
            yield* store.commit("token", bytes(`${round + 1}`), expiry)
          }
        }))

      it("loses no update of many fibers that find, change and replace", (store) =>
        Effect.gen(function* () {
          const expiry = yield* inAnHour
          yield* store.commit("token", bytes("0"), expiry)
          yield* Effect.replicateEffect(increment(store, "token", expiry), 100, { concurrency: "unbounded" })
          assert.deepStrictEqual(yield* store.find("token"), Option.some(bytes("100")))
        }))

      it("counts to exactly 1,000 where 10 fibers make 1,000 increments", (store) =>
        Effect.gen(function* () {
          const expiry = yield* inAnHour
          yield* store.commit("token", bytes("0"), expiry)
          yield* Effect.replicateEffect(increment(store, "token", expiry), 1_000, { concurrency: 10 })
          assert.deepStrictEqual(yield* store.find("token"), Option.some(bytes("1000")))
        }))
    })

    describe("expiry", () => {
      const tokens = ["committed", "prolonged", "replaced", "shortened"]

      /** The sessions that are active, by every way to read them. */
      const activeIn = Effect.fnUntraced(function* (store: SessionStore["Service"]) {
        const found = yield* Effect.filter(tokens, (token) => Effect.map(store.find(token), Option.isSome))
        for (const sessions of [yield* store.all, yield* entriesOf(store)]) {
          assert.sameMembers([...HashMap.keys(sessions)], found)
        }
        return found
      })

      it("ends each session once it has passed, and not before: that which was set last", (store) =>
        Effect.gen(function* () {
          const soon = yield* Effect.map(DateTime.now, DateTime.add({ seconds: 1 }))
          const later = yield* inAnHour
          for (const token of ["committed", "prolonged", "replaced"]) yield* store.commit(token, bytes("data"), soon)
          yield* store.commit("shortened", bytes("data"), later)
          yield* store.commit("prolonged", bytes("data"), later)
          assert.isTrue(yield* store.replace("replaced", bytes("data"), bytes("data"), later))
          assert.isTrue(yield* store.replace("shortened", bytes("data"), bytes("data"), soon))
          assert.deepStrictEqual(yield* activeIn(store), tokens)
          if (yield* isTestClock) {
            yield* TestClock.adjust("1 second")
            assert.deepStrictEqual(yield* activeIn(store), tokens)
            assert.isTrue(yield* store.replace("committed", bytes("data"), bytes("data"), soon))
            yield* TestClock.adjust("1 millis")
          } else {
            yield* Effect.sleep("1100 millis")
          }
          assert.deepStrictEqual(yield* activeIn(store), ["prolonged", "replaced"])
          for (const token of ["committed", "shortened"]) {
            assert.isFalse(yield* store.replace(token, bytes("data"), bytes("data"), later))
          }
        }))
    })

    describe("delete", () => {
      it("removes a session and no other", (store) =>
        Effect.gen(function* () {
          yield* store.commit("token", bytes("data"), yield* inAnHour)
          yield* store.commit("other", bytes("other"), yield* inAnHour)
          yield* store.delete("token")
          assert.deepStrictEqual(yield* store.find("token"), Option.none())
          assert.deepStrictEqual(yield* store.find("other"), Option.some(bytes("other")))
        }))

      it("does nothing for a token of any shape that it does not know", (store) =>
        Effect.gen(function* () {
          yield* store.commit("token", bytes("data"), yield* inAnHour)
          for (const token of oddTokens) yield* store.delete(token)
          assert.strictEqual(HashMap.size(yield* store.all), 1)
        }))
    })

    for (const [operation, read] of [
      ["all", (store: SessionStore["Service"]) => store.all],
      ["entries", entriesOf]
    ] as const) {
      describe(operation, () => {
        it("has nothing to return from an empty store", (store) =>
          Effect.gen(function* () {
            assert.strictEqual(HashMap.size(yield* read(store)), 0)
          }))

        it("returns token and data of every active session and of no expired one", (store) =>
          Effect.gen(function* () {
            const active = yield* inAnHour
            const expired = yield* anHourAgo
            yield* commitMany(store, (i) => (i % 3 === 0 ? active : expired))
            const found = yield* read(store)
            assert.strictEqual(HashMap.size(found), 1_000)
            for (let i = 0; i < 3_000; i += 3) {
              assert.deepStrictEqual(HashMap.get(found, `token ${i}`), Option.some(bytes(`data ${i}`)))
            }
          }))

        it("returns arrays whose change changes nothing in the store", (store) =>
          Effect.gen(function* () {
            yield* store.commit("token", bytes("data"), yield* inAnHour)
            HashMap.getUnsafe(yield* read(store), "token").fill(0)
            assert.deepStrictEqual(HashMap.get(yield* read(store), "token"), Option.some(bytes("data")))
          }))

        it("can be run again and then sees what has changed", (store) =>
          Effect.gen(function* () {
            const sessions = read(store)
            yield* store.commit("token", bytes("data"), yield* inAnHour)
            assert.strictEqual(HashMap.size(yield* sessions), 1)
            yield* store.delete("token")
            assert.strictEqual(HashMap.size(yield* sessions), 0)
          }))
      })
    }

    describe("entries", () => {
      it("returns each token once", (store) =>
        Effect.gen(function* () {
          const expiry = yield* inAnHour
          yield* commitMany(store, () => expiry)
          assert.strictEqual(yield* Stream.runCount(store.entries), 3_000)
        }))
    })
  })
}
