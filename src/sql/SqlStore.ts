/**
 * A session store in a table, on Effect's own `SqlClient`.
 *
 * A session is one row: its token, its data, and its expiry in epoch milliseconds. The clock of the client, Effect's
 * `Clock`, decides what has expired, as in MemStore. A scoped cleanup fiber deletes expired rows a batch at a time.
 *
 * @module
 */
import { Buffer } from "node:buffer"
import { Clock, DateTime, type Duration, Effect, HashMap, Layer, Metric, Option, Predicate, Stream } from "effect"
import * as SqlClient from "effect/sql/SqlClient"
import * as SqlError from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import * as Cleanup from "../internal/cleanup.ts"
import { SessionStore, SessionStoreError, type SessionStoreOperations } from "../SessionStore.ts"

interface Row {
  readonly token: Uint8Array
  readonly data: Uint8Array
}

// Tokens are kept as bytes, because databases disagree on text: PostgreSQL knows no NUL in it, and MySQL takes `A` for
// `a`. Some drivers take a Buffer and no other array of bytes.
const encodeToken = (token: string): Uint8Array => Buffer.from(token, "utf8")

const decodeToken = (token: Uint8Array): string =>
  Buffer.from(token.buffer, token.byteOffset, token.byteLength).toString("utf8")

const copyOf = (data: Uint8Array): Uint8Array => Buffer.from(data)

const encodeExpiry = (expiry: DateTime.DateTime): number => Math.floor(DateTime.toEpochMillis(expiry))

// A constraint that someone added to the table may be violated, and then the database quotes the row, token and data.
const withoutRow = (error: SqlError.SqlError): SqlError.SqlError => {
  const { reason } = error
  if (reason._tag !== "ConstraintError" && reason._tag !== "UniqueViolation") return error
  const cause = new Error("A constraint of the table is violated; the row is not shown")
  return new SqlError.SqlError({ reason: new SqlError.ConstraintError({ cause, message: cause.message }) })
}

const failure =
  (operation: SessionStoreError["operation"]) =>
  (error: SqlError.SqlError): SessionStoreError =>
    new SessionStoreError({ operation, cause: withoutRow(error) })

const createTableAndIndex = Effect.fnUntraced(function* (table: string) {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const sessions = sql(table)
  const index = sql(`${table.slice(table.lastIndexOf(".") + 1)}_expiry`)
  return yield* sql.onDialectOrElse({
    // PostgreSQL wants the right to create even what is there, and to create an index waits for every open transaction
    // that wrote to the table, hence the look before.
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
 * What a {@link SqlStore} may be told.
 */
export interface SqlStoreOptions {
  /**
   * The table, `sessions` by default; a dot tells its schema from its name, as in `web.sessions`.
   */
  readonly table?: string | undefined

  /**
   * The time between two sweeps, five minutes by default. The first comes one interval after the start. Zero, a negative
   * and an infinite interval mean no cleanup.
   */
  readonly cleanupInterval?: Duration.Input | undefined

  /**
   * Whether to create the table and its index at the start where there is no such table, `true` by default.
   */
  readonly createTable?: boolean | undefined
}

const make = Effect.fnUntraced(function* ({
  table = "sessions",
  cleanupInterval = "5 minutes",
  createTable = true
}: SqlStoreOptions) {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const sessions = sql(table)

  // Servers that start together may all find that there is no table, and all but one then fail to create it.
  if (createTable) yield* Effect.retry(createTableAndIndex(table), { times: 2 })

  /** Runs a statement and says how many rows it wrote. */
  const write = (statement: Statement.Fragment): Effect.Effect<number, SqlError.SqlError> =>
    sql.onDialectOrElse({
      mysql: () =>
        Effect.map(sql`${statement}`.raw, (result) =>
          Predicate.hasProperty(result, "affectedRows") ? Number(result.affectedRows) : 0
        ),
      orElse: () => Effect.map(sql`${statement} RETURNING 1 AS written`, (rows) => rows.length)
    })

  const find: SessionStoreOperations["find"] = (token) => {
    const key = encodeToken(token)
    return Clock.clockWith(
      (clock) =>
        sql<
          Pick<Row, "data">
        >`SELECT data FROM ${sessions} WHERE token = ${key} AND expiry >= ${clock.currentTimeMillisUnsafe()}`
    ).pipe(
      // What a driver returns may be a window on memory that it shares with others, hence the copy.
      Effect.map((rows) => Option.map(Option.fromNullishOr(rows[0]), ({ data }) => new Uint8Array(data))),
      Effect.mapError(failure("find"))
    )
  }

  const commit: SessionStoreOperations["commit"] = (token, data, expiry) => {
    const insert = sql`INSERT INTO ${sessions} (token, data, expiry) VALUES (${encodeToken(token)}, ${copyOf(data)}, ${encodeExpiry(expiry)})`
    return sql
      .onDialectOrElse({
        mysql: () => sql`${insert} ON DUPLICATE KEY UPDATE data = VALUES(data), expiry = VALUES(expiry)`,
        orElse: () => sql`${insert} ON CONFLICT (token) DO UPDATE SET data = excluded.data, expiry = excluded.expiry`
      })
      .pipe(Effect.asVoid, Effect.mapError(failure("commit")))
  }

  const replace: SessionStoreOperations["replace"] = (token, expected, data, expiry) => {
    const update = sql`UPDATE ${sessions} SET data = ${copyOf(data)}, expiry = ${encodeExpiry(expiry)}`
    const condition = sql`token = ${encodeToken(token)} AND data = ${copyOf(expected)}`
    return Clock.clockWith((clock) =>
      write(sql`${update} WHERE ${condition} AND expiry >= ${clock.currentTimeMillisUnsafe()}`)
    ).pipe(
      Effect.map((written) => written > 0),
      Effect.mapError(failure("replace"))
    )
  }

  const remove: SessionStoreOperations["delete"] = (token) =>
    sql`DELETE FROM ${sessions} WHERE token = ${encodeToken(token)}`.pipe(
      Effect.asVoid,
      Effect.mapError(failure("delete"))
    )

  const page = (now: number, last: Uint8Array | undefined) => {
    const next = last === undefined ? sql.literal("") : sql`AND token > ${last}`
    const limit = sql.literal(`LIMIT ${pageSize}`)
    return Effect.map(
      sql<Row>`SELECT token, data FROM ${sessions} WHERE expiry >= ${now} ${next} ORDER BY token ${limit}`,
      (rows) =>
        [
          rows.map(({ token, data }) => [decodeToken(token), new Uint8Array(data)] as const),
          rows.length < pageSize ? Option.none() : Option.fromNullishOr(rows.at(-1)?.token)
        ] as const
    )
  }

  const read = (operation: "all" | "entries"): SessionStoreOperations["entries"] =>
    Stream.unwrap(
      Effect.map(Clock.currentTimeMillis, (now) =>
        Stream.paginate<Uint8Array | undefined, readonly [token: string, data: Uint8Array], SqlError.SqlError>(
          undefined,
          (last) => page(now, last)
        )
      )
    ).pipe(Stream.mapError(failure(operation)))

  const entries = read("entries")

  const all: SessionStoreOperations["all"] = Stream.runFold(
    read("all"),
    () => HashMap.beginMutation(HashMap.empty<string, Uint8Array>()),
    (found, [token, data]) => HashMap.set(found, token, data)
  ).pipe(Effect.map(HashMap.endMutation))

  const sweepBatch = (now: number) => {
    const limit = sql.literal(`LIMIT ${pageSize}`)
    return write(
      sql.onDialectOrElse({
        // A row that another server is sweeping or committing is passed over. The array makes PostgreSQL choose the rows
        // once; it may run a plain subquery again and again, and past its limit.
        pg: () =>
          sql`DELETE FROM ${sessions} WHERE token = ANY(ARRAY(SELECT token FROM ${sessions} WHERE expiry < ${now} ${limit} FOR UPDATE SKIP LOCKED))`,
        mysql: () => sql`DELETE FROM ${sessions} WHERE expiry < ${now} ${limit}`,
        orElse: () =>
          sql`DELETE FROM ${sessions} WHERE token IN (SELECT token FROM ${sessions} WHERE expiry < ${now} ${limit})`
      })
    ).pipe(Effect.tap((removed) => Metric.update(Cleanup.sessionsSwept, removed)))
  }

  const sweep = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    let swept = 0
    while (true) {
      const removed = yield* Effect.mapError(sweepBatch(now), withoutRow)
      swept += removed
      if (removed < pageSize) return swept
    }
  })

  const report = (swept: number) => Effect.logDebug(`Session cleanup removed ${swept} expired sessions`)

  yield* Effect.asVoid(Cleanup.start({ store: "SqlStore", interval: cleanupInterval, sweep, report }))

  return SessionStore.of({ find, commit, replace, delete: remove, all, entries })
})

const layerWith = (options: SqlStoreOptions = {}): Layer.Layer<SessionStore, SqlError.SqlError, SqlClient.SqlClient> =>
  Layer.effect(SessionStore, make(options))

const migrationWith = ({
  table = "sessions"
}: Pick<SqlStoreOptions, "table"> = {}): Effect.Effect<void, SqlError.SqlError, SqlClient.SqlClient> =>
  createTableAndIndex(table)

/**
 * A session store in a table: its layers, which need Effect's `SqlClient` and provide `SessionStore`, and its migration.
 *
 * **When to use**: for several server processes, and for sessions that are to survive a restart, where a database is
 * there anyway.
 *
 * **Details**: the store is tested on PostgreSQL. It has statements for SQLite and MySQL too, for which there is no
 * driver for Effect 4 yet: those for SQLite are tested through a client that the tests bring along; those for MySQL were
 * run by hand, on MariaDB, and no test runs them. The table is this on PostgreSQL; on SQLite the types are `BLOB`, `BLOB`
 * and `INTEGER`, on MySQL `VARBINARY(255)`, `LONGBLOB` and `BIGINT`:
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
 * The token is its UTF-8, the expiry counts milliseconds since 1970. `find`, `commit`, `replace` and `delete` are one
 * statement each, on the primary key. Effect's `Clock` decides what has expired, so keep the clocks of your servers
 * together. The cleanup deletes 500 rows a statement, passes over rows that others are at work on, and may run on
 * several servers at once; a sweep that fails is logged as a warning, and the next one tries again.
 *
 * **Gotchas**: within `sql.withTransaction` the store takes part in the transaction, and is undone with it. `all` and
 * `entries` read 500 rows a statement: they have each session that is there from beginning to end, and may or may not
 * have one that comes or goes meanwhile. A token may take up to 255 bytes on MySQL and about 2,700 on PostgreSQL.
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
   * Provides `SessionStore` from the table `sessions`, which is created where it is missing, with a cleanup every five
   * minutes.
   *
   * **Errors**: the layer fails with a `SqlError` where the table is missing and cannot be created.
   */
  readonly layer: Layer.Layer<SessionStore, SqlError.SqlError, SqlClient.SqlClient>

  /**
   * Provides `SessionStore` from the table, and with the cleanup, that the options say.
   *
   * **Errors**: the layer fails with a `SqlError` where the table is to be created and cannot be; it dies with a
   * `TypeError` that names the value where the cleanup interval is no duration at all.
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
   * Creates the table `sessions` and its index where there is no such table.
   *
   * **When to use**: as one of the migrations of an application that runs its own, beside a store with
   * `createTable: false`.
   *
   * **Errors**: fails with a `SqlError` where the database does not let it.
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
   * Creates the given table and its index where there is no such table; see {@link SqlStore.migration}.
   */
  readonly migrationWith: (
    options?: Pick<SqlStoreOptions, "table">
  ) => Effect.Effect<void, SqlError.SqlError, SqlClient.SqlClient>
} = { layer: layerWith(), layerWith, migration: migrationWith(), migrationWith }
