/**
 * What do RedisStore and SqlStore cost over their client? Finds and commits a second of sessions of 256 bytes of JSON,
 * through one client to a real server on this machine, compared with the same bare commands through that client: one at
 * a time, and 64 at a time. Rounds take turns; the medians count.
 */
import { DateTime, Duration, Effect, Layer } from "effect"
import * as Redis from "effect/persistence/Redis"
import * as SqlClient from "effect/sql/SqlClient"
import { SessionStore } from "effect-sessions"
import { RedisStore } from "effect-sessions/redis"
import { SqlStore } from "effect-sessions/sql"
import { PostgresServer, postgresClient, RedisServer, redisClient } from "../test/servers.ts"

const rounds = Number(process.argv[2] ?? 61)
const sessions = 250
const text = JSON.stringify({ userId: crypto.randomUUID(), note: "x".repeat(199) })
const tokens = Array.from({ length: sessions }, () =>
  Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64url")
)

const median = (numbers: ReadonlyArray<number>) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? Number.NaN

type Operation = (token: string) => Effect.Effect<unknown, unknown>

const perSecond = Effect.fnUntraced(function* (operation: Operation, concurrency: number) {
  const [duration] = yield* Effect.timed(Effect.forEach(tokens, operation, { concurrency, discard: true }))
  return sessions / Duration.toSeconds(duration)
})

/** Prints the operations per second of a store and of its bare commands, in alternating rounds. */
const compare = Effect.fnUntraced(function* (name: string, store: Operation, bare: Operation) {
  for (const concurrency of [1, 64]) {
    const rates: { readonly store: Array<number>; readonly bare: Array<number> } = { store: [], bare: [] }
    yield* perSecond(store, concurrency)
    yield* perSecond(bare, concurrency)
    for (let round = 0; round < rounds; round++) {
      for (const which of round % 2 === 0 ? (["store", "bare"] as const) : (["bare", "store"] as const)) {
        rates[which].push(yield* perSecond(which === "store" ? store : bare, concurrency))
      }
    }
    const [ours, theirs] = [median(rates.store), median(rates.bare)]
    const overhead = (theirs / ours - 1) * 100
    console.log(
      `${name.padEnd(18)} ${String(concurrency).padStart(2)} at a time: ${ours.toFixed(0).padStart(6)}/s, ` +
        `bare ${theirs.toFixed(0).padStart(6)}/s, overhead ${overhead.toFixed(1).padStart(5)} %`
    )
  }
})

const measureRedis = Effect.gen(function* () {
  const store = yield* SessionStore
  const redis = yield* Redis.Redis
  const expiry = DateTime.add(yield* DateTime.now, { hours: 1 })
  const millis = String(DateTime.toEpochMillis(expiry))
  yield* compare(
    "RedisStore commit",
    (token) => store.commit(token, text, expiry),
    (token) => redis.send("SET", `bare:${token}`, text, "PXAT", millis)
  )
  yield* compare(
    "RedisStore find",
    (token) => store.find(token),
    (token) => redis.send("GET", `bare:${token}`)
  )
}).pipe(Effect.provide(RedisStore.layer.pipe(Layer.provideMerge(redisClient), Layer.provide(RedisServer.layer))))

const measureSql = Effect.gen(function* () {
  const store = yield* SessionStore
  const sql = yield* SqlClient.SqlClient
  const expiry = DateTime.add(yield* DateTime.now, { hours: 1 })
  const millis = DateTime.toEpochMillis(expiry)
  yield* SqlStore.migrationWith({ table: "bare" })
  yield* compare(
    "SqlStore commit",
    (token) => store.commit(token, text, expiry),
    (token) =>
      sql`INSERT INTO bare (token, data, expiry) VALUES (${Buffer.from(token)}, ${Buffer.from(text)}, ${millis}) ON CONFLICT (token) DO UPDATE SET data = excluded.data, expiry = excluded.expiry`
  )
  yield* compare(
    "SqlStore find",
    (token) => store.find(token),
    (token) => sql`SELECT data FROM bare WHERE token = ${Buffer.from(token)} AND expiry >= ${Date.now()}`
  )
}).pipe(Effect.provide(SqlStore.layer.pipe(Layer.provideMerge(postgresClient), Layer.provide(PostgresServer.layer))))

await Effect.runPromise(Effect.andThen(measureRedis, measureSql))
