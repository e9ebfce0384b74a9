/**
 * The statements of a `SqliteStore`: each primitive is one, on the primary key, prepared once.
 */
import { Buffer } from "node:buffer"
import type { DatabaseSync, SQLOutputValue } from "node:sqlite"
import { type Clock, DateTime, Effect, Metric, Option, Stream } from "effect"
import { sessionsSwept } from "../internal/cleanup.ts"
import type { SessionStorePrimitives } from "../SessionStore.ts"
import type { Wrote } from "./checkpoints.ts"
import { attempt, type Failure, type File, quote, setDurability } from "./database.ts"

// Node writes all of a text, and reads it up to the first NUL; so text that has one is kept as the bytes of its UTF-8. Of
// a text there is one way to keep it, and so SQLite's `=` compares exactly.
const encode = (text: string): string | Uint8Array => (text.includes("\u0000") ? Buffer.from(text, "utf8") : text)

const decoder = new TextDecoder("utf-8", { ignoreBOM: true })
const decode = (value: SQLOutputValue | undefined): string =>
  value instanceof Uint8Array ? decoder.decode(value) : String(value)

const isWritten = ({ changes }: { readonly changes: number | bigint }): boolean => Number(changes) > 0

type Primitives = SessionStorePrimitives<Failure>
type Entry = readonly [token: string, data: string]

// A page also ends with the millisecond that it began in, for sessions may be large, and the disk slow.
const pageSize = 64

const makeEntries = (database: DatabaseSync, table: string): Primitives["entries"] => {
  const select = database.prepare(
    `SELECT token, data FROM ${quote(table)} WHERE token > ? AND expiry >= ? ORDER BY token`
  )

  // In SQLite's order of things a number comes before any text, and text before bytes.
  const beginning = 0

  const page = (last: SQLOutputValue, now: number) =>
    attempt((clock) => {
      const entries: Array<Entry> = []
      const began = clock.currentTimeMillisUnsafe()
      for (const { token, data } of select.iterate(last, now)) {
        entries.push([decode(token), decode(data)])
        if (entries.length === pageSize || clock.currentTimeMillisUnsafe() !== began) {
          return [entries, Option.fromUndefinedOr(token)] as const
        }
      }
      return [entries, Option.none()] as const
    })

  return Stream.unwrap(
    attempt((clock) => {
      const now = clock.currentTimeMillisUnsafe()
      return Stream.paginate<SQLOutputValue, Entry, Failure>(beginning, (last) =>
        Effect.andThen(Effect.yieldNow, page(last, now))
      )
    })
  )
}

const makePrimitives = (database: DatabaseSync, table: string, wrote: Wrote): Primitives => {
  const sessions = quote(table)
  const select = database.prepare(`SELECT data FROM ${sessions} WHERE token = ? AND expiry >= ?`)
  const upsert = `INSERT INTO ${sessions} AS held (token, data, expiry) VALUES (?, ?, ?)
    ON CONFLICT (token) DO UPDATE SET data = excluded.data, expiry = excluded.expiry`
  const write = database.prepare(upsert)
  const add = database.prepare(`${upsert} WHERE held.expiry < ?`)
  const active = "token = ? AND data = ? AND expiry >= ?"
  const update = database.prepare(`UPDATE ${sessions} SET data = ?, expiry = ? WHERE ${active}`)
  const end = database.prepare(`DELETE FROM ${sessions} WHERE ${active}`)
  const remove = database.prepare(`DELETE FROM ${sessions} WHERE token = ?`)

  return {
    find: (token) =>
      attempt((clock) => {
        const row = select.get(encode(token), clock.currentTimeMillisUnsafe())
        return row === undefined ? Option.none() : Option.some(decode(row.data))
      }),
    create: (token, data, expiry) =>
      attempt((clock) => {
        const now = clock.currentTimeMillisUnsafe()
        const isNew = isWritten(add.run(encode(token), encode(data), DateTime.toEpochMillis(expiry), now))
        if (isNew) wrote(1, data.length)
        return isNew
      }),
    commit: (token, data, expiry) =>
      attempt(() => {
        write.run(encode(token), encode(data), DateTime.toEpochMillis(expiry))
        wrote(1, data.length)
      }),
    replace: (token, expected, data, expiry) =>
      attempt((clock) => {
        const now = clock.currentTimeMillisUnsafe()
        const until = DateTime.toEpochMillis(expiry)
        // What ends here takes no room until the next sweep, and nobody can read it out of the file.
        const isReplaced = isWritten(
          until < now
            ? end.run(encode(token), encode(expected), now)
            : update.run(encode(data), until, encode(token), encode(expected), now)
        )
        if (isReplaced) wrote(1, data.length)
        return isReplaced
      }),
    delete: (token) =>
      attempt(() => {
        if (isWritten(remove.run(encode(token)))) wrote(1, 0)
      }),
    entries: makeEntries(database, table)
  }
}

const fewest = 16
const most = 512
const halfAMillisecond = 500_000n

/** Deletes what has expired, about a millisecond's worth a statement, and says how many rows that were. */
const makeSweep = (
  database: DatabaseSync,
  { table, durability }: File,
  wrote: Wrote
): Effect.Effect<number, Failure> => {
  const sessions = quote(table)
  const remove = database.prepare(
    `DELETE FROM ${sessions} WHERE rowid IN (SELECT rowid FROM ${sessions} WHERE expiry < ? ORDER BY expiry LIMIT ?)`
  )

  /** How many were deleted, and how many to delete next. */
  const batch = (clock: Clock.Clock, now: number, limit: number) => {
    const began = clock.monotonicTimeNanosUnsafe()
    // Nobody was told that these are gone, so it does not matter if a power cut brings some of them back.
    if (durability === "disk") setDurability(database, "os")
    try {
      const removed = Number(remove.run(now, limit).changes)
      wrote(removed, 0)
      const took = clock.monotonicTimeNanosUnsafe() - began
      if (took > 2n * halfAMillisecond) return [removed, Math.max(fewest, limit >> 1)] as const
      return [removed, took < halfAMillisecond ? Math.min(most, limit * 2) : limit] as const
    } finally {
      if (durability === "disk") setDurability(database, "disk")
    }
  }

  return Effect.gen(function* () {
    const now = yield* attempt((clock) => clock.currentTimeMillisUnsafe())
    let swept = 0
    let limit = fewest
    while (true) {
      yield* Effect.yieldNow
      const [removed, next] = yield* attempt((clock) => batch(clock, now, limit))
      yield* Metric.update(sessionsSwept, removed)
      swept += removed
      if (removed < limit) return swept
      limit = next
    }
  })
}

/** What a store is made of. Throws what SQLite does if the table is another than that of a store. */
export const prepare = (
  database: DatabaseSync,
  file: File,
  wrote: Wrote
): { readonly primitives: Primitives; readonly sweep: Effect.Effect<number, Failure> } => ({
  primitives: makePrimitives(database, file.table, wrote),
  sweep: makeSweep(database, file, wrote)
})
