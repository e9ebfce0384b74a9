/**
 * The published suite on stores in which one thing is broken: a test that cannot fail is worth nothing.
 */
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { Cause, DateTime, Effect, Exit, HashMap, Layer, Option, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { MemStore, SessionStore, type SessionStoreOperations } from "effect-sessions"
import { SessionStoreTest } from "effect-sessions/testing"

describe("SessionStoreTest.suite", () => {
  type Body = () => Effect.Effect<void, unknown>

  /** The titles of the tests that a store fails, which a runner of ten lines tells. */
  const failuresOf = Effect.fnUntraced(function* (store: Layer.Layer<SessionStore, never, never>) {
    const tests = new Map<string, Body>()
    SessionStoreTest.suite("The store", store, (title, body) => tests.set(title, body))
    return yield* Effect.filter(tests.keys(), (title) =>
      Effect.map(
        Effect.exit(Effect.provide(tests.get(title)?.() ?? Effect.die("no test"), TestClock.layer())),
        Exit.isFailure
      )
    )
  })

  it.live("passes a store that keeps the contract, whatever runs the tests", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* failuresOf(MemStore.layer), [])
    })
  )

  type Store = SessionStoreOperations<never>

  /** A layer of a store in which something is broken. */
  const broken = (breakIt: (store: Store) => Partial<Store>): Layer.Layer<SessionStore> =>
    Layer.effect(
      SessionStore,
      Effect.map(MemStore.make, (store) => ({ ...store, ...breakIt(store) }))
    )

  /** A layer of a store that keeps something else than it was given. */
  const mangled = (mangle: (text: string) => string): Layer.Layer<SessionStore> =>
    broken((store) => ({
      commit: (token, data, expiry) => store.commit(token, mangle(data), expiry),
      create: (token, data, expiry) => store.create(token, mangle(data), expiry),
      replace: (token, expected, data, expiry) => store.replace(token, mangle(expected), mangle(data), expiry)
    }))

  /** A layer of a store that takes some tokens for one. */
  const confused = (nameOf: (token: string) => string): Layer.Layer<SessionStore> =>
    broken((store) => ({
      find: (token) => store.find(nameOf(token)),
      create: (token, data, expiry) => store.create(nameOf(token), data, expiry),
      commit: (token, data, expiry) => store.commit(nameOf(token), data, expiry),
      replace: (token, expected, data, expiry) => store.replace(nameOf(token), expected, data, expiry),
      delete: (token) => store.delete(nameOf(token))
    }))

  const endOfTime = DateTime.makeUnsafe(8.64e15)
  const malformed = /\p{Surrogate}/u

  const faults: Record<string, readonly [store: Layer.Layer<SessionStore>, ...caughtBy: ReadonlyArray<string>]> = {
    "finds nothing": [broken(() => ({ find: () => Effect.succeedNone })), "find: returns the data"],
    "finds what it does not know": [
      broken(() => ({ find: () => Effect.succeedSome("data") })),
      "find: returns none for an unknown token",
      "find: returns none for a token of any shape"
    ],
    "forgets the expiry": [
      broken((store) => ({ commit: (token, data) => store.commit(token, data, endOfTime) })),
      "find: returns none for an expired session",
      "expiry: ends each session",
      "all: returns token and data of every active",
      "entries: returns token and data of every active"
    ],
    "creates by overwriting": [
      broken((store) => ({
        create: (token, data, expiry) => Effect.as(store.commit(token, data, expiry), true)
      })),
      "create: says no where an active session is",
      "create: lets exactly one",
      "expiry: ends each session"
    ],
    "creates by overwriting, and says no": [
      broken((store) => ({
        create: (token, data, expiry) =>
          Effect.flatMap(store.find(token), (found) =>
            Effect.as(store.commit(token, data, expiry), Option.isNone(found))
          )
      })),
      "create: says no where an active session is"
    ],
    "creates in two steps": [
      broken((store) => ({
        create: (token, data, expiry) =>
          Effect.flatMap(store.find(token), (found) =>
            Option.isSome(found)
              ? Effect.succeed(false)
              : Effect.andThen(Effect.yieldNow, Effect.as(store.commit(token, data, expiry), true))
          )
      })),
      "create: lets exactly one"
    ],
    "creates nothing where an expired session is": [
      broken((store) => {
        const seen = new Set<string>()
        return {
          commit: (token, data, expiry) => {
            seen.add(token)
            return store.commit(token, data, expiry)
          },
          create: (token, data, expiry) => (seen.has(token) ? Effect.succeed(false) : store.create(token, data, expiry))
        }
      }),
      "create: takes the place of an expired session",
      "create: lets exactly one",
      "replace: removes the session where the expiry is past"
    ],
    "creates with another expiry": [
      broken((store) => ({ create: (token, data) => store.create(token, data, endOfTime) })),
      "create: keeps nothing of a session that has expired already",
      "expiry: ends each session"
    ],
    "says no to what has expired already": [
      broken((store) => ({
        create: (token, data, expiry) =>
          Effect.flatMap(DateTime.now, (now) =>
            DateTime.isLessThan(expiry, now) ? Effect.succeed(false) : store.create(token, data, expiry)
          )
      })),
      "create: keeps nothing of a session that has expired already"
    ],
    "moves the expiry of a session on that is there": [
      broken((store) => ({
        create: (token, data, expiry) =>
          Effect.flatMap(store.find(token), (found) =>
            Option.isSome(found)
              ? Effect.as(store.commit(token, found.value, expiry), false)
              : store.create(token, data, expiry)
          )
      })),
      "expiry: ends each session"
    ],
    "never overwrites": [
      broken((store) => ({
        commit: (token, data, expiry) => Effect.asVoid(store.create(token, data, expiry))
      })),
      "commit: overwrites data and expiry",
      "expiry: ends each session"
    ],
    "replaces without comparing": [
      broken((store) => ({
        replace: (token, _, data, expiry) =>
          Effect.flatMap(store.find(token), (found) =>
            Option.isSome(found) ? Effect.as(store.commit(token, data, expiry), true) : Effect.succeed(false)
          )
      })),
      "replace: writes nothing where the data differs",
      "replace: lets exactly one"
    ],
    "replaces in two steps": [
      broken((store) => ({
        replace: (token, expected, data, expiry) =>
          Effect.flatMap(store.find(token), (found) =>
            Option.contains(found, expected)
              ? Effect.andThen(Effect.yieldNow, Effect.as(store.commit(token, data, expiry), true))
              : Effect.succeed(false)
          )
      })),
      "replace: lets exactly one",
      "replace: loses no update",
      "replace: counts to exactly 1,000"
    ],
    "replaces what is not there": [
      broken((store) => ({
        replace: (token, expected, data, expiry) =>
          Effect.flatMap(store.find(token), (found) =>
            Option.isSome(found)
              ? store.replace(token, expected, data, expiry)
              : Effect.as(store.commit(token, data, expiry), true)
          )
      })),
      "replace: adds nothing for an unknown token",
      "replace: does not bring back a session"
    ],
    "keeps what is replaced in the past": [
      broken((store) => ({
        replace: (token, expected, data, expiry) =>
          Effect.flatMap(DateTime.now, (now) =>
            store.replace(token, expected, data, DateTime.isLessThan(expiry, now) ? endOfTime : expiry)
          )
      })),
      "replace: removes the session where the expiry is past"
    ],
    "does not delete": [
      broken(() => ({ delete: () => Effect.void })),
      "delete: removes a session and no other",
      "all: can be run again",
      "entries: can be run again"
    ],
    "deletes all": [
      broken((store) => ({
        delete: () => Effect.flatMap(store.all, (all) => Effect.forEach(HashMap.keys(all), store.delete))
      })),
      "delete: removes a session and no other",
      "delete: does nothing for a token"
    ],
    "lists one session too few": [
      broken((store) => ({ entries: Stream.drop(store.entries, 1) })),
      "entries: returns token and data",
      "entries: returns each token once"
    ],
    "lists a session twice": [
      broken((store) => ({ entries: Stream.concat(store.entries, Stream.take(store.entries, 1)) })),
      "entries: returns each token once"
    ],
    "ends text at a NUL": [mangled((text) => text.split("\u0000")[0] ?? ""), "a NUL", "NULs within", "Latin-1"],
    "keeps Latin-1 alone": [
      mangled((text) => Buffer.from(text, "latin1").toString("latin1")),
      ...["the basic plane", "every surrogate", "every plane's ends", "decomposed", "a megabyte"]
    ],
    "keeps the basic plane alone": [
      mangled((text) => text.replace(/[^\0-\uffff]/gu, "?")),
      "every surrogate",
      "plane's"
    ],
    composes: [mangled((text) => text.normalize("NFC")), "the same, decomposed"],
    decomposes: [mangled((text) => text.normalize("NFD")), "composed characters"],
    trims: [mangled((text) => text.trim()), "spaces about it", "a byte order mark"],
    "takes a byte order mark away": [mangled((text) => text.replace(/^\ufeff/, "")), "a byte order mark", "a megabyte"],
    unescapes: [mangled((text) => text.replaceAll("\\u0000", "\u0000")), "what is another encoding's"],
    "ends text at 64 kB": [mangled((text) => text.slice(0, 65_536)), "a megabyte"],
    "takes empty text for none": [
      broken((store) => ({
        find: (token) =>
          Effect.map(
            store.find(token),
            Option.filter((data) => data !== "")
          )
      })),
      "empty text"
    ],
    "compares without case": [
      confused((token) => token.toLowerCase()),
      "commit: keeps the sessions of all tokens apart"
    ],
    "composes its tokens": [
      confused((token) => token.normalize("NFC")),
      "commit: keeps the sessions of all tokens apart"
    ],
    "trims its tokens": [confused((token) => token.trimEnd()), "commit: keeps the sessions of all tokens apart"],
    "takes what is not text": [
      broken((store) => ({
        commit: (token, data, expiry) => store.commit(token.toWellFormed(), data.toWellFormed(), expiry)
      })),
      "text: that has a lone surrogate is refused"
    ],
    "writes before it refuses": [
      broken((store) => ({
        create: (token, data, expiry) =>
          Effect.andThen(
            malformed.test(data) ? store.commit(token, "half", expiry) : Effect.void,
            store.create(token, data, expiry)
          )
      })),
      "text: that has a lone surrogate is refused"
    ],
    "replaces by what is not text": [
      broken((store) => ({
        replace: (token, expected, data, expiry) => store.replace(token, expected, data.toWellFormed(), expiry)
      })),
      "text: that has a lone surrogate is refused"
    ],
    "replaces what is not text": [
      broken((store) => ({
        replace: (token, expected, data, expiry) => store.replace(token, expected.toWellFormed(), data, expiry)
      })),
      "text: that has a lone surrogate is the token or the data of no session"
    ],
    "finds what is not text": [
      broken((store) => ({ find: (token) => store.find(token.toWellFormed()) })),
      "text: that has a lone surrogate is the token or the data of no session"
    ],
    "deletes what is not text": [
      broken((store) => ({ delete: (token) => store.delete(token.toWellFormed()) })),
      "text: that has a lone surrogate is the token or the data of no session"
    ]
  }

  for (const [fault, [store, ...caughtBy]] of Object.entries(faults)) {
    it.live(`fails a store that ${fault}`, () =>
      Effect.gen(function* () {
        const failures = yield* failuresOf(store)
        for (const title of caughtBy) {
          assert.isTrue(
            failures.some((failure) => failure.startsWith("The store ") && failure.includes(title)),
            `"${title}" must fail; these did: ${failures.join("; ")}`
          )
        }
      })
    )
  }

  it.live("says what was expected and what it is, in fields that runners know", () =>
    Effect.gen(function* () {
      const tests = new Map<string, Body>()
      SessionStoreTest.suite(
        "The store",
        mangled(() => "x".repeat(2_000)),
        (title, body) => tests.set(title, body)
      )
      const body = tests.get("The store find: returns the data that was committed")
      const exit = yield* Effect.exit(body?.() ?? Effect.void)
      const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
      assert.instanceOf(defect, Error)
      const actual = `some("${"x".repeat(994)}… (2008 characters)`
      assert.deepStrictEqual({ ...defect }, { actual, expected: 'some("data")' })
      assert.strictEqual(defect.message, `expected some("data"), but it is ${actual}`)
    })
  )

  it("takes the testers of @effect/vitest, with services and without", () => {
    type Suite<R> = Parameters<typeof SessionStoreTest.suite<never, R>>[2]
    expectTypeOf(it.effect).toExtend<Suite<never>>()
    expectTypeOf(it.live).toExtend<Suite<never>>()
    expectTypeOf(it.effect).toExtend<Suite<Scope.Scope>>()
    expectTypeOf<(title: string, body: () => Effect.Effect<void, unknown>) => void>().toExtend<Suite<never>>()
  })
})
