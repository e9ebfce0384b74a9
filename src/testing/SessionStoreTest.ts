/**
 * The contract of `SessionStore` as a suite of tests, for every store to run, with any test runner.
 *
 * {@link suite} tests the contract of a store. {@link indexes} tests the indexes of a session class on it.
 *
 * @module
 */
import type { Layer } from "effect"
import { Cause, DateTime, Duration, Effect, Exit, HashMap, Option, Stream } from "effect"
import * as TestClock from "effect/testing/TestClock"
import { SessionStore } from "../SessionStore.ts"
import { assertEqual, isTestClock } from "./assertions.ts"
import type { Tester } from "./tester.ts"

export { indexes } from "./indexTests.ts"
export type { Tester } from "./tester.ts"

type Store = SessionStore["Service"]

/** Registers a test of one operation of the store. */
type Test = (operation: string, title: string, body: (store: Store) => Effect.fn.Return<void, unknown>) => void

const inAnHour = Effect.map(DateTime.now, DateTime.add({ hours: 1 }))
const anHourAgo = Effect.map(DateTime.now, DateTime.subtract({ hours: 1 }))

const range = (length: number): ReadonlyArray<number> => Array.from({ length }, (_, i) => i)

const isSurrogate = (codePoint: number): boolean => codePoint >= 0xd800 && codePoint <= 0xdfff

const oneMegabyte = "\ufeff\u{1F36A}é\u0000x".repeat(175_000).slice(0, 1_048_576)

/** Text that some systems change on the way. */
const texts: Readonly<Record<string, string>> = {
  "empty text": "",
  "a NUL": "\u0000",
  "NULs within": "a\u0000b\u0000",
  "all of Latin-1": String.fromCodePoint(...range(256)),
  "the basic plane": range(0x10000)
    .filter((codePoint) => !isSurrogate(codePoint))
    .map((codePoint) => String.fromCodePoint(codePoint))
    .join(""),
  "every surrogate": String.fromCodePoint(...range(1_024).map((i) => 0x10000 + i * 0x401)),
  "every plane's ends": String.fromCodePoint(
    ...range(17).flatMap((i) => [0, 1, 0xfffe, 0xffff].map((j) => i * 0x10000 + j))
  ),
  "composed characters": "\u00e9\u00c5\uac00",
  "the same, decomposed": "e\u0301A\u030a\u1100\u1161",
  "a byte order mark": "\ufeffdata\ufeff",
  "the replacement character": "\ufffd",
  "spaces about it": " data \r\n",
  "what is another encoding's": "base64:/wA= \\x00 %00 \\u0000",
  "a megabyte": oneMegabyte
}

const notText = ["\ud800", "a\udfffb", "\udc00\ud800"]

/** What databases turn lone surrogates into. */
const replacements = ["\ufffd", "a\ufffdb", "\ufffd\ufffd"]

// Tokens that a cookie may contain. To the store they are simply unknown.
const oddTokens = [
  ...["", " ", "\u0000", "\u0000a", "a", "A", "a ", " a", "a\u0000", "a b"],
  ...["ü", "u\u0308", "ß", "ss", "\u212a", "K", "\ufeff", "\ufeffa", "\ufffd", "\uffff", "\u{1F36A}", "\u{10ffff}"],
  ...["*", "?", "%", "_", "\\", "[a-z]", "' OR 1=1 --", "__proto__", "x".repeat(10_000)]
]

const entriesOf = (store: Store) =>
  Effect.map(Stream.runCollect(store.entries), (entries) => HashMap.fromIterable(entries))

const reads = [
  ["all", (store: Store) => store.all],
  ["entries", entriesOf]
] as const

/** Commits 3,000 sessions, more than a store reads in one batch. */
const commitMany = (store: Store, expiry: (i: number) => DateTime.DateTime) =>
  Effect.forEach(range(3_000), (i) => store.commit(`token ${i}`, `data ${i}`, expiry(i)), {
    concurrency: 10,
    discard: true
  })

// A fiber loses a round only if another wins it, and no test has more rounds than this.
const mostRounds = 1_000

/** Adds one to the number in a session: finds, changes and replaces it until no other fiber was faster. */
const increment = Effect.fnUntraced(function* (store: Store, token: string, expiry: DateTime.DateTime) {
  for (let round = 0; round < mostRounds; round++) {
    const found = Option.getOrThrow(yield* store.find(token))
    yield* Effect.yieldNow
    if (yield* store.replace(token, found, `${Number(found) + 1}`, expiry)) return
  }
  throw new Error("replace says no though nobody else was faster")
})

/** Runs an effect 32 times concurrently, and returns which of them returned `true`. */
const race = (effect: (i: number) => Effect.Effect<boolean, unknown>) =>
  Effect.filter(range(32), (i) => Effect.andThen(Effect.yieldNow, effect(i)), { concurrency: "unbounded" })

const testFind = (test: Test) => {
  test("find", "returns the data that was committed", function* (store) {
    yield* store.commit("token", "data", yield* inAnHour)
    assertEqual(yield* store.find("token"), Option.some("data"))
  })

  test("find", "returns none for an unknown token", function* (store) {
    yield* store.commit("token", "data", yield* inAnHour)
    assertEqual(yield* store.find("other"), Option.none())
  })

  test("find", "returns none for an expired session", function* (store) {
    yield* store.commit("token", "data", yield* anHourAgo)
    assertEqual(yield* store.find("token"), Option.none())
  })

  test("find", "returns none for a token of any shape that it does not know", function* (store) {
    yield* store.commit("token", "data", yield* inAnHour)
    for (const token of oddTokens) assertEqual(yield* store.find(token), Option.none())
  })
}

const testCreate = (test: Test) => {
  test("create", "adds a session where there is none, and says so", function* (store) {
    assertEqual(yield* store.create("token", "data", yield* inAnHour), true)
    assertEqual(yield* store.find("token"), Option.some("data"))
    yield* store.delete("token")
    assertEqual(yield* store.create("token", "new", yield* inAnHour), true)
    assertEqual(yield* store.find("token"), Option.some("new"))
  })

  test("create", "says no where an active session is, and leaves it as it is", function* (store) {
    yield* store.commit("committed", "old", yield* inAnHour)
    yield* store.create("created", "old", yield* inAnHour)
    for (const token of ["committed", "created"]) {
      for (const data of ["new", "old", ""]) {
        assertEqual(yield* store.create(token, data, yield* inAnHour), false)
        assertEqual(yield* store.create(token, data, yield* anHourAgo), false)
      }
      assertEqual(yield* store.find(token), Option.some("old"))
    }
  })

  test("create", "takes the place of an expired session, with its own data and expiry", function* (store) {
    yield* store.commit("token", "old", yield* anHourAgo)
    assertEqual(yield* store.create("token", "new", yield* inAnHour), true)
    assertEqual(yield* store.find("token"), Option.some("new"))
    assertEqual(yield* store.create("token", "newer", yield* inAnHour), false)
    assertEqual(HashMap.size(yield* store.all), 1)
  })

  test("create", "keeps nothing of a session that has expired already, and says that it added it", function* (store) {
    for (const past of [yield* anHourAgo, DateTime.makeUnsafe(-1), DateTime.makeUnsafe(-8.64e15)]) {
      assertEqual(yield* store.create("token", "data", past), true)
      assertEqual(yield* store.find("token"), Option.none())
    }
    assertEqual(HashMap.size(yield* store.all), 0)
  })

  test("create", "lets exactly one of many fibers add a session, also where an expired one is", function* (store) {
    const [active, expired] = [yield* inAnHour, yield* anHourAgo]
    for (let round = 0; round < 20; round++) {
      if (round % 2 === 1) yield* store.commit(`${round}`, "expired", expired)
      const winners = yield* race((i) => store.create(`${round}`, `by ${i}`, active))
      assertEqual(winners.length, 1)
      assertEqual(yield* store.find(`${round}`), Option.some(`by ${winners[0]}`))
    }
  })
}

const testCommit = (test: Test) => {
  test("commit", "overwrites data and expiry", function* (store) {
    yield* store.commit("token", "old", yield* inAnHour)
    yield* store.commit("token", "new", yield* inAnHour)
    assertEqual(yield* store.find("token"), Option.some("new"))
    yield* store.commit("token", "new", yield* anHourAgo)
    assertEqual(yield* store.find("token"), Option.none())
  })

  test("commit", "takes an expiry long past, at the end of time, or between two milliseconds", function* (store) {
    for (const past of [-8.64e15, -1]) {
      yield* store.commit("token", "data", yield* inAnHour)
      yield* store.commit("token", "data", DateTime.makeUnsafe(past))
      assertEqual(yield* store.find("token"), Option.none())
    }
    const endOfTime = DateTime.makeUnsafe(8.64e15)
    for (const future of [endOfTime, DateTime.addDuration(yield* inAnHour, Duration.micros(1_500n))]) {
      yield* store.delete("token")
      assertEqual(yield* store.create("token", "data", future), true)
      yield* store.commit("token", "data", future)
      assertEqual(yield* store.replace("token", "data", "data", future), true)
      assertEqual(yield* store.find("token"), Option.some("data"))
    }
  })

  test("commit", "brings an expired session back to life", function* (store) {
    yield* store.commit("token", "old", yield* anHourAgo)
    yield* store.commit("token", "new", yield* inAnHour)
    assertEqual(yield* store.find("token"), Option.some("new"))
  })

  test("commit", "keeps the sessions of all tokens apart", function* (store) {
    const expiry = yield* inAnHour
    for (const token of oddTokens) yield* store.commit(token, `data of ${token}`, expiry)
    for (const token of oddTokens) assertEqual(yield* store.find(token), Option.some(`data of ${token}`))
    for (const [, read] of reads) {
      const expected = HashMap.fromIterable(oddTokens.map((token) => [token, `data of ${token}`]))
      assertEqual(yield* read(store), expected)
    }
  })
}

const testReplace = (test: Test) => {
  test("replace", "writes where the data is what was expected, and says so", function* (store) {
    yield* store.commit("token", "old", yield* inAnHour)
    assertEqual(yield* store.replace("token", "old", "new", yield* inAnHour), true)
    assertEqual(yield* store.find("token"), Option.some("new"))
  })

  test("replace", "removes the session where the expiry is past: a compare-and-delete", function* (store) {
    for (const past of [yield* anHourAgo, DateTime.makeUnsafe(-1), DateTime.makeUnsafe(-8.64e15)]) {
      yield* store.commit("token", "old", yield* inAnHour)
      assertEqual(yield* store.replace("token", "older", "new", past), false)
      assertEqual(yield* store.find("token"), Option.some("old"))
      assertEqual(yield* store.replace("token", "old", "new", past), true)
      assertEqual(yield* store.find("token"), Option.none())
      assertEqual(HashMap.size(yield* store.all), 0)
      assertEqual(yield* store.replace("token", "new", "newer", yield* inAnHour), false)
      assertEqual(yield* store.create("token", "newest", yield* inAnHour), true)
    }
  })

  test("replace", "writes nothing where the data differs, in any character or in length", function* (store) {
    yield* store.commit("token", "old é", yield* inAnHour)
    for (const expected of ["", "old ", "olD é", "old é ", "Old é", "old e", "old e\u0301", "old é\u0000"]) {
      assertEqual(yield* store.replace("token", expected, "new", yield* inAnHour), false)
    }
    assertEqual(yield* store.find("token"), Option.some("old é"))
  })

  test("replace", "adds nothing for an unknown token, also where no data is expected", function* (store) {
    assertEqual(yield* store.replace("token", "", "new", yield* inAnHour), false)
    assertEqual(yield* store.find("token"), Option.none())
  })

  test("replace", "does not bring back a session that has expired or was deleted", function* (store) {
    yield* store.commit("expired", "old", yield* anHourAgo)
    yield* store.commit("deleted", "old", yield* inAnHour)
    yield* store.delete("deleted")
    for (const token of ["expired", "deleted"]) {
      assertEqual(yield* store.replace(token, "old", "new", yield* inAnHour), false)
      assertEqual(yield* store.find(token), Option.none())
    }
  })
}

const testReplaceAtOnce = (test: Test) => {
  test("replace", "lets exactly one of many fibers win each round", function* (store) {
    const expiry = yield* inAnHour
    yield* store.commit("token", "0", expiry)
    for (let round = 0; round < 20; round++) {
      const winners = yield* race((i) => store.replace("token", `${round}`, `${round + 1} by ${i}`, expiry))
      assertEqual(winners.length, 1)
      assertEqual(yield* store.find("token"), Option.some(`${round + 1} by ${winners[0]}`))
      yield* store.commit("token", `${round + 1}`, expiry)
    }
  })

  test("replace", "loses no update of many fibers that find, change and replace", function* (store) {
    const expiry = yield* inAnHour
    yield* store.commit("token", "0", expiry)
    yield* Effect.replicateEffect(increment(store, "token", expiry), 100, { concurrency: "unbounded" })
    assertEqual(yield* store.find("token"), Option.some("100"))
  })

  test("replace", "counts to exactly 1,000 where 10 fibers make 1,000 increments", function* (store) {
    const expiry = yield* inAnHour
    yield* store.commit("token", "0", expiry)
    yield* Effect.replicateEffect(increment(store, "token", expiry), 1_000, { concurrency: 10 })
    assertEqual(yield* store.find("token"), Option.some("1000"))
  })
}

const testText = (test: Test) => {
  for (const [what, text] of Object.entries(texts)) {
    test("text", `comes back exactly from every operation: ${what}`, function* (store) {
      const expiry = yield* inAnHour
      yield* store.commit("committed", text, expiry)
      assertEqual(yield* store.create("created", text, expiry), true)
      yield* store.commit("replaced", "old", expiry)
      assertEqual(yield* store.replace("replaced", "old", text, expiry), true)
      for (const token of ["committed", "created", "replaced"]) {
        assertEqual(yield* store.find(token), Option.some(text))
        for (const [, read] of reads) assertEqual(HashMap.get(yield* read(store), token), Option.some(text))
        assertEqual(yield* store.replace(token, `${text}x`, "new", expiry), false)
        assertEqual(yield* store.replace(token, text, "new", expiry), true)
      }
    })
  }

  test("text", "that has a lone surrogate is refused, before anything is written", function* (store) {
    const expiry = yield* inAnHour
    yield* store.commit("token", "old", expiry)
    const diesOf = Effect.fnUntraced(function* (write: Effect.Effect<unknown, unknown>) {
      const exit = yield* Effect.exit(write)
      assertEqual(Exit.isFailure(exit) && Cause.squash(exit.cause) instanceof TypeError, true)
    })
    for (const malformed of notText) {
      for (const [token, data] of [
        ["token", malformed],
        ["new", malformed],
        [malformed, "new"]
      ] as const) {
        yield* diesOf(store.create(token, data, expiry))
        yield* diesOf(store.commit(token, data, expiry))
      }
      yield* diesOf(store.replace("token", "old", malformed, expiry))
    }
    assertEqual([...(yield* store.all)], [["token", "old"]])
  })

  test("text", "that has a lone surrogate is the token or the data of no session", function* (store) {
    const expiry = yield* inAnHour
    for (const text of replacements) yield* store.commit(text, text, expiry)
    for (const [i, malformed] of notText.entries()) {
      const text = replacements[i] ?? ""
      assertEqual(yield* store.find(malformed), Option.none())
      assertEqual(yield* store.replace(malformed, text, "new", expiry), false)
      assertEqual(yield* store.replace(text, malformed, "new", expiry), false)
      yield* store.delete(malformed)
      assertEqual(yield* store.find(text), Option.some(text))
    }
  })
}

const testExpiry = (test: Test) => {
  const tokens = ["committed", "created", "refused", "prolonged", "replaced", "shortened"]
  const sorted = (items: Iterable<string>) => [...items].sort()

  /** The active sessions, read in every possible way. */
  const activeIn = Effect.fnUntraced(function* (store: Store) {
    const found = sorted(yield* Effect.filter(tokens, (token) => Effect.map(store.find(token), Option.isSome)))
    for (const [, read] of reads) assertEqual(sorted(HashMap.keys(yield* read(store))), found)
    return found
  })

  test("expiry", "ends each session once it has passed, and not before: that which was set last", function* (store) {
    const soon = yield* Effect.map(DateTime.now, DateTime.add({ seconds: 1 }))
    const later = yield* inAnHour
    for (const token of ["committed", "refused", "prolonged", "replaced"]) yield* store.commit(token, "data", soon)
    assertEqual(yield* store.create("created", "data", soon), true)
    assertEqual(yield* store.create("refused", "data", later), false)
    yield* store.commit("shortened", "data", later)
    yield* store.commit("prolonged", "data", later)
    assertEqual(yield* store.replace("replaced", "data", "data", later), true)
    assertEqual(yield* store.replace("shortened", "data", "data", soon), true)
    assertEqual(yield* activeIn(store), sorted(tokens))
    if (yield* isTestClock) {
      yield* TestClock.adjust("1 second")
      assertEqual(yield* activeIn(store), sorted(tokens))
      assertEqual(yield* store.create("created", "data", soon), false)
      assertEqual(yield* store.replace("committed", "data", "data", soon), true)
      yield* TestClock.adjust("1 millis")
    } else {
      yield* Effect.sleep("1100 millis")
    }
    assertEqual(yield* activeIn(store), ["prolonged", "replaced"])
    for (const token of ["committed", "created", "refused", "shortened"]) {
      assertEqual(yield* store.replace(token, "data", "data", later), false)
    }
    assertEqual(yield* store.create("created", "new", later), true)
    assertEqual(yield* activeIn(store), ["created", "prolonged", "replaced"])
  })
}

const testDelete = (test: Test) => {
  test("delete", "removes a session and no other", function* (store) {
    yield* store.commit("token", "data", yield* inAnHour)
    yield* store.commit("other", "other", yield* inAnHour)
    yield* store.delete("token")
    assertEqual(yield* store.find("token"), Option.none())
    assertEqual(yield* store.find("other"), Option.some("other"))
  })

  test("delete", "does nothing for a token of any shape that it does not know", function* (store) {
    yield* store.commit("token", "data", yield* inAnHour)
    for (const token of oddTokens) yield* store.delete(token)
    assertEqual(HashMap.size(yield* store.all), 1)
  })
}

const testReads = (test: Test) => {
  for (const [operation, read] of reads) {
    test(operation, "has nothing to return from an empty store", function* (store) {
      assertEqual(HashMap.size(yield* read(store)), 0)
    })

    test(operation, "returns token and data of every active session and of no expired one", function* (store) {
      const active = yield* inAnHour
      const expired = yield* anHourAgo
      yield* commitMany(store, (i) => (i % 3 === 0 ? active : expired))
      const found = yield* read(store)
      assertEqual(HashMap.size(found), 1_000)
      for (let i = 0; i < 3_000; i += 3) assertEqual(HashMap.get(found, `token ${i}`), Option.some(`data ${i}`))
    })

    test(operation, "can be run again and then sees what has changed", function* (store) {
      const sessions = read(store)
      yield* store.commit("token", "data", yield* inAnHour)
      assertEqual(HashMap.size(yield* sessions), 1)
      yield* store.delete("token")
      assertEqual(HashMap.size(yield* sessions), 0)
    })
  }

  test("entries", "returns each token once", function* (store) {
    const expiry = yield* inAnHour
    yield* commitMany(store, () => expiry)
    assertEqual(yield* Stream.runCount(store.entries), 3_000)
  })
}

/**
 * Registers the contract of `SessionStore` as tests of a store.
 *
 * **When to use**: in the tests of your own store. A store that passes can replace any other. Also run {@link indexes}.
 *
 * **Details**: each test has a title that begins with the name, and builds the layer again, which has to provide an
 * empty store. With `it.effect` of `@effect/vitest`, the tests adjust its `TestClock`. Use `it.live` for a store that
 * follows the clock of another machine: then one test waits for a second, and the two clocks may differ by a tenth of a
 * second. Other runners work too, see {@link Tester}.
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
export const suite = <E, R = never>(name: string, layer: Layer.Layer<SessionStore, E, R>, test: Tester<R>): void => {
  const register: Test = (operation, title, body) =>
    test(`${name} ${operation}: ${title}`, () =>
      Effect.provide(
        Effect.flatMap(SessionStore, (store) => Effect.gen(() => body(store))),
        layer
      ))

  testFind(register)
  testCreate(register)
  testCommit(register)
  testReplace(register)
  testReplaceAtOnce(register)
  testText(register)
  testExpiry(register)
  testDelete(register)
  testReads(register)
}
