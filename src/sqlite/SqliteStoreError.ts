/**
 * What keeps a `SqliteStore` from starting.
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
 * A `SqliteStore` cannot start with the file that it was given.
 *
 * Its message names the file, and says what is wrong with it.
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
     * What is wrong: the file is no SQLite database; it is one that is not a `SqliteStore`'s own; a newer version of this
     * package changed it in a way that this one does not know; or the operating system or SQLite refused it, for want of
     * the right, the folder, or room, as `cause` says.
     */
    reason: Schema.Literals(["notADatabase", "otherApplication", "newerVersion", "unusable"]),
    /** What the operating system or SQLite said, if it was they who refused. */
    cause: Schema.optionalKey(Schema.Defect())
  }
) {
  /** Names the file, and says what is wrong with it. */
  override get message(): string {
    const said = this.cause instanceof Error ? ` (${this.cause.message})` : ""
    return `SqliteStore cannot use ${this.filename}: ${explanations[this.reason]}${said}`
  }
}
