/**
 * SQLite in memory as a `SqlClient`, for want of a driver for Effect 4: just enough of one to run SqlStore's statements.
 */
import { Effect, Layer } from "effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as Stream from "effect/Stream"
import * as SqlClient from "effect/sql/SqlClient"
import type * as SqlConnection from "effect/sql/SqlConnection"
import * as SqlError from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import initSqlJs, { type BindParams } from "sql.js"

const make = Effect.gen(function* () {
  const { Database } = yield* Effect.promise(() => initSqlJs())
  const database = yield* Effect.acquireRelease(
    Effect.sync(() => new Database()),
    (database) => Effect.sync(() => database.close())
  )

  const execute = (sql: string, params: ReadonlyArray<unknown>) =>
    Effect.try({
      try: () => {
        const statement = database.prepare(sql, params as BindParams)
        const rows: Array<Record<string, unknown>> = []
        while (statement.step()) rows.push(statement.getAsObject())
        statement.free()
        return rows
      },
      catch: (cause) => new SqlError.SqlError({ reason: new SqlError.UnknownError({ cause, message: String(cause) }) })
    })

  const connection: SqlConnection.Connection = {
    execute,
    executeRaw: execute,
    executeUnprepared: execute,
    executeValues: () => Effect.die("not needed"),
    executeValuesUnprepared: () => Effect.die("not needed"),
    executeStream: () => Stream.die("not needed")
  }

  return yield* SqlClient.make({
    acquirer: Effect.succeed(connection),
    compiler: Statement.makeCompilerSqlite(),
    driver: "sql.js",
    spanAttributes: []
  })
})

/** A client of a new, empty database. */
export const sqliteClient: Layer.Layer<SqlClient.SqlClient> = Layer.effect(SqlClient.SqlClient, make).pipe(
  Layer.provide(Reactivity.layer)
)
