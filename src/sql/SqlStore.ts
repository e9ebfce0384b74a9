/**
 * A session store in a table, on Effect's own `SqlClient`.
 *
 * A session is one row: its token, its data, and its expiry in epoch milliseconds. The clock of the client, Effect's
 * `Clock`, decides what has expired, as in MemStore. A scoped cleanup fiber deletes expired rows in batches.
 *
 * @module
 */
import { Buffer } from "node:buffer"
import { Clock, DateTime, type Duration, Effect, Layer, Metric, Option, Predicate, Stream } from "effect"
import * as SqlClient from "effect/sql/SqlClient"
import * as SqlError from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import * as Cleanup from "../internal/cleanup.ts"
import {
  SessionStore,
  SessionStoreError,
  type SessionStoreOperation,
  type SessionStorePrimitives
} from "../SessionStore.ts"

interface Row {
  readonly token: Uint8Array
  readonly data: Uint8Array
}

// Text is stored as UTF-8 bytes, because databases disagree on text: PostgreSQL allows no NUL in it, and only the
// characters of the database's encoding; MySQL treats `A` as `a`, and `a ` as `a`. Bytes come back unchanged and
// compare exactly, in every database. They cost nothing: on PostgreSQL, reads and writes of BYTEA and TEXT differed by
// less than a third, with neither always ahead, from 256 characters to a million.
//
// A Buffer, because some drivers accept no other array of bytes, and because TextEncoder takes 7 times as long for 256
// characters.
const encode = (text: string): Uint8Array => Buffer.from(text, "utf8")

const decoder = new TextDecoder("utf-8", { ignoreBOM: true })
const decode = (bytes: Uint8Array): string => decoder.decode(bytes)

const encodeExpiry = (expiry: DateTime.DateTime): number => Math.floor(DateTime.toEpochMillis(expiry))

// If someone added a constraint to the table, the error of a violation quotes the row, with token and data.
const withoutRow = (error: SqlError.SqlError): SqlError.SqlError => {
  const { reason } = error
  if (reason._tag !== "ConstraintError" && reason._tag !== "UniqueViolation") return error
  const cause = new Error("A constraint of the table is violated; the row is not shown")
  return new SqlError.SqlError({ reason: new SqlError.ConstraintError({ cause, message: cause.message }) })
}

const toError = (operation: SessionStoreOperation, error: SqlError.SqlError): SessionStoreError =>
  new SessionStoreError({ operation, cause: withoutRow(error) })

type Primitives = SessionStorePrimitives<SqlError.SqlError>

const createTableAndIndex = Effect.fnUntraced(function* (table: string) {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const sessions = sql(table)
  const index = sql(`${table.slice(table.lastIndexOf(".") + 1)}_expiry`)
  return yield* sql.onDialectOrElse({
    // Check first: PostgreSQL requires the right to create even if the table exists, and creating an index waits for
    // every open transaction that wrote to the table.
    pg: () =>
      Effect.flatMap(sql`SELECT 1 WHERE to_regclass(${sql`${sessions}`.compile()[0]}) IS NULL`, (missing) =>
        missing.length === 0
          ? Effect.void
          : sql`CREATE TABLE ${sessions} (token BYTEA PRIMARY KEY, data BYTEA NOT NULL, expiry BIGINT NOT NULL)`.pipe(
              Effect.andThen(sql`CREATE INDEX ${index} ON ${sessions} (expiry)`),
              sql.withTransaction,
              Effect.asVoid
            )
      ),
    mysql: () =>
      Effect.asVoid(
        sql`CREATE TABLE IF NOT EXISTS ${sessions} (token VARBINARY(255) PRIMARY KEY, data LONGBLOB NOT NULL, expiry BIGINT NOT NULL, INDEX ${index} (expiry))`
      ),
    orElse: () =>
      sql`CREATE TABLE IF NOT EXISTS ${sessions} (token BLOB PRIMARY KEY NOT NULL, data BLOB NOT NULL, expiry INTEGER NOT NULL)`.pipe(
        Effect.andThen(sql`CREATE INDEX IF NOT EXISTS ${index} ON ${sessions} (expiry)`),
        Effect.asVoid
      )
  })
})

// How many rows one statement reads or deletes.
const pageSize = 500

/**
 * The options of a {@link SqlStore}.
 */
export interface SqlStoreOptions {
  /**
   * The table. Default: `sessions`. A dot separates schema and name, as in `web.sessions`.
   */
  readonly table?: string | undefined

  /**
   * The time between two sweeps. Default: five minutes. The first one runs one interval after the start. If it is zero,
   * negative or infinite, there is no cleanup.
   */
  readonly cleanupInterval?: Duration.Input | undefined

  /**
   * Whether to create the table and its index at the start if there is no such table. Default: `true`.
   */
  readonly createTable?: boolean | undefined
}

interface Table {
  readonly sql: SqlClient.SqlClient
  readonly name: Statement.Identifier
}

/** Runs a statement, and returns how many rows it wrote. */
const write = ({ sql }: Table, statement: Statement.Fragment): Effect.Effect<number, SqlError.SqlError> =>
  sql.onDialectOrElse({
    mysql: () =>
      Effect.map(sql`${statement}`.raw, (result) =>
        Predicate.hasProperty(result, "affectedRows") ? Number(result.affectedRows) : 0
      ),
    orElse: () => Effect.map(sql`${statement} RETURNING 1 AS written`, (rows) => rows.length)
  })

/** Inserts a row. The clause that follows handles an existing row, which it calls `held`. */
const insert = ({ sql, name }: Table, token: string, data: string, expiry: DateTime.DateTime): Statement.Fragment => {
  const held = sql.onDialectOrElse({ mysql: () => sql.literal(""), orElse: () => sql.literal("AS held ") })
  return sql`INSERT INTO ${name} ${held}(token, data, expiry) VALUES (${encode(token)}, ${encode(data)}, ${encodeExpiry(expiry)})`
}

const overwrite = "ON CONFLICT (token) DO UPDATE SET data = excluded.data, expiry = excluded.expiry"

const isUniqueViolation = ({ reason }: SqlError.SqlError): boolean => reason._tag === "UniqueViolation"

const makeCreate =
  (table: Table): Primitives["create"] =>
  (token, data, expiry) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const { sql, name } = table
      const row = insert(table, token, data, expiry)
      return sql.onDialectOrElse({
        // MySQL has no condition in `ON DUPLICATE KEY UPDATE`, and its clients count an unchanged row like an inserted
        // one. Each of these statements is atomic, and deleting an expired session does no harm.
        mysql: () => {
          const insertNew = Effect.as(sql`${row}`, true).pipe(
            Effect.catchIf(isUniqueViolation, () => Effect.succeed(false))
          )
          const deleteExpired = sql`DELETE FROM ${name} WHERE token = ${encode(token)} AND expiry < ${now}`
          return Effect.flatMap(insertNew, (isNew) =>
            isNew ? Effect.succeed(true) : Effect.andThen(deleteExpired, insertNew)
          )
        },
        orElse: () =>
          Effect.map(
            write(table, sql`${row} ${sql.literal(overwrite)} WHERE held.expiry < ${now}`),
            (written) => written > 0
          )
      })
    })

const makeEntries = ({ sql, name }: Table): Primitives["entries"] => {
  const limit = sql.literal(`LIMIT ${pageSize}`)

  const page = (now: number, last: Uint8Array | undefined) => {
    const next = last === undefined ? sql.literal("") : sql`AND token > ${last}`
    return Effect.map(
      sql<Row>`SELECT token, data FROM ${name} WHERE expiry >= ${now} ${next} ORDER BY token ${limit}`,
      (rows) =>
        [
          rows.map(({ token, data }) => [decode(token), decode(data)] as const),
          rows.length < pageSize ? Option.none() : Option.fromNullishOr(rows.at(-1)?.token)
        ] as const
    )
  }

  return Stream.unwrap(
    Effect.map(Clock.currentTimeMillis, (now) =>
      Stream.paginate<Uint8Array | undefined, readonly [token: string, data: string], SqlError.SqlError>(
        undefined,
        (last) => page(now, last)
      )
    )
  )
}

const makePrimitives = (table: Table): Primitives => {
  const { sql, name } = table

  const find: Primitives["find"] = (token) =>
    Effect.map(
      Clock.clockWith(
        (clock) =>
          sql<
            Pick<Row, "data">
          >`SELECT data FROM ${name} WHERE token = ${encode(token)} AND expiry >= ${clock.currentTimeMillisUnsafe()}`
      ),
      ([row]) => (row === undefined ? Option.none() : Option.some(decode(row.data)))
    )

  const commit: Primitives["commit"] = (token, data, expiry) => {
    const row = insert(table, token, data, expiry)
    return Effect.asVoid(
      sql.onDialectOrElse({
        mysql: () => sql`${row} ON DUPLICATE KEY UPDATE data = VALUES(data), expiry = VALUES(expiry)`,
        orElse: () => sql`${row} ${sql.literal(overwrite)}`
      })
    )
  }

  // A session replaced with an expired one stays until the sweep, like one that expires by itself.
  const replace: Primitives["replace"] = (token, expected, data, expiry) => {
    const update = sql`UPDATE ${name} SET data = ${encode(data)}, expiry = ${encodeExpiry(expiry)}`
    const condition = sql`token = ${encode(token)} AND data = ${encode(expected)}`
    return Effect.map(
      Clock.clockWith((clock) =>
        write(table, sql`${update} WHERE ${condition} AND expiry >= ${clock.currentTimeMillisUnsafe()}`)
      ),
      (written) => written > 0
    )
  }

  const remove: Primitives["delete"] = (token) => Effect.asVoid(sql`DELETE FROM ${name} WHERE token = ${encode(token)}`)

  return { find, create: makeCreate(table), commit, replace, delete: remove, entries: makeEntries(table) }
}

/** Deletes expired rows, one page per statement, and returns how many. */
const makeSweep = (table: Table): Effect.Effect<number, SqlError.SqlError> => {
  const { sql, name } = table
  const limit = sql.literal(`LIMIT ${pageSize}`)

  const sweepPage = (now: number) =>
    write(
      table,
      sql.onDialectOrElse({
        // Skips rows that another server is sweeping or committing. The array makes PostgreSQL choose the rows once; it
        // may run a plain subquery repeatedly, and exceed its limit.
        pg: () =>
          sql`DELETE FROM ${name} WHERE token = ANY(ARRAY(SELECT token FROM ${name} WHERE expiry < ${now} ${limit} FOR UPDATE SKIP LOCKED))`,
        mysql: () => sql`DELETE FROM ${name} WHERE expiry < ${now} ${limit}`,
        orElse: () => sql`DELETE FROM ${name} WHERE token IN (SELECT token FROM ${name} WHERE expiry < ${now} ${limit})`
      })
    ).pipe(Effect.tap((removed) => Metric.update(Cleanup.sessionsSwept, removed)))

  return Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    let swept = 0
    while (true) {
      const removed = yield* Effect.mapError(sweepPage(now), withoutRow)
      swept += removed
      if (removed < pageSize) return swept
    }
  })
}

const make = Effect.fnUntraced(function* ({
  table = "sessions",
  cleanupInterval = "5 minutes",
  createTable = true
}: SqlStoreOptions) {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const sessions: Table = { sql, name: sql(table) }

  // If several servers start together, all may find no table, and all but one then fail to create it.
  if (createTable) yield* Effect.retry(createTableAndIndex(table), { times: 2 })

  const report = (swept: number) => Effect.logDebug(`Session cleanup removed ${swept} expired sessions`)

  yield* Effect.asVoid(
    Cleanup.start({ store: "SqlStore", interval: cleanupInterval, sweep: makeSweep(sessions), report })
  )

  return SessionStore.make(makePrimitives(sessions), toError)
})

const layerWith = (options: SqlStoreOptions = {}): Layer.Layer<SessionStore, SqlError.SqlError, SqlClient.SqlClient> =>
  Layer.effect(SessionStore, make(options))

const migrationWith = ({
  table = "sessions"
}: Pick<SqlStoreOptions, "table"> = {}): Effect.Effect<void, SqlError.SqlError, SqlClient.SqlClient> =>
  createTableAndIndex(table)

/**
 * A session store in a table: its layers, which need Effect's `SqlClient` and provide `SessionStore`, and its
 * migration.
 *
 * **When to use**: if you have a database anyway, for several server processes, and for sessions that survive a
 * restart.
 *
 * **Details**: the store is tested on PostgreSQL. It also has statements for SQLite and MySQL, for which Effect 4 has
 * no driver yet. Those for SQLite are tested through a client in the tests. Those for MySQL were run by hand, on
 * MariaDB, and no test runs them. On PostgreSQL, the table is as below. On SQLite the types are `BLOB`, `BLOB` and
 * `INTEGER`; on MySQL they are `VARBINARY(255)`, `LONGBLOB` and `BIGINT`:
 *
 * ```sql
 * CREATE TABLE sessions (
 *   token BYTEA PRIMARY KEY,
 *   data BYTEA NOT NULL,
 *   expiry BIGINT NOT NULL
 * );
 * CREATE INDEX sessions_expiry ON sessions (expiry);
 * ```
 *
 * Token and data are stored as UTF-8 bytes, because databases disagree on text. On PostgreSQL,
 * `convert_from(data, 'UTF8')` shows them. The expiry is in milliseconds since 1970. `find`, `create`, `commit`,
 * `replace` and `delete` are one statement each, on the primary key, except that `create` takes up to three on MySQL.
 * Effect's `Clock` decides what has expired, so synchronize the clocks of your servers. The cleanup deletes 500 rows
 * per statement, skips rows that other servers have locked, and may run on several servers at the same time. A sweep
 * that fails is logged as a warning, and the next one tries again.
 *
 * **Gotchas**: within `sql.withTransaction`, the store takes part in the transaction, and is rolled back with it. `all`
 * and `entries` read 500 rows per statement: they include each session that exists from beginning to end, and may or
 * may not include one that begins or ends in the meantime. A token may take up to 255 bytes on MySQL and about 2,700 on
 * PostgreSQL.
 *
 * **Errors**: every operation can fail with a `SessionStoreError` whose `cause` is a `SqlError`.
 *
 * @example
 * ```ts
 * import { PgClient } from "@effect/sql-pg"
 * import { Layer, Redacted } from "effect"
 * import { SqlStore } from "effect-sessions/sql"
 *
 * const Database = PgClient.layer({ url: Redacted.make("postgres://localhost/app") })
 * const Sessions = SqlStore.layer.pipe(Layer.provide(Database))
 * ```
 */
export const SqlStore: {
  /**
   * Provides `SessionStore` from the table `sessions`, which is created if it is missing, with a cleanup every five
   * minutes.
   *
   * **Errors**: the layer fails with a `SqlError` if the table is missing and cannot be created.
   */
  readonly layer: Layer.Layer<SessionStore, SqlError.SqlError, SqlClient.SqlClient>

  /**
   * Provides `SessionStore` from a table, with the given options.
   *
   * **Errors**: the layer fails with a `SqlError` if the table is to be created and cannot be. It dies with a
   * `TypeError` that names the value if the cleanup interval is not a duration.
   *
   * @example
   * ```ts
   * import { SqlStore } from "effect-sessions/sql"
   *
   * const Sessions = SqlStore.layerWith({ table: "web.sessions", cleanupInterval: "1 minute", createTable: false })
   * ```
   */
  readonly layerWith: (options?: SqlStoreOptions) => Layer.Layer<SessionStore, SqlError.SqlError, SqlClient.SqlClient>

  /**
   * Creates the table `sessions` and its index if there is no such table.
   *
   * **When to use**: as one of your own migrations, together with `createTable: false`.
   *
   * **Errors**: fails with a `SqlError` if the database does not allow it.
   *
   * @example
   * ```ts
   * import { Migrator } from "effect/sql"
   * import { SqlStore } from "effect-sessions/sql"
   *
   * const migrate = Migrator.make({})({
   *   loader: Migrator.fromRecord({ "0001_sessions": SqlStore.migration })
   * })
   * ```
   */
  readonly migration: Effect.Effect<void, SqlError.SqlError, SqlClient.SqlClient>

  /**
   * Creates the given table and its index if there is no such table; see {@link SqlStore.migration}.
   */
  readonly migrationWith: (
    options?: Pick<SqlStoreOptions, "table">
  ) => Effect.Effect<void, SqlError.SqlError, SqlClient.SqlClient>
} = { layer: layerWith(), layerWith, migration: migrationWith(), migrationWith }
