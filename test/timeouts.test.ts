/** The timeout of docs/stores.md, on servers that hang. */
import { readFileSync } from "node:fs"
import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, Effect, Layer, Option, Schedule } from "effect"
import * as Redis from "effect/persistence/Redis"
import { SqlClient } from "effect/sql"
import { SessionStore, SessionStoreError } from "effect-sessions"
import { RedisStore } from "effect-sessions/redis"
import { SqlStore } from "effect-sessions/sql"
import { Patient } from "./patientStore.ts"
import { describePostgres, describeRedis, PostgresServer, postgresClient, RedisServer, redisClient } from "./servers.ts"

const inAnHour = Effect.map(DateTime.now, DateTime.add({ hours: 1 }))

const recipe = readFileSync(new URL("patientStore.ts", import.meta.url), "utf8")
const docs = readFileSync(new URL("../docs/stores.md", import.meta.url), "utf8")

/** Stops processes for as long as the scope is open. */
const pause = (pids: ReadonlyArray<number>) =>
  Effect.acquireRelease(
    Effect.sync(() => pids.forEach((pid) => void process.kill(pid, "SIGSTOP"))),
    () => Effect.sync(() => pids.forEach((pid) => void process.kill(pid, "SIGCONT")))
  )

const redisPids = Effect.gen(function* () {
  const info = yield* (yield* Redis.Redis).send<string>("INFO", "server")
  return [Number(/process_id:(\d+)/.exec(info)?.[1])]
})

/** Those that serve the clients, and their parent. */
const postgresPids = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const children = (yield* sql<{ readonly pid: number }>`SELECT pid FROM pg_stat_activity`).map(({ pid }) => pid)
  const parent = /^PPid:\s*(\d+)$/m.exec(readFileSync(`/proc/${children[0]}/status`, "utf8"))?.[1]
  return [Number(parent), ...children]
})

const hasFailed = (error: unknown) => assert.instanceOf(error, SessionStoreError)

/** Every operation on one session, all at the same time. */
const all = (store: SessionStore["Service"]) =>
  Effect.gen(function* () {
    const expiry = yield* inAnHour
    return yield* Effect.all(
      [
        Effect.flip(store.find("token")),
        Effect.flip(store.create("other", "data", expiry)),
        Effect.flip(store.commit("third", "data", expiry)),
        Effect.flip(store.replace("token", "data", "newer", expiry)),
        Effect.flip(store.delete("fourth"))
      ],
      { concurrency: "unbounded" }
    )
  })

const holds = <R, R2, E>(options: {
  readonly describe: (name: string, tests: () => void) => void
  readonly name: string
  readonly server: Layer.Layer<R>
  readonly client: Layer.Layer<R2, E, R>
  readonly store: Layer.Layer<SessionStore, unknown, R2>
  readonly pids: Effect.Effect<ReadonlyArray<number>, unknown, R2>
}) =>
  options.describe(options.name, () => {
    layer(Layer.provideMerge(options.client, options.server), { excludeTestServices: true })(
      "that stands still",
      (it) => {
        it.effect("fails each operation while it does, and serves again afterwards", () =>
          Effect.gen(function* () {
            const store = yield* SessionStore
            yield* store.commit("token", "data", yield* inAnHour)
            const pids = yield* options.pids
            const errors = yield* Effect.scoped(Effect.andThen(pause(pids), all(store)))
            errors.forEach(hasFailed)
            assert.deepStrictEqual(
              errors.map(({ operation }) => operation),
              ["find", "create", "commit", "replace", "delete"]
            )
            // An operation that was in progress when the server hung may still succeed.
            const found = yield* Effect.retry(store.find("token"), {
              schedule: Schedule.spaced("100 millis"),
              times: 50
            })
            assert.isTrue(Option.isSome(found))
          }).pipe(Effect.provide(Layer.provide(Patient, options.store)))
        )
      }
    )
  })

describe("the timeout of docs/stores.md", () => {
  it("is the one that is tested here", () => {
    const layer = recipe.slice(recipe.indexOf("/** Fails after")).replace("export const Patient", "const Patient")
    assert.include(docs, layer)
  })

  holds({
    describe: describeRedis,
    name: "on a Redis",
    server: RedisServer.layer,
    client: redisClient,
    store: RedisStore.layer,
    pids: redisPids
  })

  holds({
    describe: describePostgres,
    name: "on a PostgreSQL",
    server: PostgresServer.layer,
    client: postgresClient,
    store: SqlStore.layer,
    pids: postgresPids
  })

  describePostgres("on a PostgreSQL that stands still", () => {
    layer(Layer.provideMerge(postgresClient, PostgresServer.layer), { excludeTestServices: true })(
      "with its client",
      (it) => {
        it.effect("comes before that of Effect.timeout, which waits for the client to give up", () =>
          Effect.gen(function* () {
            const store = yield* SessionStore
            const patient = yield* Effect.provide(
              SessionStore,
              Layer.provide(Patient, Layer.succeed(SessionStore, store))
            )
            yield* store.find("token")
            const pids = yield* postgresPids
            const first = yield* Effect.scoped(
              Effect.andThen(
                pause(pids),
                Effect.raceFirst(
                  Effect.as(Effect.flip(patient.find("token")), "this one"),
                  Effect.as(Effect.flip(Effect.timeout(store.find("token"), "1 second")), "Effect.timeout")
                )
              )
            )
            assert.strictEqual(first, "this one")
          }).pipe(Effect.provide(SqlStore.layer))
        )
      }
    )
  })
})
