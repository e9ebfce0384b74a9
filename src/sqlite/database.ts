/**
 * A file of sessions. `open` checks whose file it is, makes the table, and returns the connection. `attempt` is the
 * only place that calls SQLite, and that waits for other processes that write.
 */
import { closeSync, openSync } from "node:fs"
import process from "node:process"
import type { DatabaseSync } from "node:sqlite"
import { Clock, Data, Duration, Effect, Predicate, Schedule, type Scope } from "effect"
import { SqliteStoreError } from "./SqliteStoreError.ts"

// Not an import: if the module is missing, that would fail with an unhelpful message.
const sqlite: typeof import("node:sqlite") | undefined = process.getBuiltinModule?.("node:sqlite")

if (sqlite === undefined) {
  throw new Error(
    `effect-sessions/sqlite needs Node.js 22.13 or later, for its module node:sqlite; this is ${process.version} without it`
  )
}

const { DatabaseSync: Database } = sqlite

/** What SQLite or Node threw. */
export class Failure extends Data.TaggedError("SqliteFailure")<{ readonly cause: unknown }> {
  /** The primary result code of SQLite, without the extended part. */
  get code(): number | undefined {
    const { cause } = this
    return Predicate.hasProperty(cause, "errcode") && Predicate.isNumber(cause.errcode)
      ? cause.errcode & 0xff
      : undefined
  }
}

const busy = 5
const constraint = 19
const notADatabase = 26

/** The cause without the row, which the error of a trigger that someone added to the table may quote. */
export const causeOf = (failure: Failure): unknown =>
  failure.code === constraint ? new Error("A constraint of the table is violated; the row is not shown") : failure.cause

// The processes that write to a file take turns. SQLite's own wait would block the event loop, so it is off, and a
// fiber sleeps instead. In real time even under a TestClock, because it waits for another process or thread.
const liveClock = Clock.Clock.defaultValue()
const longestPause = Duration.millis(20)
const turns = Schedule.exponential("1 millis", 1.5).pipe(
  Schedule.modifyDelay(({ duration }) => Effect.succeed(Duration.min(duration, longestPause))),
  Schedule.jittered,
  Schedule.upTo({ duration: "5 seconds" })
)

/** Lets another thread or process make progress. */
export const pause = Effect.provideService(Effect.sleep("5 millis"), Clock.Clock, liveClock)

const waitForTurn = <A>(run: () => A): Effect.Effect<A, Failure> =>
  Effect.try({ try: run, catch: (cause) => new Failure({ cause }) }).pipe(
    Effect.retry({ schedule: turns, while: (failure) => failure.code === busy }),
    Effect.provideService(Clock.Clock, liveClock)
  )

/**
 * Calls SQLite with the current clock. If another process is writing, retries for five seconds.
 */
export const attempt = <A>(call: (clock: Clock.Clock) => A): Effect.Effect<A, Failure> =>
  Clock.clockWith((clock) => {
    try {
      return Effect.succeed(call(clock))
    } catch (cause) {
      const failure = new Failure({ cause })
      return failure.code === busy ? waitForTurn(() => call(clock)) : Effect.fail(failure)
    }
  })

// "efss" in ASCII: the file has a field for a number that identifies its application.
const applicationId = 0x65667373
const version = 1

const readText = (database: DatabaseSync, query: string): string =>
  String(Object.values(database.prepare(query).get() ?? {})[0])

const readNumber = (database: DatabaseSync, query: string): number => Number(readText(database, query))

/** Why the file must not be touched; `undefined` if it may be. */
const objection = (database: DatabaseSync): "otherApplication" | "newerVersion" | undefined => {
  const owner = readNumber(database, "PRAGMA application_id")
  const held = readNumber(database, "PRAGMA user_version")
  if (owner === applicationId) return held > version ? "newerVersion" : undefined
  const isNew = owner === 0 && held === 0 && readNumber(database, "SELECT count(*) FROM sqlite_schema") === 0
  return isNew ? undefined : "otherApplication"
}

export const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`

// With a rowid, although the key is text. WITHOUT ROWID orders rows by their random keys: with rows of more than 200
// bytes, finding one among a million took half again as long, and writing one twice as long.
//
// ANY stores values unchanged: text, and bytes for text that contains a NUL. REAL, because an expiry may be between two
// milliseconds; a whole number takes no more space than as an INTEGER.
//
// No index on the expiry: each write would have to update it, which takes half of the time of a commit. A sweep reads
// the table instead. The expiry comes before the data, so a sweep reads only the beginning of a large session.
const schema = (table: string): string => `
  CREATE TABLE IF NOT EXISTS ${quote(table)} (
    token ANY PRIMARY KEY NOT NULL,
    expiry REAL NOT NULL,
    data ANY NOT NULL
  ) STRICT;
  PRAGMA application_id = ${applicationId};
  PRAGMA user_version = ${version};`

/** The options of a store for its file. */
export interface File {
  /** An absolute path. */
  readonly filename: string
  readonly table: string
  readonly durability: "os" | "disk"
}

/** `NORMAL` syncs the file at a checkpoint; `FULL` also syncs the log at each write. */
export const setDurability = (database: DatabaseSync, durability: File["durability"]): void =>
  database.exec(`PRAGMA synchronous = ${durability === "disk" ? "FULL" : "NORMAL"}`)

/** Makes the table if it is missing. Returns the objection to the file, if there is one; throws what SQLite throws. */
const setUp = (database: DatabaseSync, { table, durability }: File): ReturnType<typeof objection> => {
  const reason = objection(database)
  if (reason !== undefined) return reason
  if (readText(database, "PRAGMA journal_mode = WAL") !== "wal") throw new Error("the file system is none for WAL")
  setDurability(database, durability)
  database.exec("BEGIN IMMEDIATE")
  // Another process may have been faster.
  const reasonNow = objection(database)
  if (reasonNow === undefined) database.exec(schema(table))
  // An error before this ends the store and its connection, and so the transaction.
  database.exec("COMMIT")
  return reasonNow
}

/** Creates the file with access for its owner only, which SQLite does not. SQLite gives the log files the same mode. */
const createFile = (filename: string): void => {
  try {
    // Exclusive, because closing a file that SQLite has open in this process would release its locks.
    closeSync(openSync(filename, "wx", 0o600))
  } catch (error) {
    if (!Predicate.hasProperty(error, "code") || error.code !== "EEXIST") throw error
  }
}

const connect = (filename: string): DatabaseSync => {
  createFile(filename)
  return new Database(filename)
}

/** Why a store cannot start. */
export const refusal = (filename: string, failure: Failure): SqliteStoreError => {
  const reason = failure.code === notADatabase ? "notADatabase" : "unusable"
  return new SqliteStoreError({ filename, reason, cause: failure.cause })
}

/** Opens a file of sessions in the current scope. */
export const open: (file: File) => Effect.Effect<DatabaseSync, SqliteStoreError, Scope.Scope> = Effect.fnUntraced(
  function* (file) {
    const { filename } = file
    const database = yield* Effect.acquireRelease(
      attempt(() => connect(filename)),
      (database) => Effect.sync(() => database.close())
    ).pipe(Effect.mapError((failure) => refusal(filename, failure)))
    const reason = yield* Effect.mapError(
      attempt(() => setUp(database, file)),
      (failure) => refusal(filename, failure)
    )
    return reason === undefined ? database : yield* new SqliteStoreError({ filename, reason })
  }
)
