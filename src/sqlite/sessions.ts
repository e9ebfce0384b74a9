/**
 * The statements of a `SqliteStore`: one for each primitive, on the primary key, prepared once.
 */
import { Buffer } from "node:buffer"
import type { DatabaseSync, SQLOutputValue } from "node:sqlite"
import { type Clock, DateTime, Effect, Metric, Option, Stream } from "effect"
import { sessionsSwept } from "../internal/cleanup.ts"
import type { SessionStorePrimitives } from "../SessionStore.ts"
import type { Checkpoints } from "./checkpoints.ts"
import { attempt, type Failure, type File, pause, quote, setDurability } from "./database.ts"

// Node writes a text completely, but reads it only up to the first NUL. So text with a NUL is stored as its UTF-8
// bytes. Each text has exactly one stored form, so SQLite's `=` compares exactly.
const encode = (text: string): string | Uint8Array => (text.includes("\u0000") ? Buffer.from(text, "utf8") : text)

const decoder = new TextDecoder("utf-8", { ignoreBOM: true })
const decode = (value: SQLOutputValue | undefined): string =>
  value instanceof Uint8Array ? decoder.decode(value) : String(value)

const isWritten = ({ changes }: { readonly changes: number | bigint }): boolean => Number(changes) > 0

type Primitives = SessionStorePrimitives<Failure>
type Entry = readonly [token: string, data: string]

// A page also ends with the millisecond in which it began, because sessions may be large and the disk slow.
const pageSize = 64

const makeEntries = (database: DatabaseSync, table: string): Primitives["entries"] => {
  const select = database.prepare(
    `SELECT token, data FROM ${quote(table)} WHERE token > ? AND expiry >= ? ORDER BY token`
  )

  // SQLite orders numbers before text, and text before bytes.
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

const makePrimitives = (database: DatabaseSync, table: string, { wrote }: Checkpoints): Primitives => {
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
        // Delete it now: it takes no space until the next sweep, and cannot be read from the file.
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

// Reading a row takes 0.2 µs, deleting one about 15.
const fewest = 16
const mostWithExpired = 64
const most = 4_096
const halfAMillisecond = 500_000n

/** Deletes expired rows, page by page in the order of the file, and returns how many. */
const makeSweep = (
  database: DatabaseSync,
  { table, durability }: File,
  checkpoints: Checkpoints
): Effect.Effect<number, Failure> => {
  const sessions = quote(table)
  const look = database.prepare(
    `SELECT max(rowid) AS last, min(expiry) AS soonest FROM (SELECT rowid, expiry FROM ${sessions} WHERE rowid > ? ORDER BY rowid LIMIT ?)`
  )
  const remove = database.prepare(`DELETE FROM ${sessions} WHERE rowid > ? AND rowid <= ? AND expiry < ?`)

  const removeBetween = (after: number, last: number, now: number): number => {
    // Sweeps confirm nothing to anyone, so it does not matter if a power cut brings some of these rows back.
    if (durability === "disk") setDurability(database, "os")
    try {
      const removed = Number(remove.run(after, last, now).changes)
      checkpoints.wrote(removed, 0)
      return removed
    } finally {
      if (durability === "disk") setDurability(database, "disk")
    }
  }

  /** The last row of a page, if there is one; how many rows of the page were deleted; and the size of the next page. */
  const page = (clock: Clock.Clock, after: number, now: number, size: number) => {
    const began = clock.monotonicTimeNanosUnsafe()
    const { last, soonest } = look.get(after, size) ?? {}
    if (typeof last !== "number") return undefined
    const hasExpired = Number(soonest) < now
    if (hasExpired && size > mostWithExpired) return { last: after, removed: 0, size: mostWithExpired }
    const removed = hasExpired ? removeBetween(after, last, now) : 0
    const took = clock.monotonicTimeNanosUnsafe() - began
    if (took > 2n * halfAMillisecond) return { last, removed, size: Math.max(fewest, size >> 1) }
    return { last, removed, size: took < halfAMillisecond ? Math.min(most, size * 2) : size }
  }

  return Effect.gen(function* () {
    const now = yield* attempt((clock) => clock.currentTimeMillisUnsafe())
    let swept = 0
    let after = 0
    let size = fewest
    while (true) {
      yield* Effect.yieldNow
      // Otherwise the commits of others would have to wait for the disk.
      while (checkpoints.areBehind()) yield* pause
      const done = yield* attempt((clock) => page(clock, after, now, size))
      if (done === undefined) return swept
      if (done.removed > 0) yield* Metric.update(sessionsSwept, done.removed)
      swept += done.removed
      after = done.last
      size = done.size
    }
  })
}

/** The primitives of a store. Throws what SQLite throws if the table is not that of a store. */
export const prepare = (
  database: DatabaseSync,
  file: File,
  checkpoints: Checkpoints
): { readonly primitives: Primitives; readonly sweep: Effect.Effect<number, Failure> } => ({
  primitives: makePrimitives(database, file.table, checkpoints),
  sweep: makeSweep(database, file, checkpoints)
})
