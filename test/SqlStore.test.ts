import { inspect } from "node:util"
import { assert, describe, expectTypeOf, it, layer } from "@effect/vitest"
import {
  Cause,
  Clock,
  Context,
  DateTime,
  Deferred,
  type Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Metric,
  Option,
  References,
  Result,
  Stream
} from "effect"
import { Migrator, SqlClient, SqlError } from "effect/sql"
import { TestClock } from "effect/testing"
import { SessionStore, SessionStoreError } from "effect-sessions"
import { SqlStore, type SqlStoreOptions } from "effect-sessions/sql"
import { SessionStoreTest } from "effect-sessions/testing"
import { describePostgres, PostgresServer, postgresClient } from "./servers.ts"
import { sqliteClient } from "./sqlite.ts"
import { withSpans } from "./telemetry.ts"

const fromNow = (duration: Duration.Input) => Effect.map(DateTime.now, DateTime.addDuration(duration))

/** A store in the current scope, with a table that no other test has unless told, and without cleanup. */
const makeStore = (options: SqlStoreOptions = {}) =>
  Effect.suspend(() =>
    Layer.build(SqlStore.layerWith({ table: crypto.randomUUID(), cleanupInterval: 0, ...options }))
  ).pipe(Effect.map((context) => Context.get(context, SessionStore)))

const emptyStore = Layer.effect(SessionStore, makeStore())

const commitMany = (store: SessionStore["Service"], count: number, lifetime: Duration.Input, prefix = "") =>
  Effect.flatMap(fromNow(lifetime), (expiry) =>
    Effect.forEach(
      Array.from({ length: count }, (_, i) => `${prefix}${i}`),
      (token) => store.commit(token, token, expiry),
      { discard: true, concurrency: 8 }
    )
  )

const rowsIn = Effect.fnUntraced(function* (table: string) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ readonly count: bigint }>`SELECT count(*) AS count FROM ${sql(table)}`
  return Number(rows[0]?.count)
})

/** Waits until a table has so many rows. */
const untilRows = (table: string, count: number) =>
  Effect.sleep("10 millis").pipe(
    Effect.andThen(rowsIn(table)),
    Effect.repeat({ until: (rows) => rows === count }),
    Effect.timeout("20 seconds")
  )

/** Runs an effect at the given time, which does not go on, except that sleeps take as long as ever. */
const at =
  (time: DateTime.DateTime) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Clock.clockWith((clock) => {
      const now = DateTime.toEpochMillis(time)
      const stopped: Clock.Clock = Object.assign(Object.create(clock), {
        currentTimeMillisUnsafe: () => now,
        currentTimeMillis: Effect.succeed(now)
      })
      return Effect.provideService(effect, Clock.Clock, stopped)
    })

describePostgres("SqlStore", () => {
  layer(Layer.provideMerge(postgresClient, PostgresServer.layer), { excludeTestServices: true })(
    "on PostgreSQL",
    (it) => {
      SessionStoreTest.suite("SqlStore", emptyStore, it.effect)
      SessionStoreTest.indexes("SqlStore", (table) => SqlStore.layerWith({ table }), it.effect)

      describe("the table", () => {
        it.effect("is sessions by default, with an index on the expiry", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* (yield* SessionStore).commit("token", "data", yield* fromNow("1 hour"))
            assert.strictEqual(yield* rowsIn("sessions"), 1)
            const indexes = yield* sql<{
              readonly indexdef: string
            }>`SELECT indexdef FROM pg_indexes WHERE tablename = 'sessions'`
            assert.isTrue(indexes.some(({ indexdef }) => indexdef.endsWith("(expiry)")))
            assert.isTrue(
              indexes.some(({ indexdef }) => indexdef.startsWith("CREATE UNIQUE INDEX") && indexdef.endsWith("(token)"))
            )
          }).pipe(Effect.provide(SqlStore.layer))
        )

        it.effect("keeps token and data as UTF-8, for anyone to read who looks into it", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const table = crypto.randomUUID()
            const store = yield* makeStore({ table })
            const expiry = yield* fromNow("1 hour")
            yield* store.commit("tökén", '{"name":"Zoë \u{1F36A}"}', expiry)
            assert.deepStrictEqual(
              yield* sql`SELECT convert_from(token, 'UTF8') AS token, convert_from(data, 'UTF8') AS data FROM ${sql(table)}`,
              [{ token: "tökén", data: '{"name":"Zoë \u{1F36A}"}' }]
            )
          })
        )

        it.effect("may have any name, and one in another schema", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* sql`CREATE SCHEMA web`
            for (const table of ['x"; DROP TABLE sessions; --', "Sessions", "sés sions'", "web.sessions"]) {
              const store = yield* makeStore({ table })
              yield* store.commit("token", table, yield* fromNow("1 hour"))
              assert.isFalse(yield* store.create("token", table, yield* fromNow("1 hour")))
              assert.isTrue(yield* store.replace("token", table, "new", yield* fromNow("1 hour")))
              assert.deepStrictEqual(yield* store.find("token"), Option.some("new"))
              assert.strictEqual(yield* rowsIn(table), 1)
            }
            assert.strictEqual((yield* sql`SELECT FROM pg_indexes WHERE schemaname = 'web'`).length, 2)
          })
        )

        it.effect("is created once where many servers start together", () =>
          Effect.gen(function* () {
            for (let round = 0; round < 5; round++) {
              const table = crypto.randomUUID()
              const stores = yield* Effect.replicateEffect(makeStore({ table }), 10, { concurrency: "unbounded" })
              yield* stores[0]?.commit("token", "data", yield* fromNow("1 hour")) ?? Effect.die("no store")
              for (const store of stores) {
                assert.deepStrictEqual(yield* store.find("token"), Option.some("data"))
              }
            }
          })
        )

        it.effect("is left to the application's migrations where that is asked for", () =>
          Effect.gen(function* () {
            const table = "migrated"
            const store = yield* makeStore({ table, createTable: false })
            assert.isTrue(Result.isFailure(yield* Effect.result(store.find("token"))))
            const migrate = Migrator.make({})({
              loader: Migrator.fromRecord({ "0001_sessions": SqlStore.migrationWith({ table }) })
            })
            assert.deepStrictEqual(yield* migrate, [[1, "sessions"]])
            assert.deepStrictEqual(yield* migrate, [])
            yield* store.commit("token", "data", yield* fromNow("1 hour"))
            assert.strictEqual(yield* rowsIn(table), 1)
          })
        )

        it.effect("cannot be created where its schema is missing, and the layer fails with a SqlError", () =>
          Effect.gen(function* () {
            const result = yield* Effect.result(makeStore({ table: "nowhere.sessions" }))
            assert.isTrue(Result.isFailure(result) && SqlError.isSqlError(result.failure))
          })
        )
      })

      describe("expiry", () => {
        it.effect("is inclusive, to the millisecond, by the clock of the client", () =>
          Effect.gen(function* () {
            const store = yield* SessionStore
            const expiry = yield* fromNow("1 hour")
            const later = DateTime.add(expiry, { milliseconds: 1 })
            const data = "data"
            yield* store.commit("token", data, DateTime.addDuration(expiry, "700 micros"))
            assert.deepStrictEqual(yield* at(later)(store.find("token")), Option.none())
            yield* store.commit("token", data, expiry)
            assert.deepStrictEqual(yield* at(expiry)(store.find("token")), Option.some(data))
            assert.strictEqual(yield* at(expiry)(Stream.runCount(store.entries)), 1)
            assert.isFalse(yield* at(expiry)(store.create("token", data, later)))
            assert.isTrue(yield* at(expiry)(store.replace("token", data, data, expiry)))
            assert.deepStrictEqual(yield* at(later)(store.find("token")), Option.none())
            assert.strictEqual(yield* at(later)(Stream.runCount(store.entries)), 0)
            assert.isFalse(yield* at(later)(store.replace("token", data, data, DateTime.add(later, { hours: 1 }))))
            assert.isTrue(yield* at(later)(store.create("token", data, later)))
            assert.deepStrictEqual(yield* at(later)(store.find("token")), Option.some(data))
          }).pipe(Effect.provide(emptyStore))
        )
      })

      describe("cleanup", () => {
        it.effect("removes exactly the expired, in several batches, and counts them", () =>
          Effect.gen(function* () {
            const table = crypto.randomUUID()
            const filling = yield* makeStore({ table })
            yield* commitMany(filling, 1_234, "-1 seconds", "expired ")
            yield* commitMany(filling, 300, "1 hour", "active ")
            const store = yield* makeStore({ table, cleanupInterval: "20 millis" })
            yield* untilRows(table, 300)
            const active = yield* store.all
            assert.isTrue(
              [...active].every(([token, data]) => token.startsWith("active ") && token.length === data.length)
            )
            const metrics = new Map((yield* Metric.snapshot).map(({ id, state }) => [id, state]))
            assert.deepInclude(metrics.get("sessions_swept"), { count: 1_234 })
            assert.isTrue(metrics.has("session_sweep_duration"))
          }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
        )

        it.effect("spares a session at its very expiry", () =>
          Effect.gen(function* () {
            const table = crypto.randomUUID()
            const now = yield* DateTime.now
            const store = yield* at(now)(makeStore({ table, cleanupInterval: "20 millis" }))
            yield* store.commit("active", "data", now)
            yield* store.commit("expired", "data", DateTime.subtract(now, { milliseconds: 1 }))
            yield* untilRows(table, 1)
            assert.deepStrictEqual(yield* at(now)(store.find("active")), Option.some("data"))
          })
        )

        it.effect("may run on several servers at once", () =>
          Effect.gen(function* () {
            const table = crypto.randomUUID()
            const filling = yield* makeStore({ table })
            yield* commitMany(filling, 3_000, "-1 seconds", "expired ")
            yield* commitMany(filling, 10, "1 hour", "active ")
            yield* Effect.replicateEffect(makeStore({ table, cleanupInterval: "20 millis" }), 4)
            yield* untilRows(table, 10)
            // A sweep counts what it has removed after the rows are gone.
            yield* Effect.sleep("100 millis")
            const swept = (yield* Metric.snapshot).find((metric) => metric.id === "sessions_swept")
            assert.deepInclude(swept?.state, { count: 3_000 })
          }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
        )

        it.effect("passes over a row that someone is at work on, and does not wait for it", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const table = crypto.randomUUID()
            const store = yield* makeStore({ table })
            yield* commitMany(store, 20, "-1 seconds")
            const renewed = yield* Deferred.make<void>()
            const swept = yield* Deferred.make<void>()
            const renewing = yield* store
              .commit("7", "renewed", yield* fromNow("1 hour"))
              .pipe(
                Effect.andThen(Deferred.succeed(renewed, undefined)),
                Effect.andThen(Deferred.await(swept)),
                sql.withTransaction,
                Effect.forkChild
              )
            yield* Deferred.await(renewed)
            yield* makeStore({ table, cleanupInterval: "20 millis" })
            yield* untilRows(table, 1)
            yield* Deferred.succeed(swept, undefined)
            yield* Fiber.join(renewing)
            assert.deepStrictEqual(yield* store.find("7"), Option.some("renewed"))
          })
        )

        it.effect("goes on after a sweep that failed, which is logged as a warning", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const table = crypto.randomUUID()
            const logs: Array<string> = []
            const logger = Logger.make(({ cause, logLevel, message }) => {
              logs.push(`${logLevel} ${message} ${Cause.pretty(cause)}`)
            })
            const store = yield* makeStore({ table, cleanupInterval: "20 millis" }).pipe(
              Effect.provide(Logger.layer([logger])),
              Effect.provideService(References.MinimumLogLevel, "Debug")
            )
            yield* sql`DROP TABLE ${sql(table)}`
            logs.length = 0
            yield* Effect.sleep("10 millis").pipe(Effect.repeat({ until: () => logs.length > 1 }))
            assert.include(logs.join(), "Warn Session cleanup failed; the next sweep tries again")
            assert.include(logs.join(), "does not exist")
            yield* SqlStore.migrationWith({ table })
            yield* store.commit("expired", "data", yield* fromNow("-1 seconds"))
            yield* untilRows(table, 0)
            yield* Effect.sleep("30 millis")
            assert.include(logs.join(), "Debug Session cleanup removed 1 expired sessions")
          })
        )

        it.effect("ends with the scope of the layer", () =>
          Effect.gen(function* () {
            const table = crypto.randomUUID()
            const store = yield* Effect.scoped(makeStore({ table, cleanupInterval: "20 millis" }))
            yield* store.commit("expired", "data", yield* fromNow("-1 seconds"))
            yield* Effect.sleep("100 millis")
            assert.strictEqual(yield* rowsIn(table), 1)
          })
        )

        it.effect("fails to start where its interval is no duration, with a message that says so", () =>
          Effect.gen(function* () {
            const exit = yield* Effect.exit(makeStore({ cleanupInterval: Number.NaN }))
            const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
            assert.instanceOf(defect, TypeError)
            assert.include(defect.message, "SqlStore: the cleanup interval is no duration: NaN")
          })
        )
      })

      describe("a transaction", () => {
        it.effect("takes the store in, and is undone with it", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const store = yield* SessionStore
            const commit = store.commit("token", "data", yield* fromNow("1 hour"))
            yield* Effect.exit(sql.withTransaction(Effect.andThen(commit, Effect.fail("no"))))
            assert.deepStrictEqual(yield* store.find("token"), Option.none())
            yield* sql.withTransaction(commit)
            assert.deepStrictEqual(yield* store.find("token"), Option.some("data"))
          }).pipe(Effect.provide(emptyStore))
        )
      })

      describe("errors", () => {
        const operations = (store: SessionStore["Service"], expiry: DateTime.DateTime, token: string, data: string) =>
          Object.entries({
            find: store.find(token),
            create: store.create(token, data, expiry),
            commit: store.commit(token, data, expiry),
            replace: store.replace(token, data, data, expiry),
            delete: store.delete(token),
            all: store.all,
            entries: Stream.runDrain(store.entries)
          })

        const failureOf = <A, E>(effect: Effect.Effect<A, E>) =>
          Effect.map(Effect.result(effect), (result) => (Result.isFailure(result) ? result.failure : undefined))

        it.effect("come of a token too long for PostgreSQL's index, which is still found by nobody", () =>
          Effect.gen(function* () {
            const store = yield* SessionStore
            const token = Array.from({ length: 200 }, () => crypto.randomUUID()).join()
            const error = yield* failureOf(store.commit(token, "data", yield* fromNow("1 hour")))
            assert.strictEqual(error?._tag, "SessionStoreError")
            assert.deepStrictEqual(yield* store.find(token), Option.none())
          }).pipe(Effect.provide(emptyStore))
        )

        it.effect("are SessionStoreErrors that name the operation and have a SqlError as their cause", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const table = crypto.randomUUID()
            const store = yield* makeStore({ table })
            yield* sql`DROP TABLE ${sql(table)}`
            const all = operations(store, yield* fromNow("1 hour"), "a-token-nobody-may-see", "data-nobody-may-see")
            for (const [operation, effect] of all) {
              const error = yield* failureOf<unknown, SessionStoreError>(effect)
              assert.instanceOf(error, SessionStoreError)
              assert.strictEqual(error.operation, operation)
              assert.isTrue(SqlError.isSqlError(error.cause))
              const shown = [
                inspect(error, { depth: 10 }),
                Cause.pretty(Cause.fail(error)),
                JSON.stringify(error)
              ].join()
              assert.include(shown, "does not exist")
              assert.notInclude(shown, "nobody-may-see")
            }
          })
        )

        it.effect(
          "show neither token nor data where a constraint is violated, which PostgreSQL reports with the row",
          () =>
            Effect.gen(function* () {
              const sql = yield* SqlClient.SqlClient
              const table = crypto.randomUUID()
              const store = yield* makeStore({ table })
              yield* sql`ALTER TABLE ${sql(table)} ADD CHECK (length(data) < 10)`
              yield* sql`CREATE UNIQUE INDEX ON ${sql(table)} (data)`
              const expiry = yield* fromNow("1 hour")
              const token = "a-token-nobody-may-see"
              yield* store.commit("other", "same", expiry)
              for (const data of ["data-nobody-may-see", "same"]) {
                const error = yield* failureOf(store.commit(token, data, expiry))
                assert.instanceOf(error, SessionStoreError)
                const shown = [
                  inspect(error, { depth: 10 }),
                  Cause.pretty(Cause.fail(error)),
                  JSON.stringify(error)
                ].join()
                for (const secret of [
                  "nobody-may-see",
                  Buffer.from(token).toString("hex"),
                  Buffer.from("same").toString("hex")
                ]) {
                  assert.notInclude(shown, secret)
                }
                assert.include(shown, "the row is not shown")
              }
            })
        )
      })
    }
  )
})

/** Counts the statements that begin with a word while an effect runs. */
const countStatements = <A, E, R>(word: string, effect: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  withSpans((spans) =>
    Effect.map(
      effect,
      () => spans.filter(({ attributes }) => String(attributes.get("db.query.text")).startsWith(word)).length
    )
  )

describe("SqlStore on SQLite", () => {
  SessionStoreTest.suite("SqlStore", Layer.provide(SqlStore.layer, sqliteClient), it.effect)
  SessionStoreTest.indexes("SqlStore", Layer.provide(SqlStore.layer, sqliteClient), it.effect)

  it.effect("migrates the table sessions by default", () =>
    Effect.gen(function* () {
      yield* SqlStore.migration
      assert.strictEqual(yield* rowsIn("sessions"), 0)
    }).pipe(Effect.provide(sqliteClient))
  )

  it.effect("takes one statement for each operation on a session", () =>
    Effect.gen(function* () {
      const store = yield* SessionStore
      const expiry = yield* fromNow("1 hour")
      yield* store.commit("token", "old", expiry)
      for (const operation of [
        store.find("token"),
        store.commit("token", "data", expiry),
        store.replace("token", "data", "new", expiry),
        store.replace("token", "data", "new", expiry),
        store.create("token", "data", expiry),
        store.create("other", "data", expiry),
        store.delete("token")
      ]) {
        const count = yield* countStatements("", Effect.asVoid<unknown, SessionStoreError, never>(operation))
        assert.strictEqual(count, 1)
      }
    }).pipe(Effect.provide(Layer.provideMerge(SqlStore.layer, sqliteClient)))
  )

  it.effect("reads 500 sessions a statement", () =>
    Effect.gen(function* () {
      const store = yield* SessionStore
      yield* commitMany(store, 1_234, "1 hour")
      assert.strictEqual(yield* countStatements("SELECT", store.all), 3)
    }).pipe(Effect.provide(Layer.provideMerge(SqlStore.layer, sqliteClient)))
  )

  describe("cleanup", () => {
    it.effect("deletes 500 sessions a statement", () =>
      Effect.gen(function* () {
        const sweeps = Effect.gen(function* () {
          const store = yield* SessionStore
          yield* commitMany(store, 1_234, "1 minute")
          yield* TestClock.adjust("5 minutes")
          assert.strictEqual(yield* rowsIn("sessions"), 0)
        }).pipe(Effect.provide(SqlStore.layer))
        assert.strictEqual(yield* countStatements("DELETE", sweeps), 3)
      }).pipe(Effect.provide(sqliteClient))
    )

    it.effect("removes exactly the expired, in several batches, every five minutes by default", () =>
      Effect.gen(function* () {
        const store = yield* SessionStore
        yield* commitMany(store, 1_234, "299 seconds", "expired ")
        yield* commitMany(store, 300, "300 seconds", "active ")
        yield* TestClock.adjust("299999 millis")
        assert.strictEqual(yield* rowsIn("sessions"), 1_534)
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* rowsIn("sessions"), 300)
        assert.strictEqual(yield* Stream.runCount(store.entries), 300)
      }).pipe(Effect.provide(Layer.provideMerge(SqlStore.layer, sqliteClient)))
    )
  })
})

describe("types", () => {
  it("SqlStore.layer provides SessionStore, needs a SqlClient and fails with its error", () => {
    type Store = Layer.Layer<SessionStore, SqlError.SqlError, SqlClient.SqlClient>
    expectTypeOf(SqlStore.layer).toEqualTypeOf<Store>()
    expectTypeOf(SqlStore.layerWith).returns.toEqualTypeOf<Store>()
    expectTypeOf(SqlStore.migration).toEqualTypeOf<Effect.Effect<void, SqlError.SqlError, SqlClient.SqlClient>>()
  })
})
