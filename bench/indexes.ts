/**
 * `npm run bench:indexes`: what indexes cost, and what they save.
 *
 * `npm run bench:indexes -- revoke 1000000` measures one part, of `revoke` (the sessions of one user among many are ended,
 * by the index and by a look at all), `operations`, `logins` (twenty at once, of which five stay) and `ended` (ten
 * thousand fibers wait for a session to end), with so many sessions or fibers. Real servers run on this machine.
 */
import { monitorEventLoopDelay } from "node:perf_hooks"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { DateTime, Effect, Fiber, Layer, Option, type Redacted, Schema, Stream } from "effect"
import { MemStore, Session, SessionStore } from "effect-sessions"
import { RedisStore } from "effect-sessions/redis"
import { SqlStore } from "effect-sessions/sql"
import { countOperations } from "../test/contended.ts"
import { PostgresServer, postgresClient, RedisServer, redisClient } from "../test/servers.ts"

const part = process.argv[2]
const size = process.argv[3] === undefined ? undefined : Number(process.argv[3])

const User = Schema.Struct({ userId: Schema.optionalKey(Schema.String), device: Schema.String })

class UserSession extends Session.Service<UserSession>()("bench/UserSession", {
  schema: User,
  initial: () => ({ device: "" }),
  indexes: { user: ({ userId }) => userId },
  maxSessions: { user: 5 }
}) {}

type Token = Redacted.Redacted<string>
type Row = ReadonlyArray<string>

// Not by `tables.ts`, which loads all that the other parts need.
const print = ([head = [], ...rows]: ReadonlyArray<Row>) =>
  console.log(
    `${[head, head.map((_, i) => (i === 0 ? "---" : "---:")), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n")}\n`
  )

const median = (numbers: ReadonlyArray<number>) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? Number.NaN
const millis = (time: number) => time.toFixed(time < 10 ? 2 : 0)
const range = (length: number) => Array.from({ length }, (_, i) => i)

/** How long an effect takes, and how many operations of the store. */
const measured = Effect.fnUntraced(function* <A, E, R>(
  counted: ReturnType<typeof countOperations>,
  effect: Effect.Effect<A, E, R>
) {
  counted.operations = 0
  const start = performance.now()
  yield* effect
  return { time: performance.now() - start, operations: counted.operations }
})

/** The measured store, with its operations counted. */
interface Subject {
  readonly name: string
  readonly counted: ReturnType<typeof countOperations>
}

const subjectOf = Effect.fnUntraced(function* (name: string) {
  return { name, counted: countOperations(yield* SessionStore) }
})

const onMemStore = <E>(body: (subject: Subject) => Effect.Effect<void, E, SessionStore>) =>
  Effect.provide(
    Effect.flatMap(subjectOf("MemStore"), (subject) =>
      Effect.provideService(body(subject), SessionStore, subject.counted.store)
    ),
    MemStore.layer
  )

const onRedis = <E>(body: (subject: Subject) => Effect.Effect<void, E, SessionStore>) =>
  Effect.flatMap(subjectOf("Redis"), (subject) =>
    Effect.provideService(body(subject), SessionStore, subject.counted.store)
  ).pipe(Effect.provide(RedisStore.layer.pipe(Layer.provide(redisClient), Layer.provide(RedisServer.layer))))

const onPostgres = <E>(body: (subject: Subject) => Effect.Effect<void, E, SessionStore>) =>
  Effect.flatMap(subjectOf("PostgreSQL"), (subject) =>
    Effect.provideService(body(subject), SessionStore, subject.counted.store)
  ).pipe(Effect.provide(SqlStore.layer.pipe(Layer.provide(postgresClient), Layer.provide(PostgresServer.layer))))

/** A request that changes a session, and the token after it. */
const request = Effect.fnUntraced(function* (
  token: Token | undefined,
  f: (user: typeof User.Type) => typeof User.Type
) {
  const session = yield* UserSession.open(token)
  yield* session.update(f)
  return Option.getOrThrow(yield* session.commit).token
})

const logIn = (userId: string) => (user: typeof User.Type) => ({ ...user, userId })

/** Fills a store with sessions of as many other users, as texts of the class: their own log-ins would take hours. */
const fill = Effect.fnUntraced(function* (count: number) {
  const store = yield* SessionStore
  const session = yield* UserSession.open(yield* request(undefined, logIn("somebody")))
  const text = Option.getOrThrow(yield* store.find(Option.getOrThrow(yield* session.id)))
  const expiry = DateTime.add(yield* DateTime.now, { hours: 12 })
  const key = () => Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64url")
  yield* Effect.forEach(
    range(count),
    (i) => store.commit(key(), text.replaceAll("somebody", `somebody ${i}`), expiry),
    { concurrency: 500, discard: true }
  )
})

// A log-in of the millisecond of a revocation counts as before it.
const fiveDevices = Effect.andThen(
  Effect.sleep("2 millis"),
  Effect.forEach(range(5), () => request(undefined, logIn("ada")), { discard: true })
)

/** What one has to do without an index. */
const destroyByScan = Effect.gen(function* () {
  let looked = 0
  yield* Stream.runForEach(UserSession.sessions, (session) =>
    Effect.flatMap(session.get, ({ userId }) => {
      looked++
      return userId === "ada" ? session.destroy : Effect.void
    })
  )
  return looked
})

const measureRevoke = (count: number) =>
  Effect.gen(function* () {
    const rows: Array<Row> = [
      [
        "five sessions of a user end",
        "sessions in the store",
        "by the index, operations",
        "ms",
        "by a scan, sessions read",
        "ms"
      ]
    ]
    const body = Effect.fnUntraced(function* ({ counted, name }: Subject) {
      const start = performance.now()
      yield* fill(count)
      console.error(`${name}: ${count} sessions in ${((performance.now() - start) / 1_000).toFixed(0)} s`)
      const rounds = yield* Effect.forEach(range(21), () =>
        Effect.andThen(fiveDevices, measured(counted, UserSession.destroyAllOf("user", "ada")))
      )
      yield* fiveDevices
      let looked = 0
      const scan = yield* measured(
        counted,
        Effect.map(destroyByScan, (n) => {
          looked = n
        })
      )
      const index = median(rounds.slice(1).map(({ time }) => time))
      const operations = String(rounds.at(-1)?.operations)
      rows.push([name, String(count), operations, millis(index), String(looked), millis(scan.time)])
    })
    yield* onMemStore(body)
    yield* onRedis(body)
    print(rows)
  })

const rounds = 200

/** What each request of a user costs, from the first visit to the log-out. */
const measureOperations = Effect.gen(function* () {
  const rows: Array<Row> = [["operations of the store, and ms at the median", "MemStore", "Redis", "PostgreSQL"]]
  const columns: Array<ReadonlyArray<readonly [what: string, figure: string]>> = []
  const body = Effect.fnUntraced(function* ({ counted }: Subject) {
    const times = new Map<string, Array<{ readonly time: number; readonly operations: number }>>()
    const note = Effect.fnUntraced(function* <E>(what: string, effect: Effect.Effect<unknown, E, SessionStore>) {
      const figures = yield* measured(counted, effect)
      times.set(what, [...(times.get(what) ?? []), figures])
    })
    for (const round of range(rounds)) {
      const user = `user ${round}`
      let token = yield* request(undefined, (account) => ({ ...account, device: "laptop" }))
      const step = (f: (account: typeof User.Type) => typeof User.Type) =>
        Effect.map(request(token, f), (next) => {
          token = next
        })
      yield* note("a log-in of a visitor who has a session", step(logIn(user)))
      yield* note("a request that reads", UserSession.open(token))
      yield* note(
        "a request that changes something else",
        step((account) => ({ ...account, device: `${round}` }))
      )
      yield* note("a log-in without a session before", request(undefined, logIn(user)))
      for (const _ of range(3)) yield* request(undefined, logIn(user))
      yield* note("a log-in as the sixth, which ends the oldest", request(undefined, logIn(user)))
      const last = yield* UserSession.open(yield* request(undefined, logIn(user)))
      yield* note("a log-out, after a look", last.destroy)
    }
    columns.push(
      [...times].map(([what, all]) => [
        what,
        `${median(all.map(({ operations }) => operations))}, ${millis(median(all.slice(rounds / 4).map(({ time }) => time)))}`
      ])
    )
  })
  yield* onMemStore(body)
  yield* onRedis(body)
  yield* onPostgres(body)
  for (const [i, [what]] of (columns[0] ?? []).entries())
    rows.push([what, ...columns.map((column) => column[i]?.[1] ?? "")])
  print(rows)
})

const measureLogIns = Effect.gen(function* () {
  const rows: Array<Row> = [
    ["20 log-ins at once, of which 5 stay", "operations", "ms", "operations, one after another", "ms"]
  ]
  const body = Effect.fnUntraced(function* ({ counted, name }: Subject) {
    const runs: Record<"atOnce" | "inOrder", Array<{ readonly time: number; readonly operations: number }>> = {
      atOnce: [],
      inOrder: []
    }
    for (const round of range(21)) {
      for (const [kind, concurrency] of [
        ["atOnce", "unbounded"],
        ["inOrder", 1]
      ] as const) {
        const user = `${kind} ${round}`
        const twenty = Effect.forEach(
          range(20),
          () =>
            Effect.andThen(
              Effect.yieldNow,
              Effect.gen(function* () {
                const session = yield* UserSession.open()
                yield* session.update(logIn(user))
                yield* session.commit
              })
            ),
          { concurrency, discard: true }
        )
        runs[kind].push(yield* measured(counted, twenty))
        const left = yield* Stream.runCount(UserSession.sessionsOf("user", user))
        if (left !== 5) throw new Error(`${name} left ${left} sessions`)
      }
    }
    const figures = (all: (typeof runs)["atOnce"]) => [
      String(median(all.map(({ operations }) => operations))),
      millis(median(all.slice(1).map(({ time }) => time)))
    ]
    rows.push([name, ...figures(runs.atOnce), ...figures(runs.inOrder)])
  })
  yield* onMemStore(body)
  yield* onRedis(body)
  yield* onPostgres(body)
  print(rows)
})

setFlagsFromString("--expose-gc")
const collect: () => void = runInNewContext("gc")

const watched = 20

/** What the processor, the heap and the store have to do for twenty seconds, while nothing happens but what waits. */
const idle = Effect.fnUntraced(function* (counted: Subject["counted"]) {
  // The effects of the first seconds do not count.
  yield* Effect.sleep("2 seconds")
  collect()
  const heap = process.memoryUsage().heapUsed
  const stalls = monitorEventLoopDelay({ resolution: 1 })
  stalls.enable()
  counted.operations = 0
  const before = process.cpuUsage()
  yield* Effect.sleep(`${watched} seconds`)
  const { system, user } = process.cpuUsage(before)
  stalls.disable()
  return {
    cpu: (user + system) / 1_000 / watched,
    heap,
    stall: stalls.max / 1e6,
    operations: counted.operations / watched
  }
})

/** Waits with the given number of fibers, each on its own session or all on one. */
const measureEnded = (count: number) =>
  Effect.gen(function* () {
    const rows: Array<Row> = [
      ["fibers that wait for `ended`", "look-ups a second", "CPU, ms a second", "bytes a fiber", "longest stall, ms"]
    ]
    const body = Effect.fnUntraced(function* ({ counted, name }: Subject) {
      const opened = yield* Effect.forEach(range(count), () =>
        Effect.flatMap(
          request(undefined, () => ({ device: crypto.randomUUID() })),
          UserSession.open
        )
      )
      const none = yield* idle(counted)
      const row = (what: string, fibers: number, { cpu, heap, operations, stall }: typeof none) =>
        rows.push([
          `${name}, ${what}`,
          operations.toFixed(1),
          cpu.toFixed(1),
          fibers === 0 ? "" : ((heap - none.heap) / fibers).toFixed(0),
          stall.toFixed(0)
        ])
      row("none", 0, none)
      for (const [what, sessions] of [
        [`${count} sessions, one fiber each`, opened],
        [`one session, ${count} fibers`, range(count).flatMap(() => opened.slice(0, 1))]
      ] as const) {
        const fibers = yield* Effect.forEach(sessions, (session) => Effect.forkChild(session.ended))
        row(what, count, yield* idle(counted))
        yield* Fiber.interruptAll(fibers)
      }
    })
    yield* onMemStore(body)
    yield* onRedis(body)
    print(rows)
  })

const parts = {
  revoke: measureRevoke(size ?? 1_000_000),
  operations: measureOperations,
  logins: measureLogIns,
  ended: measureEnded(size ?? 10_000)
}

const isPart = (name: string): name is keyof typeof parts => name in parts
const chosen = part === undefined ? Object.values(parts) : isPart(part) ? [parts[part]] : []
if (chosen.length === 0) throw new Error(`There is no part ${part}: ${Object.keys(parts).join(", ")}`)
await Effect.runPromise(Effect.all(chosen, { discard: true }))
process.exit(0)
