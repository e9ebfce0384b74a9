/**
 * What does SqliteStore cost, and how long does it hold the event loop up? `sqlite.ts [sessions] [rounds]`, under Node.js
 * 22.13 or later; no rounds for the sweep alone.
 *
 * Finds, commits and replaces of sessions of 256 characters, one at a time: in either durability, the bare statements on a
 * table of the same kind and SqliteStore; MemStore; and Redis and PostgreSQL if they are installed. Rounds take turns;
 * shown are the median and, for a machine that others use too, what the fastest tenth does not exceed, which the
 * comparison takes. Then a sweep of half of the sessions, while finds go on.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Context, DateTime, Deferred, Effect, Layer, Logger, References } from "effect"
import { MemStore, SessionStore, type SessionStoreOperations } from "effect-sessions"
import { RedisStore } from "effect-sessions/redis"
import { SqlStore } from "effect-sessions/sql"
import { SqliteStore } from "effect-sessions/sqlite"
import { PostgresServer, postgresClient, RedisServer, redisClient } from "../test/servers.ts"
import { nextTurn, stallsDuring, timesOf } from "./eventLoop.ts"

const sessions = Number(process.argv[2] ?? 10_000)
const rounds = Number(process.argv[3] ?? 201)
const batch = 10

const hour = 60 * 60 * 1000
const now = Date.now()
const text = (i: number) => `{"n":${i},"note":"${"x".repeat(256)}`.slice(0, 254).concat('"}')
const newToken = () => Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64url")
const tokens = Array.from({ length: sessions }, newToken)
const quantile = (numbers: ReadonlyArray<number>, part: number) =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length * part)] ?? Number.NaN

const folder = mkdtempSync(join(tmpdir(), "sessions-"))
process.on("exit", () => rmSync(folder, { recursive: true, force: true }))

interface Picked {
  readonly token: string
  readonly data: string
}

/** An operation on some existing sessions. */
type Operation = (picked: ReadonlyArray<Picked>, round: number) => Effect.Effect<unknown, unknown>
type Operations = Record<"find" | "commit" | "replace", Operation>

const upsert = `INSERT INTO sessions (token, data, expiry) VALUES (?, ?, ?)
  ON CONFLICT (token) DO UPDATE SET data = excluded.data, expiry = excluded.expiry`

/** Fills a file many sessions a transaction. Every second expires before the rest. */
const fill = (filename: string) => {
  const database = new DatabaseSync(filename)
  database.exec("PRAGMA synchronous = OFF; BEGIN")
  const insert = database.prepare(upsert)
  for (const [i, token] of tokens.entries()) {
    insert.run(token, text(i), now + (i % 2 === 0 ? hour : 24 * hour) + Math.floor(Math.random() * 60_000))
    if (i % 10_000 === 0) database.exec("COMMIT; BEGIN")
  }
  database.exec("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)")
  database.close()
}

const bare = (filename: string, synchronous: "NORMAL" | "FULL"): Operations => {
  const database = new DatabaseSync(filename)
  database.exec(`PRAGMA synchronous = ${synchronous}`)
  const select = database.prepare("SELECT data FROM sessions WHERE token = ? AND expiry >= ?")
  const write = database.prepare(upsert)
  const update = database.prepare(
    "UPDATE sessions SET data = ?, expiry = ? WHERE token = ? AND data = ? AND expiry >= ?"
  )
  const each =
    (run: (session: Picked, round: number) => unknown): Operation =>
    (picked, round) =>
      Effect.sync(() => {
        for (const session of picked) if (run(session, round) === undefined) throw new Error("It was not there")
      })
  return {
    find: each(({ token }) => select.get(token, Date.now())?.data),
    commit: each(({ token, data }, round) => write.run(token, data, now + 24 * hour + round)),
    replace: each(({ token, data }, round) => {
      const { changes } = update.run(data, now + 24 * hour + round, token, data, Date.now())
      return changes === 1 ? changes : undefined
    })
  }
}

const operationsOf = (store: SessionStoreOperations<unknown>): Operations => {
  const each =
    (run: (session: Picked, expiry: DateTime.DateTime) => Effect.Effect<unknown, unknown>): Operation =>
    (picked, round) => {
      const expiry = DateTime.makeUnsafe(now + 24 * hour + round)
      return Effect.gen(function* () {
        for (const session of picked) if ((yield* run(session, expiry)) === false) throw new Error("It was not there")
      })
    }
  return {
    find: each(({ token }) => store.find(token)),
    commit: each(({ token, data }, expiry) => store.commit(token, data, expiry)),
    replace: each(({ token, data }, expiry) => store.replace(token, data, data, expiry))
  }
}

const pick = (i: number): Picked => ({ token: tokens[i] ?? "", data: text(i) })

/** Measures operations of several stores in turns, and prints the medians. */
const compare = Effect.fnUntraced(function* (stores: ReadonlyArray<readonly [name: string, operations: Operations]>) {
  for (const operation of ["find", "commit", "replace"] as const) {
    const micros = new Map<string, Array<number>>(stores.map(([name]) => [name, []]))
    for (let round = 0; round <= rounds; round++) {
      for (const [name, operations] of round % 2 === 0 ? stores : stores.toReversed()) {
        const picked = Array.from({ length: batch }, () => pick(Math.floor(Math.random() * sessions)))
        const began = performance.now()
        yield* operations[operation](picked, round + 1)
        // The first warms up.
        if (round > 0) micros.get(name)?.push(((performance.now() - began) * 1_000) / batch)
      }
    }
    const [[, first = []] = []] = micros
    for (const [name, all] of micros) {
      const fastest = quantile(all, 0.1)
      console.log(
        `${operation.padEnd(8)} ${name.padEnd(22)} median ${quantile(all, 0.5).toFixed(1).padStart(8)} µs, fastest tenth ` +
          `${fastest.toFixed(1).padStart(8)} µs, ${(fastest / quantile(first, 0.1)).toFixed(2).padStart(6)} times the first`
      )
    }
  }
})

const built = (layer: Layer.Layer<SessionStore, unknown>) =>
  Effect.map(Layer.build(layer), (context) => operationsOf(Context.get(context, SessionStore)))

const commitAll = Effect.fnUntraced(function* (operations: Operations) {
  for (let i = 0; i < sessions; i++) yield* operations.commit([pick(i)], 0)
})

const compareStores = Effect.gen(function* () {
  const files = ["bare", "bareDisk", "os", "disk"].map((name) => join(folder, `${name}.db`))
  for (const filename of files) {
    yield* Effect.scoped(Layer.build(SqliteStore.layer({ filename })))
    fill(filename)
  }
  const [bareFile = "", bareDiskFile = "", osFile = "", diskFile = ""] = files
  const memStore = yield* built(MemStore.layer)
  yield* commitAll(memStore)
  yield* compare([
    ["bare statements", bare(bareFile, "NORMAL")],
    ["SqliteStore", yield* built(SqliteStore.layer({ filename: osFile }))],
    ["MemStore", memStore]
  ])
  yield* compare([
    ["bare statements, disk", bare(bareDiskFile, "FULL")],
    ["SqliteStore, disk", yield* built(SqliteStore.layerWith({ filename: diskFile, durability: "disk" }))]
  ])
})

const compareServers = Effect.gen(function* () {
  const redis = yield* built(RedisStore.layer.pipe(Layer.provide(redisClient), Layer.provide(RedisServer.layer)))
  const postgres = yield* built(SqlStore.layer.pipe(Layer.provide(postgresClient), Layer.provide(PostgresServer.layer)))
  yield* commitAll(redis)
  yield* commitAll(postgres)
  yield* compare([
    ["RedisStore", redis],
    ["SqlStore, PostgreSQL", postgres]
  ])
})

/** Prints how long turns of the event loop were, and finds among them. */
const watch = Effect.fnUntraced(function* (name: string, store: SessionStoreOperations, work: Effect.Effect<unknown>) {
  const finds: Array<number> = []
  let ended = false
  const traffic = Effect.gen(function* () {
    for (let i = 1; !ended; i = (i + 2) % sessions) {
      const began = performance.now()
      yield* store.find(tokens[i] ?? "")
      finds.push(performance.now() - began)
      yield* Effect.promise(nextTurn)
    }
  })
  const began = performance.now()
  const context = yield* Effect.context<never>()
  const turns = yield* Effect.promise(() =>
    stallsDuring(() =>
      Effect.runPromiseWith(context)(
        Effect.all(
          [
            traffic,
            Effect.ensuring(
              work,
              Effect.sync(() => (ended = true))
            )
          ],
          { concurrency: 2 }
        )
      )
    )
  )
  const millis = (value: number) => `${value.toFixed(2)} ms`
  console.log(
    `${name}: ${((performance.now() - began) / 1_000).toFixed(1)} s; a turn of the event loop: median ${millis(turns.p50)}, ` +
      `99 of 100 below ${millis(turns.p99)}, longest ${millis(turns.longest)}; a find: longest ${millis(timesOf(finds).longest)}`
  )
})

const sweepHalf = Effect.gen(function* () {
  const filename = join(folder, "sweep.db")
  yield* Effect.scoped(Layer.build(SqliteStore.layer({ filename })))
  fill(filename)
  // Two hours later.
  const later = Date.now
  Date.now = () => later() + 2 * hour
  const swept = yield* Deferred.make<string>()
  const logger = Logger.make(({ message }) => void Deferred.doneUnsafe(swept, Effect.succeed(String(message))))
  const store = yield* Effect.map(
    Layer.build(SqliteStore.layerWith({ filename, cleanupInterval: "3 seconds" })),
    (context) => Context.get(context, SessionStore)
  ).pipe(Effect.provide(Logger.layer([logger])), Effect.provideService(References.MinimumLogLevel, "Debug"))
  yield* watch("before the sweep", store, Effect.sleep("2.5 seconds"))
  yield* watch(`a sweep of half of ${sessions}`, store, Deferred.await(swept))
  console.log(yield* Deferred.await(swept))
})

if (rounds > 0) await Effect.runPromise(Effect.scoped(compareStores))
// A server takes long to fill.
if (rounds > 0 && sessions <= 10_000) await Effect.runPromise(Effect.scoped(compareServers))
await Effect.runPromise(Effect.scoped(sweepHalf))
