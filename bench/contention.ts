/**
 * `npm run bench:contention`: the cost of many simultaneous commits of one session, for them and for all others.
 *
 * Each store in turn, with a real server on this machine. A round is measured twice and the second counts, so that code
 * which runs for the first time is no part of it.
 */
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { Clock, Effect, Layer, Redacted } from "effect"
import { MemStore, SessionStore } from "effect-sessions"
import { RedisStore } from "effect-sessions/redis"
import { SqlStore } from "effect-sessions/sql"
import { changed, commitAtOnce, countOperations, flood, newCounter, numberIn } from "../test/contended.ts"
import { PostgresServer, postgresClient, RedisServer, redisClient } from "../test/servers.ts"
import { type Times, timesOf } from "./eventLoop.ts"

const seconds = Number(process.argv[2] ?? 10)
const perSecond = 2_000

interface Subject {
  readonly name: string
  /** How a second process reaches the same store. */
  readonly second:
    | { readonly kind: "redis" | "postgres"; readonly port: number; readonly namespace: string }
    | undefined
}

type Rows = Array<ReadonlyArray<string>>
const atOnce: Rows = [
  ["commits of one session at once", "operations each", "total, ms", "each, ms", "longest wait to its place"]
]
const together: Rows = [["from two processes, 500 each", "operations each", "total, ms"]]
const flooded: Rows = [
  [
    `${perSecond} updates a second for ${seconds} s`,
    "confirmed",
    "refused",
    "all done after, ms",
    "another session without, ms: p50",
    "p99",
    "with, ms: p50",
    "p99"
  ]
]

const millis = (time: number) => time.toFixed(time < 10 ? 1 : 0)

/**
 * How long each one waited, as a multiple of what its place in the order would cost if all before it were committed one by
 * one, as a single commit is. The first tenth is too short to say.
 */
const longestWait = (waits: ReadonlyArray<number>, alone: number) =>
  Math.max(...waits.slice(waits.length / 10).map((wait, i) => wait / ((i + 1 + waits.length / 10) * alone)))

/** How long an uncontended commit takes: the median of a hundred. */
const commitAlone = Effect.fnUntraced(function* (token: Redacted.Redacted<string>) {
  const times: Array<number> = []
  for (let i = 0; i < 100; i++) {
    const session = yield* changed(token)
    const start = performance.now()
    yield* session.commit
    times.push(performance.now() - start)
  }
  return timesOf(times).p50
})

const measureAtOnce = Effect.fnUntraced(function* (
  { name }: Subject,
  counted: ReturnType<typeof countOperations>,
  count: number
) {
  const alone = yield* commitAlone(yield* newCounter)
  const token = yield* newCounter
  const waits: Array<number> = []
  let start = 0
  const commit = yield* commitAtOnce(token, count, (place) => {
    waits[place] = performance.now() - start
  })
  counted.operations = 0
  start = performance.now()
  yield* commit
  const total = performance.now() - start
  const each = counted.operations / count
  if ((yield* numberIn(token)) !== count) throw new Error(`${name} lost a commit`)
  return [
    `${name}, ${count}`,
    each.toFixed(2),
    millis(total),
    millis(total / count),
    longestWait(waits, alone).toFixed(2)
  ]
})

const contender = fileURLToPath(new URL("../test/contender.ts", import.meta.url))

const measureTogether = Effect.fnUntraced(function* (
  { name, second }: Subject,
  counted: ReturnType<typeof countOperations>
) {
  if (second === undefined) return
  const { kind, namespace, port } = second
  const token = yield* newCounter
  const args = [kind, String(port), namespace, Redacted.value(token), "500"]
  const child = spawn(process.execPath, ["--import", "tsx", contender, ...args], { stdio: ["pipe", "pipe", "inherit"] })
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  const nextLine = Effect.promise(() => lines.next())
  const commit = yield* commitAtOnce(token, 500)
  yield* nextLine
  counted.operations = 0
  const start = performance.now()
  child.stdin.write("go\n")
  const [, line] = yield* Effect.all([commit, nextLine], { concurrency: 2 })
  const total = performance.now() - start
  const each = (counted.operations + Number(line.value)) / 1_000
  if ((yield* numberIn(token)) !== 1_000) throw new Error(`${name} lost a commit`)
  together.push([name, each.toFixed(2), millis(total)])
})

/** How long the requests of an unshared session take, one after another. */
const visit = Effect.fnUntraced(function* (token: Redacted.Redacted<string>) {
  const latencies: Array<number> = []
  const end = (yield* Clock.currentTimeMillis) + seconds * 1_000
  while ((yield* Clock.currentTimeMillis) < end) {
    const start = performance.now()
    yield* (yield* changed(token)).commit
    latencies.push(performance.now() - start)
    yield* Effect.sleep("10 millis")
  }
  return timesOf(latencies)
})

const measureFlood = Effect.fnUntraced(function* ({ name }: Subject) {
  const [one, another] = [yield* newCounter, yield* newCounter]
  const without: Times = yield* visit(another)
  const [result, withFlood] = yield* Effect.all([flood(one, { perSecond, seconds }), visit(another)], {
    concurrency: 2
  })
  const end = performance.now()
  while (result.left > 0 && performance.now() < end + 120_000) yield* Effect.sleep("10 millis")
  const after = performance.now() - end
  if ((yield* numberIn(one)) !== result.confirmed) throw new Error(`${name} lost a commit`)
  const [confirmed, busy] = [String(result.confirmed), String(result.busy)]
  const times = [without.p50, without.p99, withFlood.p50, withFlood.p99].map(millis)
  flooded.push([name, confirmed, busy, millis(after), ...times])
})

const measure = Effect.fnUntraced(function* (subject: Subject) {
  const counted = countOperations(yield* SessionStore)
  yield* Effect.gen(function* () {
    yield* measureAtOnce(subject, counted, 1_000)
    for (const count of [100, 1_000]) atOnce.push(yield* measureAtOnce(subject, counted, count))
    yield* measureTogether(subject, counted)
    yield* measureFlood(subject)
  }).pipe(Effect.provideService(SessionStore, counted.store))
})

const namespace = "contention"

const measureRedis = Effect.gen(function* () {
  const { port } = yield* RedisServer
  const store = Layer.provide(RedisStore.layerWith({ prefix: namespace }), redisClient)
  yield* Effect.provide(measure({ name: "Redis", second: { kind: "redis", port, namespace } }), store)
}).pipe(Effect.provide(RedisServer.layer))

const measurePostgres = Effect.gen(function* () {
  const { port } = yield* PostgresServer
  const store = Layer.provide(SqlStore.layerWith({ table: namespace }), postgresClient)
  yield* Effect.provide(measure({ name: "PostgreSQL", second: { kind: "postgres", port, namespace } }), store)
}).pipe(Effect.provide(PostgresServer.layer))

await Effect.runPromise(
  measure({ name: "MemStore", second: undefined }).pipe(
    Effect.provide(MemStore.layer),
    Effect.andThen(measureRedis),
    Effect.andThen(measurePostgres)
  )
)
// Not by `tables.ts`, which loads all that the other parts need.
const tableOf = ([head = [], ...rows]: Rows) =>
  [head, head.map((_, i) => (i === 0 ? "---" : "---:")), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n")

console.log([atOnce, together, flooded].map(tableOf).join("\n\n"))
process.exit(0)
