/**
 * The error of a `SqliteStore` that cannot start.
 *
 * @module
 */
import { Schema } from "effect"

const explanations = {
  notADatabase: "it is not a SQLite database",
  otherApplication: "it is the database of another application",
  newerVersion: "a newer version of effect-sessions wrote it",
  unusable: "it cannot be opened, read or written"
}

/**
 * A `SqliteStore` cannot start with the given file.
 *
 * The message names the file, and says what is wrong with it.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { SqliteStore } from "effect-sessions/sqlite"
 *
 * const Sessions = SqliteStore.layer({ filename: "/var/lib/shop/sessions.db" }).pipe(
 *   Layer.tapError((error) => Effect.logError(error.message, error.reason))
 * )
 * ```
 */
export class SqliteStoreError extends Schema.TaggedError<SqliteStoreError>("effect-sessions/SqliteStoreError")(
  "SqliteStoreError",
  {
    /** The file, as an absolute path. */
    filename: Schema.String,
    /**
     * What is wrong: the file is not a SQLite database; it is a database of another application; a newer version of
     * this package has changed it in an unknown way; or the operating system or SQLite failed, for example because a
     * permission, the folder or disk space is missing. Then `cause` says which.
     */
    reason: Schema.Literals(["notADatabase", "otherApplication", "newerVersion", "unusable"]),
    /** The error of the operating system or SQLite, if one of them failed. */
    cause: Schema.optionalKey(Schema.Defect())
  }
) {
  /** Names the file, and says what is wrong with it. */
  override get message(): string {
    const said = this.cause instanceof Error ? ` (${this.cause.message})` : ""
    return `SqliteStore cannot use ${this.filename}: ${explanations[this.reason]}${said}`
  }
}
