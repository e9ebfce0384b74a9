/**
 * A session store in one file, on the SQLite that is built into Node.js.
 *
 * A session is one row: its token, its data, and its expiry in epoch milliseconds. Each operation is one statement. The
 * clock of the process, Effect's `Clock`, decides what has expired, as in MemStore. A scoped cleanup fiber walks the
 * table, about a millisecond at a time, and deletes expired rows.
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
 * The options of a {@link SqliteStore}.
 */
export interface SqliteStoreOptions {
  /**
   * The file. If it does not exist, it is created, readable and writable by its owner only; its folder must exist. The
   * file belongs to the store: the database of your application is rejected.
   */
  readonly filename: string

  /**
   * The table. Default: `sessions`. Several stores can share a file, each with its own table.
   */
  readonly table?: string | undefined

  /**
   * The time between two sweeps. Default: five minutes. The first one runs one interval after the start. If it is zero,
   * negative or infinite, there is no cleanup.
   */
  readonly cleanupInterval?: Duration.Input | undefined

  /**
   * What a write survives after its operation has returned. With `"os"`, the default, the operating system has the
   * write: nothing is lost if the process crashes or is killed. If the whole machine crashes, the last writes may be
   * lost, but never the file. With `"disk"`, the disk has the write, and nothing is lost then either. But each write
   * waits for the disk, and blocks the event loop.
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
 * A session store in one file, without a server: layers that provide `SessionStore`.
 *
 * **When to use**: on one machine, for sessions that survive a restart or a crash. Several processes of the machine may
 * share the file.
 *
 * **Details**: needs Node.js 22.13 or later; on an older version the import fails, with an error that says so. The file
 * is a SQLite database in WAL mode, with the files `-wal` and `-shm` next to it while it is open. `find`, `create`,
 * `commit`, `replace` and `delete` are one statement each. The table is
 *
 * ```sql
 * CREATE TABLE sessions (
 *   token ANY PRIMARY KEY NOT NULL,
 *   expiry REAL NOT NULL,
 *   data ANY NOT NULL
 * ) STRICT;
 * ```
 *
 * with text for token and data (bytes, if it has a NUL) and the expiry in milliseconds since 1970. The cleanup walks
 * the table about a millisecond at a time, and may run in several processes at the same time.
 *
 * **Gotchas**: SQLite calls are synchronous and block the process: some microseconds for `find`, some tens for a write,
 * and with `durability: "disk"` the time of the disk for each write. If another process is writing, a writer waits
 * without blocking, for up to five seconds. `all` and `entries` include each session that exists from beginning to end,
 * and may or may not include one that begins or ends in the meantime. Keep the file on a local disk: locks of network
 * file systems cannot be trusted. Node.js prints an `ExperimentalWarning` when it loads SQLite;
 * `node --disable-warning=ExperimentalWarning` turns it off.
 *
 * **Errors**: every operation can fail with a `SessionStoreError`: the disk is full or broken, or another process kept
 * the file busy for five seconds. `cause` is the error of SQLite. A layer fails with a {@link SqliteStoreError}.
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
   * Provides `SessionStore` from a file, with the given options.
   *
   * **Errors**: the layer fails with a {@link SqliteStoreError} that names the file if it cannot be used. It dies with
   * a `TypeError` if the filename is empty or `:memory:`, or the cleanup interval is not a duration.
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
