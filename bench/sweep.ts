/**
 * How long does a sweep hold up the event loop? One store with a million sessions (or as many as the first argument
 * says) of 256 bytes, half of them expired, on the live clock; beside it one `HashMap.filter` over an equal map.
 */
import { DateTime, Effect, HashMap, Metric } from "effect"
import { MemStore } from "effect-sessions"

const count = Number(process.argv[2] ?? 1_000_000)
// Long enough for the store to be filled and the idle event loop to be watched before the first sweep.
const interval = 5_000 + count / 50
const collectGarbage = globalThis.gc ?? (() => console.log("Run with --expose-gc for a clean start."))

/** Watches the event loop until told to stop; the longest time between two turns, in milliseconds. */
const watchEventLoop = () => {
  let last = performance.now()
  let longest = 0
  let immediate: NodeJS.Immediate
  const turn = () => {
    const now = performance.now()
    longest = Math.max(longest, now - last)
    last = now
    immediate = setImmediate(turn)
  }
  immediate = setImmediate(turn)
  return () => {
    clearImmediate(immediate)
    return longest
  }
}

const longestStall = Effect.fnUntraced(function* (work: Effect.Effect<unknown>) {
  yield* Effect.sleep("500 millis")
  collectGarbage()
  yield* Effect.sleep("500 millis")
  const stop = watchEventLoop()
  yield* Effect.sleep("50 millis")
  yield* work
  yield* Effect.sleep("50 millis")
  return stop()
})

const data = () => crypto.getRandomValues(new Uint8Array(256))
const token = () => Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64url")
const millis = (n: number) => `${n.toFixed(1).padStart(8)} ms`

const sweepDuration = Effect.map(
  Metric.snapshot,
  (metrics) =>
    metrics.filter((metric) => metric.type === "Histogram").find((metric) => metric.id === "session_sweep_duration")
      ?.state.sum ?? Number.NaN
)

const measureStore = Effect.gen(function* () {
  const store = yield* MemStore.makeWithCleanupInterval(interval)
  const now = yield* DateTime.now
  const active = DateTime.add(now, { hours: 1 })
  const expired = DateTime.subtract(now, { hours: 1 })
  for (let i = 0; i < count; i++) yield* store.commit(token(), data(), i % 2 === 0 ? active : expired)
  if ((yield* store.size) !== count) return yield* Effect.die("The sweep began while the store was being filled.")

  const idle = yield* longestStall(Effect.sleep("500 millis"))
  if ((yield* store.size) !== count) return yield* Effect.die("The sweep began before it was watched.")
  const sweep = yield* longestStall(
    Effect.sleep("5 millis").pipe(Effect.andThen(store.size), Effect.repeat({ until: (size) => size <= count / 2 }))
  )
  const all = yield* longestStall(store.all)
  return { idle, all, sweep, held: yield* store.size, took: yield* sweepDuration }
}).pipe(Effect.scoped)

const measureFilter = Effect.gen(function* () {
  let map = HashMap.empty<string, { readonly data: string; readonly expiry: number }>()
  for (let i = 0; i < count; i++) {
    map = HashMap.set(map, token(), { data: Buffer.from(data()).toString("latin1"), expiry: i % 2 })
  }
  return yield* longestStall(
    Effect.sync(() => {
      map = HashMap.filter(map, (entry) => entry.expiry > 0)
    })
  )
})

const program = Effect.gen(function* () {
  const { idle, all, sweep, held, took } = yield* measureStore
  const filter = yield* measureFilter
  console.log(`${count} sessions of 256 bytes, half of them expired; left after the sweep: ${held}`)
  console.log(`longest event-loop stall, nothing running  ${millis(idle)}`)
  console.log(`longest event-loop stall, one sweep        ${millis(sweep)}`)
  console.log(`longest event-loop stall, HashMap.filter   ${millis(filter)}`)
  console.log(`longest event-loop stall, all, what is left${millis(all)}`)
  console.log(`the sweep's stall is 1/${(filter / sweep).toFixed(0)} of the filter's`)
  console.log(`the sweep from start to end                ${millis(took)}`)
})

await Effect.runPromise(program)
