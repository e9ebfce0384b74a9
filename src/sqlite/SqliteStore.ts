/**
 * A session store in one file, on the SQLite that Node.js has built in.
 *
 * A session is one row: its token, its data, and its expiry in epoch milliseconds. Each operation is one statement. The
 * clock of the process, Effect's `Clock`, decides what has expired, as in MemStore. A scoped cleanup fiber goes
 * through the table, about a millisecond at a time, and deletes what has expired.
 *
 * @module
 */
import { resolve } from "node:path"
import { type Duration, Effect, Layer } from "effect"
import * as Cleanup from "../internal/cleanup.ts"
import { SessionStore, SessionStoreError } from "../SessionStore.ts"
import * as Checkpoints from "./checkpoints.ts"
import * as Database from "./database.ts"
import type { SqliteStoreError } from "./SqliteStoreError.ts"
import * as Sessions from "./sessions.ts"

/**
 * What a {@link SqliteStore} may be told.
 */
export interface SqliteStoreOptions {
  /**
   * The file, which is created, for its owner alone to read and write, if there is none; its folder has to be there. It
   * belongs to the store: the database of your application is refused.
   */
  readonly filename: string

  /**
   * The table, `sessions` by default: a store for each table may share a file.
   */
  readonly table?: string | undefined

  /**
   * The time between two sweeps, five minutes by default. The first comes one interval after the start. Zero, a negative
   * and an infinite interval mean no cleanup.
   */
  readonly cleanupInterval?: Duration.Input | undefined

  /**
   * Where what is written is safe once an operation has answered. With `"os"`, the default, the operating system has it:
   * nothing is lost if the process crashes or is killed, and the last writes, but never the file, if the whole machine
   * does. With `"disk"`, the disk has it: nothing is lost then either, and each write waits for the disk, and the event
   * loop with it.
   */
  readonly durability?: "os" | "disk" | undefined
}

const make = Effect.fnUntraced(function* ({
  filename,
  table = "sessions",
  cleanupInterval = "5 minutes",
  durability = "os"
}: SqliteStoreOptions) {
  if (filename === "" || filename.startsWith(":memory:")) {
    return yield* Effect.die(new TypeError("SqliteStore: the filename has to name a file; use MemStore for no file"))
  }
  const file: Database.File = { filename: resolve(filename), table, durability }
  const database = yield* Database.open(file)
  const checkpoints = yield* Checkpoints.make(database, file.filename)
  const { primitives, sweep } = yield* Effect.mapError(
    Database.attempt(() => Sessions.prepare(database, file, checkpoints)),
    (failure) => Database.refusal(file.filename, failure)
  )
  const report = (swept: number) => Effect.logDebug(`Session cleanup removed ${swept} expired sessions`)
  yield* Effect.asVoid(
    Cleanup.start({
      store: "SqliteStore",
      interval: cleanupInterval,
      sweep: Effect.mapError(sweep, Database.causeOf),
      report
    })
  )
  return SessionStore.make(
    primitives,
    (operation, failure) => new SessionStoreError({ operation, cause: Database.causeOf(failure) })
  )
})

const layerWith = (options: SqliteStoreOptions): Layer.Layer<SessionStore, SqliteStoreError> =>
  Layer.effect(SessionStore, make(options))

const layer = ({ filename }: Pick<SqliteStoreOptions, "filename">): Layer.Layer<SessionStore, SqliteStoreError> =>
  layerWith({ filename })

/**
 * A session store in one file, without a server: its layers, which provide `SessionStore`.
 *
 * **When to use**: on one machine, for sessions that are to survive a restart or a crash. Several processes of the machine
 * may share the file.
 *
 * **Details**: needs Node.js 22.13 or later; on an older one the import fails, with an error that says so. The file is a
 * SQLite database in WAL mode, with the files `-wal` and `-shm` beside it while it is open. `find`, `create`, `commit`,
 * `replace` and `delete` are one statement each. The table is
 *
 * ```sql
 * CREATE TABLE sessions (
 *   token ANY PRIMARY KEY NOT NULL,
 *   expiry REAL NOT NULL,
 *   data ANY NOT NULL
 * ) STRICT;
 * ```
 *
 * with text for token and data (bytes, if it has a NUL) and the expiry in milliseconds since 1970. The cleanup goes
 * through the table about a millisecond at a time, and may run in several processes at once.
 *
 * **Gotchas**: a call of SQLite is synchronous, and nothing else runs in the process meanwhile: some microseconds for
 * `find`, some tens for a write, but the time of the disk for each write with `durability: "disk"`. A writer that finds
 * another process at work waits without blocking, for up to five seconds. `all` and `entries` have each session that is
 * there from beginning to end, and may or may not have one that comes or goes meanwhile. Keep the file on a disk of the
 * machine: locks of network file systems are not to be trusted. Node.js prints an `ExperimentalWarning` when it loads
 * SQLite; `node --disable-warning=ExperimentalWarning` is without.
 *
 * **Errors**: every operation can fail with a `SessionStoreError`: the disk is full or broken, or another process kept the
 * file busy for five seconds. `cause` is what SQLite said. A layer fails with a {@link SqliteStoreError}.
 *
 * @example
 * ```ts
 * import { SqliteStore } from "effect-sessions/sqlite"
 *
 * const Sessions = SqliteStore.layer({ filename: "sessions.db" })
 * ```
 */
export const SqliteStore: {
  /**
   * Provides `SessionStore` from the table `sessions` of a file, with a cleanup every five minutes.
   *
   * **Errors**: the layer fails with a {@link SqliteStoreError} that names the file if it cannot be used.
   */
  readonly layer: (options: Pick<SqliteStoreOptions, "filename">) => Layer.Layer<SessionStore, SqliteStoreError>

  /**
   * Provides `SessionStore` from the file and table, and with the cleanup, that the options say.
   *
   * **Errors**: the layer fails with a {@link SqliteStoreError} that names the file if it cannot be used; it dies with a
   * `TypeError` if the filename names no file, or the cleanup interval is no duration at all.
   *
   * @example
   * ```ts
   * import { SqliteStore } from "effect-sessions/sqlite"
   *
   * const Sessions = SqliteStore.layerWith({
   *   filename: "/var/lib/shop/sessions.db",
   *   cleanupInterval: "1 minute",
   *   durability: "disk"
   * })
   * ```
   */
  readonly layerWith: (options: SqliteStoreOptions) => Layer.Layer<SessionStore, SqliteStoreError>
} = { layer, layerWith }
