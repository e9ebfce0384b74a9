import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import {
  Cause,
  Clock,
  Config,
  ConfigProvider,
  Context,
  DateTime,
  Duration,
  Effect,
  Exit,
  Fiber,
  Hash,
  HashMap,
  Layer,
  Logger,
  Metric,
  Option,
  References,
  Result,
  Schema,
  Scope,
  Stream
} from "effect"
import { TestClock } from "effect/testing"
import { MemStore, SessionStore } from "effect-sessions"
import { SessionStoreTest } from "effect-sessions/testing"
import { makeHash } from "../src/internal/memory/tokenMap.ts"

const fromNow = (duration: Duration.Input) => Effect.map(DateTime.now, DateTime.addDuration(duration))

/** Commits so many sessions, named by number, that expire after the given time. */
const commitMany = (store: MemStore["Service"], count: number, lifetime: Duration.Input, prefix = "") =>
  Effect.flatMap(fromNow(lifetime), (expiry) =>
    Effect.forEach(
      Array.from({ length: count }, (_, i) => `${prefix}${i}`),
      (token) => store.commit(token, token, expiry),
      { discard: true }
    )
  )

/**
 * Waits until the running sweep removes no more: `TestClock.adjust` waits for what it has woken, but for a second of
 * real time at most.
 */
const sweepEnded = Effect.fnUntraced(function* (store: MemStore["Service"]) {
  let before: number
  do {
    before = yield* store.size
    yield* Effect.replicateEffect(Effect.yieldNow, 200, { discard: true })
  } while ((yield* store.size) !== before)
})

const withStore = <A, E>(
  interval: Duration.Input,
  body: (store: MemStore["Service"]) => Effect.Effect<A, E>
): Effect.Effect<A, E> => Effect.scoped(Effect.flatMap(MemStore.makeWithCleanupInterval(interval), body))

SessionStoreTest.suite("MemStore", MemStore.layer, it.effect)

describe("expiry", () => {
  it.effect("is inclusive: a session is active at its expiry and expired a millisecond later", () =>
    withStore("1 hour", (store) =>
      Effect.gen(function* () {
        yield* store.commit("token", "data", yield* fromNow("1 second"))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* store.find("token"), Option.some("data"))
        assert.strictEqual(HashMap.size(yield* store.all), 1)
        assert.strictEqual(yield* Stream.runCount(store.entries), 1)
        assert.isTrue(yield* store.replace("token", "data", "data", yield* DateTime.now))
        yield* TestClock.adjust("1 millis")
        assert.deepStrictEqual(yield* store.find("token"), Option.none())
        assert.strictEqual(HashMap.size(yield* store.all), 0)
        assert.strictEqual(yield* Stream.runCount(store.entries), 0)
        assert.isFalse(yield* store.replace("token", "data", "data", yield* fromNow("1 hour")))
      })
    )
  )

  it.effect("is inclusive for the sweep too", () =>
    withStore("1 second", (store) =>
      Effect.gen(function* () {
        yield* store.commit("at the sweep", "data", yield* fromNow("1 second"))
        yield* store.commit("just before it", "data", yield* fromNow("999 millis"))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* store.size, 1)
        assert.isTrue(Option.isSome(yield* store.find("at the sweep")))
      })
    )
  )

  it.effect("in the past is allowed: the session is held until the next sweep and never found", () =>
    withStore("1 minute", (store) =>
      Effect.gen(function* () {
        yield* store.commit("token", "data", DateTime.makeUnsafe(-1))
        assert.deepStrictEqual(yield* store.find("token"), Option.none())
        assert.strictEqual(yield* store.size, 1)
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* store.size, 0)
      })
    )
  )
})

describe("replace", () => {
  it.effect("with an expiry that has passed removes the session at once", () =>
    withStore(0, (store) =>
      Effect.gen(function* () {
        yield* store.commit("token", "data", yield* fromNow("1 hour"))
        assert.isFalse(yield* store.replace("token", "other", "new", DateTime.makeUnsafe(-1)))
        assert.strictEqual(yield* store.size, 1)
        assert.isTrue(yield* store.replace("token", "data", "new", DateTime.makeUnsafe(-1)))
        assert.strictEqual(yield* store.size, 0)
      })
    )
  )

  it.effect("takes data that ends like what is held, or begins like it, for another", () =>
    withStore(0, (store) =>
      Effect.gen(function* () {
        const expiry = yield* fromNow("1 hour")
        yield* store.commit("token", "data", expiry)
        for (const other of ["", "ata", "a", "dat", "\0data", "data\0"]) {
          assert.isFalse(yield* store.replace("token", other, "new", expiry))
        }
        assert.isTrue(yield* store.replace("token", "data", "new", expiry))
      })
    )
  )
})

describe("cleanup", () => {
  const isSweptAt = (store: MemStore["Service"], interval: Duration.Duration) =>
    Effect.gen(function* () {
      for (let sweep = 1; sweep <= 3; sweep++) {
        yield* commitMany(store, 10, 0)
        yield* TestClock.adjust(Duration.subtract(interval, Duration.millis(1)))
        assert.strictEqual(yield* store.size, 10)
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* store.size, 0)
      }
    })

  it.effect("sweeps every minute by default, first after one minute", () =>
    Effect.flatMap(MemStore, (store) => isSweptAt(store, Duration.minutes(1))).pipe(Effect.provide(MemStore.layer))
  )

  it.effect("of a store that was made without a layer sweeps every minute too", () =>
    Effect.scoped(Effect.flatMap(MemStore.make, (store) => isSweptAt(store, Duration.minutes(1))))
  )

  it.effect("sweeps at the interval it is given", () =>
    Effect.flatMap(MemStore, (store) => isSweptAt(store, Duration.seconds(7))).pipe(
      Effect.provide(MemStore.layerWithCleanupInterval("7 seconds"))
    )
  )

  it.effect("keeps an interval of 30 days", () => withStore("30 days", (store) => isSweptAt(store, Duration.days(30))))

  /** Runs a test on the clock it has, and hands it the sleeps that were asked of that clock. */
  const watchingSleeps = <A, E, R>(body: (sleeps: ReadonlyArray<Duration.Duration>) => Effect.Effect<A, E, R>) =>
    Effect.gen(function* () {
      const sleeps: Array<Duration.Duration> = []
      const clock = yield* Clock.Clock
      const watched: Clock.Clock = Object.assign(Object.create(clock), {
        sleep: (duration: Duration.Duration) => {
          sleeps.push(duration)
          return clock.sleep(duration)
        }
      })
      return yield* Effect.provideService(body(sleeps), Clock.Clock, watched)
    })

  const severalTurns = Effect.replicateEffect(Effect.yieldNow, 100, { discard: true })

  it.live("with an interval of 30 days neither spins nor fires early on the clock of the machine", () =>
    watchingSleeps((sleeps) =>
      withStore("30 days", (store) =>
        Effect.gen(function* () {
          yield* commitMany(store, 10, "-1 seconds")
          // A timer that overflows would fire after a millisecond.
          const start = performance.now()
          while (performance.now() < start + 20) yield* Effect.yieldNow
          assert.strictEqual(yield* store.size, 10)
          assert.deepStrictEqual(sleeps.map(Duration.toMillis), [Duration.toMillis("30 days")])
        })
      )
    )
  )

  for (const interval of [
    0,
    "0 seconds",
    -1,
    "-5 minutes",
    "Infinity",
    "-Infinity",
    Duration.zero,
    { seconds: 0 },
    { minutes: 1, seconds: -60 },
    [0, 0]
  ] as const) {
    it.effect(`does not run at an interval of ${JSON.stringify(interval)}`, () =>
      watchingSleeps((sleeps) =>
        withStore(interval, (store) =>
          Effect.gen(function* () {
            yield* commitMany(store, 10, "1 second")
            yield* TestClock.adjust("365 days")
            yield* severalTurns
            assert.strictEqual(yield* store.size, 10)
            assert.strictEqual(HashMap.size(yield* store.all), 0)
            assert.deepStrictEqual(sleeps, [])
            yield* store.stopCleanup
          })
        )
      )
    )
  }

  for (const [value, name] of [
    ["soon", "soon"],
    [Number.NaN, "NaN"],
    [undefined, "undefined"],
    [null, "null"],
    [{}, "{}"],
    [{ minute: 5 }, "minute"],
    [{ minute: 0 }, "minute"],
    [{ seconds: "5" }, "seconds"],
    [[Number.NaN, 0], "NaN"],
    [Symbol("interval"), "Symbol(interval)"],
    [() => 1, "=>"]
  ] as const) {
    it.effect(`fails to start with a message that names ${name} where that is no duration`, () =>
      Effect.gen(function* () {
        // What a caller without types can do.
        const exit = yield* Effect.exit(
          Effect.scoped(MemStore.makeWithCleanupInterval(value as unknown as Duration.Input))
        )
        const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
        assert.instanceOf(defect, TypeError)
        assert.include(defect.message, "MemStore: the cleanup interval is no duration")
        assert.include(defect.message, name)
      })
    )
  }

  it.effect("removes exactly the expired among tens of thousands of sessions", () =>
    withStore("1 minute", (store) =>
      Effect.gen(function* () {
        yield* commitMany(store, 30_000, "30 seconds", "expired ")
        yield* commitMany(store, 20_000, "2 minutes", "active ")
        yield* TestClock.adjust("1 minute")
        yield* sweepEnded(store)
        assert.strictEqual(yield* store.size, 20_000)
        const active = yield* store.all
        assert.strictEqual(HashMap.size(active), 20_000)
        assert.isTrue(HashMap.every(active, (data, token) => token === data))
        yield* TestClock.adjust("1 minute")
        yield* sweepEnded(store)
        assert.strictEqual(yield* store.size, 20_000)
        yield* TestClock.adjust("1 minute")
        yield* sweepEnded(store)
        assert.strictEqual(yield* store.size, 0)
      })
    )
  )

  it.effect("loses nothing that is committed, replaced or deleted during a sweep", () =>
    withStore("1 minute", (store) =>
      Effect.gen(function* () {
        const count = 20_000
        yield* commitMany(store, count, "30 seconds", "expired ")
        yield* commitMany(store, count, "10 minutes", "active ")
        const sweep = yield* Effect.forkChild(TestClock.adjust("1 minute"), { startImmediately: true })
        const expiry = DateTime.makeUnsafe(Duration.toMillis("10 minutes"))
        const sizes = new Set<number>()
        for (let i = 0; i < count; i++) {
          if (i % 4 === 0) yield* store.commit(`expired ${i}`, "renewed", expiry)
          if (i % 4 === 1) yield* store.commit(`new ${i}`, "new", expiry)
          if (i % 4 === 2) {
            assert.isTrue(yield* store.replace(`active ${i}`, `active ${i}`, "replaced", expiry))
          }
          if (i % 4 === 3) yield* store.delete(`active ${i}`)
          if (i % 100 === 0) {
            sizes.add(yield* store.size)
            yield* Effect.yieldNow
          }
        }
        yield* Fiber.join(sweep)
        yield* sweepEnded(store)
        assert.isAbove(sizes.size, 20, "the sweep and the changes must have taken turns")

        const all = yield* store.all
        const expected = new Map<string, string>()
        for (let i = 0; i < count; i++) {
          if (i % 4 === 0) expected.set(`expired ${i}`, "renewed")
          if (i % 4 === 1) expected.set(`new ${i}`, "new")
          if (i % 4 !== 3) expected.set(`active ${i}`, i % 4 === 2 ? "replaced" : `active ${i}`)
        }
        assert.deepStrictEqual(new Map(all), expected)
        assert.strictEqual(yield* store.size, expected.size)
      })
    )
  )

  it.effect("spares a session that was renewed after the sweep began and before the sweep reached it", () =>
    withStore("1 minute", (store) =>
      Effect.gen(function* () {
        const count = 10_000
        yield* commitMany(store, count, "30 seconds")
        const sweep = yield* Effect.forkChild(TestClock.adjust("1 minute"), { startImmediately: true })
        while ((yield* store.size) === count) yield* Effect.yieldNow
        assert.isAbove(yield* store.size, 0)
        const expiry = DateTime.makeUnsafe(Duration.toMillis("1 hour"))
        for (let i = 0; i < count; i++) yield* store.commit(`${i}`, "renewed", expiry)
        yield* Fiber.join(sweep)
        assert.strictEqual(yield* store.size, count)
        assert.strictEqual(HashMap.size(yield* store.all), count)
      })
    )
  )

  it.effect("never lets ten minutes of traffic hold more than the active and the lately expired sessions", () =>
    withStore("1 minute", (store) =>
      Effect.gen(function* () {
        const expiries = new Map<string, number>()
        const commit = Effect.fnUntraced(function* (token: string, lifetime: Duration.Input) {
          const expiry = yield* fromNow(lifetime)
          expiries.set(token, DateTime.toEpochMillis(expiry))
          yield* store.commit(token, token, expiry)
        })
        let mostHeld = 0
        for (let second = 1; second <= 600; second++) {
          for (let visitor = 0; visitor < 20; visitor++)
            yield* commit(`${second} ${visitor}`, `${10 + visitor * 4} seconds`)
          for (let visitor = 0; visitor < 20; visitor += 5) yield* commit(`${second - 8} ${visitor}`, "30 seconds")
          yield* TestClock.adjust("1 second")
          const now = yield* Clock.currentTimeMillis
          const bound = [...expiries.values()].filter((expiry) => expiry >= now - Duration.toMillis("1 minute")).length
          const held = yield* store.size
          assert.isAtMost(held, bound)
          mostHeld = Math.max(mostHeld, held)
        }
        assert.isAbove(expiries.size, 12_000)
        assert.isBelow(mostHeld, expiries.size / 4)
        yield* TestClock.adjust("3 minutes")
        assert.strictEqual(yield* store.size, 0)
      })
    )
  )
})

describe("capacity", () => {
  const withCapacity = <A, E>(
    capacity: number,
    body: (store: MemStore["Service"]) => Effect.Effect<A, E>,
    cleanupInterval: Duration.Input = 0
  ) => Effect.provide(Effect.flatMap(MemStore, body), MemStore.layerWith({ capacity, cleanupInterval }))

  it.effect("is never exceeded in a flood of new visitors, and those who are here for long stay", () =>
    withCapacity(2_000, (store) =>
      Effect.gen(function* () {
        yield* commitMany(store, 200, "100 hours", "long ")
        let mostHeld = 0
        for (let visitor = 0; visitor < 40_000; visitor++) {
          const expiry = DateTime.makeUnsafe(Duration.toMillis("1 hour") + visitor)
          if (visitor % 2 === 0) yield* store.commit(`visitor ${visitor}`, "data", expiry)
          else assert.isTrue(yield* store.create(`visitor ${visitor}`, "data", expiry))
          mostHeld = Math.max(mostHeld, yield* store.size)
        }
        assert.strictEqual(mostHeld, 2_000)
        const long = [...HashMap.keys(yield* store.all)].filter((token) => token.startsWith("long ")).length
        assert.isAtLeast(long, 198)
      })
    )
  )

  it.effect("lets the long sessions stay when a whole flood has been swept and another one comes", () =>
    withCapacity(
      2_000,
      (store) =>
        Effect.gen(function* () {
          yield* commitMany(store, 200, "100 hours", "long ")
          for (let flood = 1; flood <= 5; flood++) {
            yield* commitMany(store, 2_100, "30 seconds", `${flood} `)
            yield* TestClock.adjust("1 minute")
            yield* sweepEnded(store)
            assert.strictEqual(yield* store.size, 200)
          }
          assert.strictEqual(HashMap.size(yield* store.all), 200)
        }),
      "1 minute"
    )
  )

  it.effect("evicts by the expiry that a session has now, not by that of a snapshot", () =>
    withCapacity(64, (store) =>
      Effect.gen(function* () {
        yield* commitMany(store, 32, "30 minutes", "used ")
        yield* commitMany(store, 32, "1 hour", "unused ")
        // One has to go, and the snapshot of that moment lasts for three more.
        yield* store.commit("first", "data", yield* fromNow("2 hours"))
        const used = [...HashMap.keys(yield* store.all)].filter((token) => token.startsWith("used "))
        for (const token of used) yield* store.commit(token, "used", yield* fromNow("3 hours"))
        yield* commitMany(store, 3, "2 hours", "new ")
        const left = yield* store.all
        assert.deepStrictEqual(
          used.filter((token) => !HashMap.has(left, token)),
          []
        )
      })
    )
  )

  it.effect("evicts expired sessions first, which counts as a sweep and needs no warning", () => {
    const logs: Array<unknown> = []
    return withCapacity(10, (store) =>
      Effect.gen(function* () {
        yield* commitMany(store, 5, "1 hour", "active ")
        yield* commitMany(store, 5, "1 second", "expired ")
        yield* TestClock.adjust("2 seconds")
        yield* commitMany(store, 5, "1 minute", "new ")
        assert.deepStrictEqual(
          new Set(HashMap.keys(yield* store.all)),
          new Set(Array.from({ length: 5 }, (_, i) => [`active ${i}`, `new ${i}`]).flat())
        )
        assert.strictEqual(yield* store.size, 10)
        const metrics = yield* Metric.snapshot
        assert.deepInclude(metrics.find((metric) => metric.id === "sessions_swept")?.state, { count: 5 })
        assert.isUndefined(metrics.find((metric) => metric.id === "sessions_evicted"))
        assert.deepStrictEqual(logs, [])
      })
    ).pipe(
      Effect.provide(Logger.layer([Logger.make(({ message }) => void logs.push(message))])),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  })

  it.effect("that is full of nothing but expired sessions makes room by one of them", () =>
    withCapacity(3, (store) =>
      Effect.gen(function* () {
        yield* commitMany(store, 3, "1 second", "expired ")
        yield* TestClock.adjust("2 seconds")
        assert.isTrue(yield* store.create("new", "data", yield* fromNow("1 hour")))
        assert.isTrue(Option.isSome(yield* store.find("new")))
        assert.strictEqual(yield* store.size, 3)
      })
    )
  )

  it.effect("of one holds the newest session", () =>
    withCapacity(1, (store) =>
      Effect.gen(function* () {
        for (const token of ["a", "b", "c"]) {
          yield* store.commit(token, token, yield* fromNow(token === "b" ? "2 hours" : "1 hour"))
          assert.deepStrictEqual([...(yield* store.all)], [[token, token]])
        }
      })
    )
  )

  it.effect("is no reason to evict where a session is overwritten or replaced, or cannot be created", () =>
    withCapacity(3, (store) =>
      Effect.gen(function* () {
        yield* commitMany(store, 3, "1 hour")
        const later = yield* fromNow("2 hours")
        yield* store.commit("1", "overwritten", later)
        assert.isTrue(yield* store.replace("2", "2", "replaced", later))
        assert.isFalse(yield* store.create("0", "created", later))
        assert.deepStrictEqual(
          new Map(yield* store.all),
          new Map([
            ["0", "0"],
            ["1", "overwritten"],
            ["2", "replaced"]
          ])
        )
        // The place of an expired session is taken by the new one that has its token.
        yield* store.commit("0", "expired", DateTime.makeUnsafe(-1))
        assert.isTrue(yield* store.create("0", "created", later))
        assert.strictEqual(HashMap.size(yield* store.all), 3)
      })
    )
  )

  it.effect("is not spent on a session that is committed when it has expired", () =>
    withCapacity(2, (store) =>
      Effect.gen(function* () {
        yield* commitMany(store, 2, "1 hour")
        yield* store.commit("expired", "data", DateTime.makeUnsafe(-1))
        assert.strictEqual(HashMap.size(yield* store.all), 2)
        assert.strictEqual(yield* store.size, 2)
      })
    )
  )

  it.effect("and a sweep at once lose nothing active but what had to go and was counted", () =>
    withCapacity(
      10_000,
      (store) =>
        Effect.gen(function* () {
          yield* commitMany(store, 5_000, "30 seconds", "expired ")
          yield* commitMany(store, 5_000, "10 hours", "active ")
          const sweep = yield* Effect.forkChild(TestClock.adjust("1 minute"), { startImmediately: true })
          const expiry = DateTime.makeUnsafe(Duration.toMillis("10 hours"))
          const sizes = new Set<number>()
          for (let i = 0; i < 5_000; i++) {
            const held = yield* store.size
            yield* store.commit(`new ${i}`, "new", expiry)
            assert.strictEqual(yield* store.size, Math.min(held + 1, 10_000))
            sizes.add(held)
            if (i % 10 === 0) yield* Effect.yieldNow
          }
          yield* Fiber.join(sweep)
          yield* sweepEnded(store)
          assert.isAbove(sizes.size, 20, "the sweep and the evictions must have taken turns")
          const metrics = yield* Metric.snapshot
          const count = (id: string): number => {
            const state = metrics.find((metric) => metric.id === id)?.state
            return state !== undefined && "count" in state ? Number(state.count) : 0
          }
          // All expired ones are gone, and each session that is gone was counted, once.
          const held = yield* store.size
          assert.strictEqual(HashMap.size(yield* store.all), held)
          assert.strictEqual(15_000 - count("sessions_swept") - count("sessions_evicted"), held)
        }),
      "1 minute"
    ).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("counts what it evicts, and warns once a minute at most", () => {
    const logs: Array<string> = []
    return withCapacity(10, (store) =>
      Effect.gen(function* () {
        yield* commitMany(store, 10, "1 hour")
        assert.deepStrictEqual(logs, [])
        yield* commitMany(store, 20, "1 hour", "secret ")
        assert.deepStrictEqual(logs, [
          "Warn The session store is full: it evicts active sessions so as to hold no more than 10"
        ])
        yield* TestClock.adjust("59 seconds")
        yield* commitMany(store, 5, "1 hour", "a minute later ")
        assert.strictEqual(logs.length, 1)
        yield* TestClock.adjust("1 second")
        yield* commitMany(store, 5, "1 hour", "and a second ")
        assert.strictEqual(logs.length, 2)
        const evicted = (yield* Metric.snapshot).find((metric) => metric.id === "sessions_evicted")
        assert.deepInclude(evicted?.state, { count: 30, incremental: true })
      })
    ).pipe(
      Effect.provide(Logger.layer([Logger.make(({ logLevel, message }) => void logs.push(`${logLevel} ${message}`))])),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  })

  it.effect("evicts where a logger throws, and the commit succeeds", () =>
    withCapacity(1, (store) =>
      Effect.gen(function* () {
        yield* commitMany(store, 3, "1 hour")
        assert.strictEqual(yield* store.size, 1)
      })
    ).pipe(
      Effect.provide(
        Logger.layer([
          Logger.make(() => {
            throw new Error("a logger that is broken")
          })
        ])
      )
    )
  )

  for (const [value, name] of [
    [0, "0"],
    [-1, "-1"],
    [1.5, "1.5"],
    [Number.NaN, "NaN"],
    [Number.NEGATIVE_INFINITY, "-Infinity"],
    [2 ** 53, "9007199254740992"],
    ["10", "10"],
    [null, "null"]
  ] as const) {
    it.effect(`that is ${String(value)} fails to start with a message that names it`, () =>
      Effect.gen(function* () {
        // What a caller without types can do.
        const exit = yield* Effect.exit(withCapacity(value as number, () => Effect.void))
        const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
        assert.instanceOf(defect, TypeError)
        assert.include(defect.message, "MemStore: the capacity is not a positive integer")
        assert.include(defect.message, name)
      })
    )
  }

  for (const options of [{}, { capacity: undefined }, { capacity: Number.POSITIVE_INFINITY }] as const) {
    it.effect(`of ${Object.values(options)[0] ?? "nothing"} is no bound, with a sweep every minute`, () =>
      Effect.gen(function* () {
        const store = yield* MemStore
        yield* commitMany(store, 3_000, "30 seconds")
        yield* TestClock.adjust("59 seconds")
        assert.strictEqual(yield* store.size, 3_000)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* store.size, 0)
      }).pipe(Effect.provide(MemStore.layerWith(options)))
    )
  }
})

describe("tokens that collide under Effect's hash", () => {
  /** Tokens of 30 characters: each pair of them is one of two that lead Effect's hash to the same number. */
  const colliding = (bits: number): Array<string> => {
    const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    let tokens = [""]
    for (let bit = 0; bit < bits; bit++) {
      const seen = new Map<number, string>()
      const twin = (): readonly [string, string] => {
        for (const first of letters) {
          for (const second of letters) {
            const pair = first + second
            // The hash goes through a string from its end.
            const hash = Hash.string(pair + tokens[0])
            const other = seen.get(hash)
            if (other !== undefined) return [other, pair]
            seen.set(hash, pair)
          }
        }
        return assert.fail("There is no pair")
      }
      const pairs = twin()
      tokens = pairs.flatMap((pair) => tokens.map((token) => pair + token))
    }
    return tokens
  }

  it.effect("are kept apart, and do not collide in the store", () =>
    withStore(0, (store) =>
      Effect.gen(function* () {
        const tokens = colliding(12)
        assert.strictEqual(new Set(tokens).size, 4_096)
        assert.strictEqual(new Set(tokens.map(Hash.string)).size, 1)
        const expiry = yield* fromNow("1 hour")
        for (const token of tokens) yield* store.commit(token, token, expiry)
        for (const token of tokens) assert.deepStrictEqual(yield* store.find(token), Option.some(token))
        const hash = makeHash()
        assert.isAbove(new Set(tokens.map(hash)).size, 4_000)
        for (const token of tokens) yield* store.delete(token)
        assert.strictEqual(yield* store.size, 0)
      })
    )
  )

  it("hash otherwise in each store, and equal ones alike", () => {
    const [one, other] = [makeHash(), makeHash()]
    for (const token of ["", "a", "ab", "abc", "a\0", "\uffff", "é", "x".repeat(1_000)]) {
      assert.strictEqual(one(token), one(`${token} `.slice(0, -1)))
      assert.notStrictEqual(one(token), other(token))
    }
  })
})

describe("stopCleanup", () => {
  it.effect("ends the cleanup, and the store works on", () =>
    withStore("1 minute", (store) =>
      Effect.gen(function* () {
        yield* store.commit("token", "data", yield* fromNow("1 second"))
        yield* store.stopCleanup
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(yield* store.size, 1)
        assert.deepStrictEqual(yield* store.find("token"), Option.none())
        yield* store.commit("token", "new", yield* fromNow("1 second"))
        assert.deepStrictEqual(yield* store.find("token"), Option.some("new"))
      })
    )
  )

  it.effect("can be called again, and by several fibers at once", () =>
    withStore("1 minute", (store) =>
      Effect.gen(function* () {
        yield* Effect.replicateEffect(store.stopCleanup, 10, { concurrency: "unbounded" })
        yield* store.stopCleanup
        yield* commitMany(store, 10, 0)
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(yield* store.size, 10)
      })
    )
  )

  it.effect("ends a sweep in the middle, and has ended it when it returns", () =>
    withStore("1 minute", (store) =>
      Effect.gen(function* () {
        yield* commitMany(store, 20_000, "30 seconds")
        const sweep = yield* Effect.forkChild(TestClock.adjust("1 minute"), { startImmediately: true })
        while ((yield* store.size) === 20_000) yield* Effect.yieldNow
        yield* store.stopCleanup
        const left = yield* store.size
        yield* Fiber.join(sweep)
        for (let turn = 0; turn < 1_000; turn++) yield* Effect.yieldNow
        assert.strictEqual(yield* store.size, left)
        assert.isAbove(left, 0)
      })
    )
  )
})

describe("the scope", () => {
  it.effect("ends the cleanup when it closes, and the store works on", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const store = yield* Scope.provide(MemStore.make, scope)
      yield* commitMany(store, 10, "30 seconds")
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* store.size, 10)
      yield* store.commit("token", "data", yield* fromNow("1 second"))
      assert.deepStrictEqual(yield* store.find("token"), Option.some("data"))
      yield* store.stopCleanup
    })
  )

  it.effect("ends a sweep in the middle when it closes, also where it was opened uninterruptibly", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const store = yield* Effect.uninterruptible(Scope.provide(MemStore.make, scope))
      yield* commitMany(store, 20_000, "30 seconds")
      const sweep = yield* Effect.forkChild(TestClock.adjust("1 minute"), { startImmediately: true })
      while ((yield* store.size) === 20_000) yield* Effect.yieldNow
      yield* Scope.close(scope, Exit.void)
      const left = yield* store.size
      yield* Fiber.join(sweep)
      for (let turn = 0; turn < 1_000; turn++) yield* Effect.yieldNow
      assert.strictEqual(yield* store.size, left)
      assert.isAbove(left, 0)
    })
  )
})

describe("all and entries", () => {
  const during = <A>(read: (store: MemStore["Service"]) => Effect.Effect<A>) =>
    withStore(0, (store) =>
      Effect.gen(function* () {
        const count = 10_000
        yield* commitMany(store, count, "1 minute")
        const expiry = yield* fromNow("1 hour")
        const reader = yield* Effect.forkChild(read(store), { startImmediately: true })
        for (let i = 0; i < count; i++) {
          yield* i % 2 === 0 ? store.commit(`${i}`, "changed", expiry) : store.delete(`${i}`)
          yield* store.commit(`new ${i}`, "new", expiry)
        }
        yield* TestClock.adjust("2 minutes")
        return { count, read: yield* Fiber.join(reader) }
      })
    )

  it.effect("all is what the store held when it began", () =>
    Effect.gen(function* () {
      const { count, read } = yield* during((store) => store.all)
      assert.strictEqual(HashMap.size(read), count)
      assert.isTrue(HashMap.every(read, (data, token) => token === data))
    })
  )

  it.effect("entries is what the store held when it began", () =>
    Effect.gen(function* () {
      const { count, read } = yield* during((store) => Stream.runCollect(store.entries))
      assert.strictEqual(read.length, count)
      assert.isTrue(read.every(([token, data]) => token === data))
    })
  )

  /** How often another fiber had its turn while the work was done. */
  const turnsDuring = Effect.fnUntraced(function* (work: Effect.Effect<unknown>) {
    const worker = yield* Effect.forkChild(work, { startImmediately: true })
    let turns = 0
    while (worker.pollUnsafe() === undefined) {
      turns++
      yield* Effect.yieldNow
    }
    return turns
  })

  it.effect("neither, nor a sweep, keeps other fibers waiting, however many sessions have expired", () =>
    withStore("1 minute", (store) =>
      Effect.gen(function* () {
        yield* commitMany(store, 50_000, "30 seconds")
        yield* store.commit("active", "data", yield* fromNow("1 hour"))
        yield* TestClock.adjust("31 seconds")
        // At most 32 entries a turn
        assert.isAbove(yield* turnsDuring(store.all), 1_560)
        assert.isAbove(yield* turnsDuring(Stream.runDrain(store.entries)), 1_560)
        assert.isAbove(yield* turnsDuring(Effect.andThen(TestClock.adjust("29 seconds"), sweepEnded(store))), 1_560)
        assert.strictEqual(yield* store.size, 1)
      })
    )
  )

  it.effect("neither keeps other fibers waiting for more than a millisecond where a single session takes one", () =>
    withStore(0, (store) =>
      Effect.gen(function* () {
        yield* commitMany(store, 100, "1 hour")
        const clock = yield* Clock.Clock
        let now = clock.currentTimeMillisUnsafe()
        const slow: Clock.Clock = Object.assign(Object.create(clock), { currentTimeMillisUnsafe: () => now++ })
        for (const read of [store.all, Stream.runDrain(store.entries)]) {
          assert.isAtLeast(yield* turnsDuring(Effect.provideService(read, Clock.Clock, slow)), 100)
        }
      })
    )
  )

  it.effect("all can be interrupted, and run again", () =>
    withStore(0, (store) =>
      Effect.gen(function* () {
        yield* commitMany(store, 10_000, "1 minute")
        const all = store.all
        const reader = yield* Effect.forkChild(all, { startImmediately: true })
        yield* Effect.yieldNow
        yield* Fiber.interrupt(reader)
        assert.isTrue(Exit.isFailure(yield* Fiber.await(reader)))
        assert.strictEqual(HashMap.size(yield* all), 10_000)
      })
    )
  )
})

describe("layers", () => {
  /** A service as in an application: it does not depend on MemStore. */
  class Carts extends Context.Service<
    Carts,
    { readonly add: (token: string, item: string) => Effect.Effect<string, never> }
  >()("test/Carts") {
    static readonly layer = Layer.effect(
      Carts,
      Effect.gen(function* () {
        const store = yield* SessionStore
        return Carts.of({
          add: Effect.fnUntraced(function* (token, item) {
            const found = Option.getOrElse(yield* store.find(token), () => "")
            const cart = `${found}${item};`
            yield* store.commit(token, cart, yield* fromNow("1 hour"))
            return cart
          }, Effect.orDie)
        })
      })
    )
  }

  it.effect("provide MemStore and SessionStore from one store", () =>
    Effect.gen(function* () {
      const memStore = yield* MemStore
      const store = yield* SessionStore
      yield* store.commit("token", "data", yield* fromNow("1 hour"))
      assert.deepStrictEqual(yield* memStore.find("token"), Option.some("data"))
      assert.strictEqual(yield* memStore.size, 1)
    }).pipe(Effect.provide(MemStore.layer))
  )

  it.effect("compose with a service that depends on SessionStore", () =>
    Effect.gen(function* () {
      const carts = yield* Carts
      yield* carts.add("token", "tea")
      assert.strictEqual(yield* carts.add("token", "milk"), "tea;milk;")
      assert.strictEqual(yield* (yield* MemStore).size, 1)
    }).pipe(Effect.provide(Layer.provideMerge(Carts.layer, MemStore.layer)))
  )

  const sizeOf = <E>(layer: Layer.Layer<MemStore, E>) =>
    Effect.provide(
      Effect.flatMap(MemStore, (_) => _.size),
      layer
    )

  it.effect("built once and shared are one store", () =>
    Effect.gen(function* () {
      const fill = Layer.effectDiscard(Effect.flatMap(MemStore, (store) => commitMany(store, 3, "1 hour")))
      const sessions = MemStore.layerWithCleanupInterval("1 hour")
      const app = Layer.mergeAll(sessions, Layer.provide(fill, sessions))
      assert.strictEqual(yield* sizeOf(app), 3)
    })
  )

  it.effect("called for twice are two stores", () =>
    Effect.gen(function* () {
      const fill = Layer.effectDiscard(Effect.flatMap(MemStore, (store) => commitMany(store, 3, "1 hour")))
      const app = Layer.mergeAll(
        MemStore.layerWithCleanupInterval("1 hour"),
        Layer.provide(fill, MemStore.layerWithCleanupInterval("1 hour"))
      )
      assert.strictEqual(yield* sizeOf(app), 0)
    })
  )

  it.effect("provided in two places side by side are two stores", () =>
    Effect.gen(function* () {
      yield* Effect.provide(
        Effect.flatMap(MemStore, (store) => commitMany(store, 3, "1 hour")),
        MemStore.layer
      )
      assert.strictEqual(yield* sizeOf(MemStore.layer), 0)
    })
  )

  it.effect("take the cleanup interval from the configuration", () =>
    Effect.gen(function* () {
      const store = yield* MemStore
      yield* commitMany(store, 10, 0)
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual(yield* store.size, 10)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* store.size, 0)
    }).pipe(
      Effect.provide(MemStore.layerConfig({ cleanupInterval: Config.Duration("CLEANUP") })),
      Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromUnknown({ CLEANUP: "10 seconds" }))
    )
  )

  it.effect("take the capacity from the configuration too", () =>
    Effect.gen(function* () {
      const store = yield* MemStore
      yield* commitMany(store, 10, "1 hour")
      assert.strictEqual(yield* store.size, 7)
    }).pipe(
      Effect.provide(
        MemStore.layerConfig({ cleanupInterval: Config.Duration("CLEANUP"), capacity: Config.Int("CAPACITY") })
      ),
      Effect.provideService(
        ConfigProvider.ConfigProvider,
        ConfigProvider.fromUnknown({ CLEANUP: "10 seconds", CAPACITY: "7" })
      )
    )
  )

  it.effect("fail with a ConfigError where the configuration is missing or no duration", () =>
    Effect.gen(function* () {
      for (const environment of [{}, { CLEANUP: "soon" }]) {
        const result = yield* sizeOf(MemStore.layerConfig({ cleanupInterval: Config.Duration("CLEANUP") })).pipe(
          Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromUnknown(environment)),
          Effect.result
        )
        assert.strictEqual(Result.isFailure(result) && result.failure._tag, "ConfigError")
      }
    })
  )
})

describe("observability", () => {
  const token = "a-token-that-nobody-may-see"

  it.effect("counts the sessions held and swept and the time of a sweep, apart for each store that is told apart", () =>
    Effect.gen(function* () {
      const sweepOnce = (name: string, held: number, swept: number) =>
        Effect.gen(function* () {
          const store = yield* MemStore
          yield* commitMany(store, swept, "30 seconds", token)
          yield* commitMany(store, held, "10 minutes")
          yield* TestClock.adjust("2 minutes")
        }).pipe(
          Effect.provide(
            Layer.provide(
              MemStore.layerWithCleanupInterval("1 minute"),
              Layer.succeed(Metric.CurrentMetricAttributes, { store: name })
            )
          )
        )
      yield* sweepOnce("one", 7, 3)
      yield* sweepOnce("two", 5, 2)
      const metrics = (yield* Metric.snapshot).map((metric) => [metric.id, metric.attributes?.store, metric.state])
      const of = (id: string, store: string) => metrics.find((metric) => metric[0] === id && metric[1] === store)?.[2]
      assert.deepInclude(of("sessions_held", "one"), { value: 7 })
      assert.deepInclude(of("sessions_swept", "one"), { count: 3 })
      assert.deepInclude(of("session_sweep_duration", "one"), { count: 2 })
      assert.deepInclude(of("sessions_held", "two"), { value: 5 })
      assert.deepInclude(of("sessions_swept", "two"), { count: 2 })
      assert.notInclude(JSON.stringify(metrics), token)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("counts what a sweep removed before it was stopped", () =>
    withStore("1 minute", (store) =>
      Effect.gen(function* () {
        yield* commitMany(store, 20_000, "30 seconds")
        const sweep = yield* Effect.forkChild(TestClock.adjust("1 minute"), { startImmediately: true })
        while ((yield* store.size) === 20_000) yield* Effect.yieldNow
        yield* store.stopCleanup
        yield* Fiber.join(sweep)
        const swept = (yield* Metric.snapshot).find((metric) => metric.id === "sessions_swept")
        assert.deepInclude(swept?.state, { count: 20_000 - (yield* store.size) })
      })
    ).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("says of the count of what was swept that it only grows", () =>
    withStore("1 minute", (store) =>
      Effect.gen(function* () {
        yield* commitMany(store, 3, "30 seconds")
        yield* TestClock.adjust("1 minute")
        const swept = (yield* Metric.snapshot).find((metric) => metric.id === "sessions_swept")
        assert.deepInclude(swept?.state, { count: 3, incremental: true })
      })
    ).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("goes on sweeping where a logger throws", () =>
    withStore("1 minute", (store) =>
      Effect.gen(function* () {
        for (let sweep = 1; sweep <= 3; sweep++) {
          yield* commitMany(store, 3, "30 seconds")
          yield* TestClock.adjust("1 minute")
          assert.strictEqual(yield* store.size, 0)
        }
      })
    ).pipe(
      Effect.provide(
        Logger.layer([
          Logger.make(() => {
            throw new Error("a logger that is broken")
          })
        ])
      ),
      Effect.provideService(References.MinimumLogLevel, "Debug")
    )
  )

  it.effect("logs what a sweep removed, at debug level, without a token", () =>
    Effect.gen(function* () {
      const logs: Array<string> = []
      const logger = Logger.make(({ logLevel, message }) => {
        logs.push(`${logLevel} ${message}`)
      })
      yield* withStore("1 minute", (store) =>
        Effect.andThen(commitMany(store, 3, "30 seconds", token), TestClock.adjust("1 minute"))
      ).pipe(Effect.provide(Logger.layer([logger])), Effect.provideService(References.MinimumLogLevel, "Debug"))
      assert.deepStrictEqual(logs, ["Debug Session cleanup removed 3 expired sessions and left 0"])
    })
  )
})

describe("a model", () => {
  const Command = Schema.Union([
    Schema.TaggedStruct("commit", {
      token: Schema.Literals(["a", "b", "c"]),
      data: Schema.Literals(["x", "y"]),
      lifetime: Schema.Int.check(Schema.isBetween({ minimum: -2, maximum: 9 }))
    }),
    Schema.TaggedStruct("create", {
      token: Schema.Literals(["a", "b", "c"]),
      data: Schema.Literals(["x", "y"]),
      lifetime: Schema.Int.check(Schema.isBetween({ minimum: -2, maximum: 9 }))
    }),
    Schema.TaggedStruct("replace", {
      token: Schema.Literals(["a", "b", "c"]),
      expected: Schema.Literals(["x", "y"]),
      data: Schema.Literals(["x", "y"]),
      lifetime: Schema.Int.check(Schema.isBetween({ minimum: -2, maximum: 9 }))
    }),
    Schema.TaggedStruct("find", { token: Schema.Literals(["a", "b", "c"]) }),
    Schema.TaggedStruct("delete", { token: Schema.Literals(["a", "b", "c"]) }),
    Schema.TaggedStruct("all", {}),
    Schema.TaggedStruct("adjust", { seconds: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 5 })) })
  ])

  it.effect.prop(
    "of a plain Map with expiries behaves like the store, whatever is done to both",
    { commands: Schema.Array(Command).check(Schema.isMaxLength(60)) },
    ({ commands }) =>
      withStore("4 seconds", (store) =>
        Effect.gen(function* () {
          const model = new Map<string, { readonly data: string; readonly expiry: number }>()
          const started = yield* Clock.currentTimeMillis
          let now = started
          const active = (token: string) => {
            const held = model.get(token)
            return held !== undefined && now <= held.expiry ? Option.some(held.data) : Option.none()
          }
          for (const command of commands) {
            switch (command._tag) {
              case "commit": {
                const expiry = now + command.lifetime * 1000
                yield* store.commit(command.token, command.data, DateTime.makeUnsafe(expiry))
                model.set(command.token, { data: command.data, expiry })
                break
              }
              case "replace": {
                const expiry = now + command.lifetime * 1000
                const replaced = Option.getOrUndefined(active(command.token)) === command.expected
                assert.strictEqual(
                  yield* store.replace(command.token, command.expected, command.data, DateTime.makeUnsafe(expiry)),
                  replaced
                )
                if (replaced && expiry < now) model.delete(command.token)
                else if (replaced) model.set(command.token, { data: command.data, expiry })
                break
              }
              case "create": {
                const expiry = now + command.lifetime * 1000
                const created = Option.isNone(active(command.token))
                assert.strictEqual(
                  yield* store.create(command.token, command.data, DateTime.makeUnsafe(expiry)),
                  created
                )
                if (created) model.set(command.token, { data: command.data, expiry })
                break
              }
              case "find": {
                assert.deepStrictEqual(yield* store.find(command.token), active(command.token))
                break
              }
              case "delete": {
                yield* store.delete(command.token)
                model.delete(command.token)
                break
              }
              case "all": {
                const expected = [...model].filter(([token]) => Option.isSome(active(token)))
                assert.deepStrictEqual(
                  new Map(yield* store.all),
                  new Map(expected.map(([token, { data }]) => [token, data]))
                )
                break
              }
              case "adjust": {
                yield* TestClock.adjust(Duration.seconds(command.seconds))
                now += command.seconds * 1000
                const sweptAt = now - ((now - started) % 4_000)
                if (sweptAt > started && sweptAt > now - command.seconds * 1000) {
                  for (const [token, { expiry }] of model) if (expiry < sweptAt) model.delete(token)
                }
                break
              }
            }
            assert.strictEqual(yield* store.size, model.size)
          }
        })
      ),
    { arbitrary: { runs: 300 } }
  )
})

describe("types", () => {
  it("MemStore.layer provides MemStore and SessionStore, needs nothing and cannot fail", () => {
    expectTypeOf(MemStore.layer).toEqualTypeOf<Layer.Layer<MemStore | SessionStore>>()
    expectTypeOf(MemStore.layerWithCleanupInterval).returns.toEqualTypeOf<Layer.Layer<MemStore | SessionStore>>()
    expectTypeOf(MemStore.layerWith).returns.toEqualTypeOf<Layer.Layer<MemStore | SessionStore>>()
    expectTypeOf(MemStore.layerConfig).returns.toEqualTypeOf<Layer.Layer<MemStore | SessionStore, Config.ConfigError>>()
    expectTypeOf(MemStore.make).toEqualTypeOf<Effect.Effect<MemStore["Service"], never, Scope.Scope>>()
  })

  it("no operation of MemStore can fail", () => {
    type Store = MemStore["Service"]
    expectTypeOf<ReturnType<Store["find"]>>().toEqualTypeOf<Effect.Effect<Option.Option<string>>>()
    expectTypeOf<ReturnType<Store["create"]>>().toEqualTypeOf<Effect.Effect<boolean>>()
    expectTypeOf<ReturnType<Store["commit"]>>().toEqualTypeOf<Effect.Effect<void>>()
    expectTypeOf<ReturnType<Store["replace"]>>().toEqualTypeOf<Effect.Effect<boolean>>()
    expectTypeOf<ReturnType<Store["delete"]>>().toEqualTypeOf<Effect.Effect<void>>()
    expectTypeOf<Store["all"]>().toEqualTypeOf<Effect.Effect<HashMap.HashMap<string, string>>>()
    expectTypeOf<Store["entries"]>().toEqualTypeOf<Stream.Stream<readonly [token: string, data: string]>>()
    expectTypeOf<Store["size"]>().toEqualTypeOf<Effect.Effect<number>>()
    expectTypeOf<Store["stopCleanup"]>().toEqualTypeOf<Effect.Effect<void>>()
  })
})
