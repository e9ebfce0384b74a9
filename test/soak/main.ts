/**
 * `npm run soak -- --minutes 30 --store memory`: mixed traffic over real HTTP, and what is left of it.
 *
 * The heap after a collection has to be as large at the end as it was after the warm-up, with as many sessions; and once
 * the server is closed, no handle, timer or fiber may be left. Times are printed, not judged: the machine may do other work.
 */
import { type ChildProcess, fork } from "node:child_process"
import { createServer } from "node:http"
import { join } from "node:path"
import { setImmediate, setTimeout } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { NodeHttpServer } from "@effect/platform-node"
import { Context, Effect, Layer, Metric, Queue, Stream } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { MemStore, SessionStore } from "effect-sessions"
import { temporaryFolder } from "../temporary.ts"
import { plantedLeaks, routes } from "./application.ts"
import type { Command, Report } from "./visitors.ts"

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "30" },
    store: { type: "string", default: "memory" },
    rate: { type: "string", default: "200" },
    users: { type: "string", default: "1000" },
    seed: { type: "string" },
    planted: { type: "string" }
  }
})

const minutes = Number(values.minutes)
const warmUp = Math.min(2, minutes / 4)
const seed = values.seed === undefined ? Math.floor(Math.random() * 1_000_000_000) : Number(values.seed)
const planted = plantedLeaks.find((leak) => leak === values.planted)

const inFile = Layer.unwrap(
  Effect.gen(function* () {
    const { SqliteStore } = yield* Effect.promise(() => import("effect-sessions/sqlite"))
    const filename = join(yield* temporaryFolder, "sessions.db")
    return SqliteStore.layerWith({ filename, cleanupInterval: "10 seconds" })
  })
)

const store = values.store === "sqlite" ? inFile : MemStore.layerWithCleanupInterval("10 seconds")

// A short soak ends with more tombstones than it began with, since they stand for a minute, and with more sessions of
// visitors that never come back. What one of them takes was measured; a leak would hide in what is measured each time.
const bytesPerRecord = values.store === "sqlite" ? 0 : 1200

/** Fibers that have begun and not ended. */
const fibers = { active: 0 }
const countFibers = Effect.provideService(Metric.FiberRuntimeMetrics, {
  recordFiberStart: () => void fibers.active++,
  recordFiberEnd: () => void fibers.active--
})

/** How many of each kind of handle, timer or request keep the process alive. */
const handles = (): string => {
  const counts = new Map<string, number>()
  for (const name of process.getActiveResourcesInfo()) counts.set(name, (counts.get(name) ?? 0) + 1)
  return [...counts]
    .map(([name, count]) => `${count} ${name}`)
    .sort()
    .join(", ")
}

interface Visitors {
  readonly say: (command: Command) => Effect.Effect<void>
  /** The next report that follows a `settle`. Those of each minute are printed. */
  readonly settled: Effect.Effect<Report>
}

let failed = 0
const slowest: Array<number> = []
let cpu = process.cpuUsage()

const printReport = ({ ended, failed: errors, max, p50, p99, requests }: Report): void => {
  failed += errors
  const { system, user } = process.cpuUsage(cpu)
  cpu = process.cpuUsage()
  const times = `p50 ${p50.toFixed(1)}, p99 ${p99.toFixed(1)}, max ${max.toFixed(0)} ms`
  const processor = `${((system + user) / 1e6).toFixed(1)} s of the processor`
  console.log(`${requests} requests, ${errors} failed; ${times}; ${ended} pages ended with their session; ${processor}`)
}

const startVisitors = Effect.fnUntraced(function* (port: number) {
  const reports = yield* Queue.unbounded<Report>()
  const program = fileURLToPath(new URL("visitors.ts", import.meta.url))
  const child: ChildProcess = yield* Effect.acquireRelease(
    Effect.sync(() => fork(program, [String(port), values.rate, values.users, String(seed)])),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )
  child.on("message", (report: Report) => {
    printReport(report)
    if (!report.settled) slowest.push(report.p99)
    if (report.settled) Queue.offerUnsafe(reports, report)
  })
  return {
    say: (command) => Effect.sync(() => void child.send(command)),
    settled: Queue.take(reports)
  } satisfies Visitors
})

/** What the store holds, by what the data says, as the header of src/Session.ts has it. */
const countRecords = Effect.gen(function* () {
  const counts = { sessions: 0, tombstones: 0, indexes: 0 }
  yield* Stream.runForEach((yield* SessionStore).entries, ([, data]) =>
    Effect.sync(() => {
      const record = JSON.parse(data)
      if ("members" in record) counts.indexes++
      else if ("value" in record) counts.sessions++
      else counts.tombstones++
    })
  )
  return counts
})

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(2)} MB`

const collected = Effect.promise(async () => {
  if (globalThis.gc === undefined) throw new Error("The soak needs node --expose-gc")
  for (let i = 0; i < 3; i++) {
    await setImmediate()
    globalThis.gc()
  }
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
})

const measure = Effect.fnUntraced(function* (visitors: Visitors, when: string) {
  yield* visitors.say("settle")
  yield* visitors.settled
  // What the last responses left behind ends.
  yield* Effect.sleep("1 second")
  const counts = yield* countRecords
  const heap = yield* collected
  const { indexes, sessions, tombstones } = counts
  const resident = megabytes(process.memoryUsage().rss)
  console.log(
    `== ${when}: heap ${megabytes(heap)} (${resident} resident), ${sessions} sessions, ${tombstones} tombstones, ` +
      `${indexes} index records, ${fibers.active} fibers, ${handles()}`
  )
  return { heap, records: sessions + tombstones + indexes }
})

/** Serves the site, and loads it. Returns the heap after the warm-up and at the end. */
const soak = Effect.gen(function* () {
  // Longer than any pause, since a connection that the server closes as a request comes in is one that fails.
  const listener = () => createServer({ keepAliveTimeout: 600_000 })
  const server = NodeHttpServer.layer(listener, { port: 0, host: "127.0.0.1" })
  const served = HttpRouter.serve(routes(planted), { disableLogger: true, disableListenLog: true })
  const context = yield* Layer.build(Layer.provideMerge(served, Layer.merge(server, store)))
  const { address } = Context.get(context, HttpServer.HttpServer)
  const visitors = yield* startVisitors("port" in address ? address.port : 0)
  return yield* Effect.gen(function* () {
    yield* measure(visitors, "every device has logged in")
    yield* visitors.say("go")
    yield* Effect.sleep(warmUp * 60_000)
    const before = yield* measure(visitors, `after ${(warmUp * 60).toFixed(0)} seconds`)
    const rest = minutes - warmUp
    const pieces = Math.max(1, Math.floor(rest / 5))
    let after = before
    for (let piece = 1; piece <= pieces; piece++) {
      yield* visitors.say("go")
      yield* Effect.sleep((rest * 60_000) / pieces)
      after = yield* measure(visitors, `after ${((warmUp + (rest * piece) / pieces) * 60).toFixed(0)} seconds`)
    }
    return { before, after }
  }).pipe(Effect.provide(context))
})

const median = (numbers: ReadonlyArray<number>): string =>
  (numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN).toFixed(1)

/** Does the p99 drift? It fails nothing: half of the minutes against the other half, for a reader to judge. */
const printDrift = (): void => {
  if (slowest.length < 4) return
  const [first, second] = [slowest.slice(0, slowest.length / 2), slowest.slice(slowest.length / 2)]
  console.log(`\np99 of each minute: ${slowest.map((millis) => millis.toFixed(1)).join(" ")}`)
  console.log(`Its median: ${median(first)} ms in the first half, ${median(second)} ms in the second`)
}

/** What is wrong with a soak. */
const judge = (result: Effect.Success<typeof soak>, left: { readonly fibers: number; readonly handles: string }) => {
  const { after, before } = result
  const more = Math.max(0, after.records - before.records)
  const allowed = before.heap * 1.05 + more * bytesPerRecord
  const growth = `${(100 * (after.heap / before.heap - 1)).toFixed(1)} %`
  console.log(
    `\nHeap at the end: ${megabytes(after.heap)}, ${growth} more than after the warm-up, with ${more} more records; ` +
      `allowed: ${megabytes(allowed)}`
  )
  console.log(`Left after the server closed: ${left.fibers} fibers, handles: ${left.handles || "none"}`)
  return [
    after.heap > allowed ? "the heap grew" : "",
    left.fibers > 0 ? "fibers are left" : "",
    left.handles === handlesBefore ? "" : "handles or timers are left",
    failed > 0 ? `${failed} requests failed` : ""
  ].filter((fault) => fault !== "")
}

console.log(
  `Node.js ${process.version}, ${values.store}, ${minutes} minutes, ${values.rate} requests a second, seed ${seed}`
)
const handlesBefore = handles()
const program = Effect.gen(function* () {
  const own = fibers.active
  const result = yield* Effect.scoped(soak)
  yield* Effect.promise(() => setTimeout(1_000))
  return judge(result, { fibers: fibers.active - own, handles: handles() })
})
const faults = await Effect.runPromise(countFibers(program))
printDrift()
console.log(faults.length === 0 ? "Nothing is wrong" : `Wrong: ${faults.join(", ")}`)
process.exit(faults.length === 0 ? 0 : 1)
