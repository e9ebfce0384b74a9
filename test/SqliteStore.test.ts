import { execFile, spawn } from "node:child_process"
import { once } from "node:events"
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir, userInfo } from "node:os"
import { join } from "node:path"
import process from "node:process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Cause, Context, DateTime, Effect, Fiber, HashMap, Layer, Option, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { MemStore, SessionStore, type SessionStoreError } from "effect-sessions"
import type { SqliteStoreError, SqliteStoreOptions } from "effect-sessions/sqlite"
import { SessionStoreTest } from "effect-sessions/testing"
import { build } from "esbuild"
import { doToBoth, makeBelow } from "./agreement.ts"
import { increment } from "./counter.ts"
import { withLog } from "./telemetry.ts"
import { temporaryFolder } from "./temporary.ts"

const sqlite: typeof import("node:sqlite") | undefined = process.getBuiltinModule("node:sqlite")
const isMissing = sqlite === undefined
if (isMissing) console.warn(`Skipped: SqliteStore, for want of node:sqlite in Node.js ${process.version}`)

const runtime = process.versions.bun !== undefined ? "Bun" : process.versions.deno !== undefined ? "Deno" : "Node.js"

/** As `condition`, which skips a test; then a line says why. */
const isSkipped = (condition: boolean, why: string): boolean => {
  if (condition) console.warn(`Skipped under ${runtime}: ${why}`)
  return condition
}

// Bun and Deno name the class and the code of an error in other ways.
const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

const inAnHour = Effect.map(DateTime.now, DateTime.add({ hours: 1 }))
const inAYear = Effect.map(DateTime.now, DateTime.add({ years: 1 }))
const anHourAgo = Effect.map(DateTime.now, DateTime.subtract({ hours: 1 }))

/** A path for a file of sessions, in a new folder. */
const temporaryFile = Effect.map(temporaryFolder, (folder) => join(folder, "sessions.db"))

// Loaded when it is needed: Node 20 cannot, and there these tests are skipped.
const storeWith = (options: SqliteStoreOptions): Layer.Layer<SessionStore, SqliteStoreError> =>
  Layer.unwrap(
    Effect.map(
      Effect.promise(() => import("effect-sessions/sqlite")),
      ({ SqliteStore }) => SqliteStore.layerWith(options)
    )
  )

/** A store in the current scope. */
const openStore = (options: SqliteStoreOptions) =>
  Effect.map(Layer.build(storeWith(options)), (context) => Context.get(context, SessionStore))

/** Another connection to a file, to look at it and to get in the way. */
const connect = (filename: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      if (sqlite === undefined) throw new Error("no node:sqlite")
      return new sqlite.DatabaseSync(filename)
    }),
    (database) => Effect.sync(() => database.close())
  )

/** How many rows there are in the file, expired or not. */
const countRows = (filename: string, table = "sessions") =>
  Effect.scoped(
    Effect.map(connect(filename), (database) => database.prepare(`SELECT count(*) AS rows FROM ${table}`).get()?.rows)
  )

const internals = Effect.promise(async () => ({
  ...(await import("../src/sqlite/database.ts")),
  ...(await import("../src/sqlite/sessions.ts"))
}))

/** Waits, in real time, until so many rows are left: a sweep may wait for a checkpoint. */
const awaitRows = (filename: string, rows: number) =>
  Effect.repeat(Effect.andThen(TestClock.withLive(Effect.sleep("5 millis")), countRows(filename)), {
    until: (found) => found === rows
  })

const noCheckpoints = { wrote: () => {}, areBehind: () => false }

const program = fileURLToPath(new URL("sqliteProcess.ts", import.meta.url))
const quiet = "--disable-warning=ExperimentalWarning"

/** The program of another process, in one file, which starts sooner than by way of a loader. */
const bundled = Effect.flatMap(temporaryFolder, (folder) =>
  Effect.promise(async () => {
    const outfile = join(folder, "sqliteProcess.mjs")
    await build({ entryPoints: [program], outfile, bundle: true, platform: "node", format: "esm", logLevel: "error" })
    return outfile
  })
)

// Root has every right, so these tests cannot run as root.
const isRoot = userInfo().uid === 0
const asNobody = Effect.acquireRelease(
  Effect.sync(() => isRoot && process.seteuid?.(65_534)),
  () => Effect.sync(() => isRoot && process.seteuid?.(0))
)

class ProcessFailed extends Schema.TaggedError<ProcessFailed>()("ProcessFailed", { stderr: Schema.String }) {}

const run = (...args: ReadonlyArray<string>) =>
  Effect.tryPromise({
    try: () => promisify(execFile)(process.execPath, args),
    catch: (error) => new ProcessFailed({ stderr: String((error as { readonly stderr?: string }).stderr) })
  })

describe("SqliteStore without node:sqlite", () => {
  const hasIt = isSkipped(runtime !== "Node.js", "no option takes node:sqlite away")
  it.live.skipIf(hasIt)("says at import what it needs", () =>
    Effect.gen(function* () {
      const without = isMissing ? [] : ["--no-experimental-sqlite"]
      const error = yield* Effect.flip(run(...without, yield* bundled))
      assert.include(
        error.stderr,
        `Error: effect-sessions/sqlite needs Node.js 22.13 or later, for its module node:sqlite; this is ${process.version} without it`
      )
    })
  )
})

describe.skipIf(isMissing)("SqliteStore", () => {
  SessionStoreTest.suite(
    "SqliteStore",
    Layer.unwrap(Effect.map(temporaryFile, (filename) => storeWith({ filename }))),
    it.effect
  )

  const folder = mkdtempSync(join(tmpdir(), "sessions-"))
  afterAll(() => rmSync(folder, { recursive: true }))
  SessionStoreTest.indexes("SqliteStore", (name) => storeWith({ filename: join(folder, name) }), it.effect)

  describe("text", () => {
    it.effect("comes back as it was: every character, with NULs and without", () =>
      Effect.gen(function* () {
        const store = yield* openStore({ filename: yield* temporaryFile })
        const expiry = yield* inAnHour
        let all = ""
        for (let code = 1; code <= 0x10ffff; code++)
          if (code < 0xd800 || code > 0xdfff) all += String.fromCodePoint(code)
        for (const data of [all, `\u0000${all}`, `${all}\u0000`]) {
          yield* store.commit("token", data, expiry)
          assert.isTrue(Option.contains(yield* store.find("token"), data))
          assert.isTrue(yield* store.replace("token", data, "next", expiry))
        }
      })
    )

    it.effect("is listed once, whether it is kept as text or as bytes", () =>
      Effect.gen(function* () {
        const store = yield* openStore({ filename: yield* temporaryFile })
        const expiry = yield* inAnHour
        const expected = new Map<string, string>()
        for (let i = 0; i < 400; i++) {
          const token = i % 2 === 0 ? `token ${i}` : `token ${i}\u0000`
          expected.set(token, i % 3 === 0 ? `${i}` : `${i}\u0000`)
          yield* store.commit(token, expected.get(token) ?? "", expiry)
        }
        const entries = yield* Stream.runCollect(store.entries)
        assert.strictEqual(entries.length, 400)
        assert.deepStrictEqual(new Map(entries), expected)
      })
    )
  })

  it.effect("agrees with MemStore, whatever is done to both", () =>
    Effect.gen(function* () {
      const memStore = yield* MemStore.makeWithCleanupInterval(0)
      const store = yield* openStore({ filename: yield* temporaryFile, cleanupInterval: 0 })
      const now = yield* DateTime.now
      const below = makeBelow()
      const someText = () => [..."\u00e9\u{1F36A}\ufeffx\u0000"].slice(below(5)).join("").repeat(below(9))
      for (let step = 0; step < 3_000; step++) {
        if (below(20) === 0) yield* TestClock.adjust("1 millis")
        const token = `${"*?%\u0000x"[below(5)]}${below(20)}`
        const expiry = DateTime.add(now, { milliseconds: below(300) - 20 })
        yield* doToBoth(store, memStore, below, { token, expiry, someText })
        if (step % 100 === 0) assert.deepStrictEqual(new Map(yield* store.all), new Map(yield* memStore.all))
      }
      assert.isAbove(HashMap.size(yield* store.all), 10)
    })
  )

  describe("file", () => {
    it.effect("keeps its sessions when the store is closed and opened again", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const expiry = yield* inAnHour
        yield* Effect.scoped(Effect.flatMap(openStore({ filename }), (store) => store.commit("token", "data", expiry)))
        const store = yield* openStore({ filename })
        assert.deepStrictEqual(yield* store.find("token"), Option.some("data"))
      })
    )

    it.effect("is for its owner alone to read and write, and so are its companions", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const store = yield* openStore({ filename })
        yield* store.commit("token", "data", yield* inAnHour)
        for (const suffix of ["", "-wal", "-shm"]) {
          assert.strictEqual(statSync(filename + suffix).mode & 0o777, 0o600, suffix)
        }
      })
    )

    it.effect("keeps the rights that it was given", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        writeFileSync(filename, "")
        chmodSync(filename, 0o660)
        yield* openStore({ filename })
        for (const suffix of ["", "-wal", "-shm"]) {
          assert.strictEqual(statSync(filename + suffix).mode & 0o777, 0o660, suffix)
        }
      })
    )

    it.effect("holds a store for each table, which know nothing of each other", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const sessions = yield* openStore({ filename })
        const others = yield* openStore({ filename, table: `the "others"` })
        yield* sessions.commit("token", "data", yield* inAnHour)
        assert.deepStrictEqual(yield* others.find("token"), Option.none())
        yield* others.commit("token", "other", yield* inAnHour)
        assert.deepStrictEqual(yield* sessions.find("token"), Option.some("data"))
      })
    )

    it.effect("is shared by all stores that open it", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const [one, two] = [yield* openStore({ filename }), yield* openStore({ filename })]
        yield* one.commit("token", "data", yield* inAnHour)
        assert.deepStrictEqual(yield* two.find("token"), Option.some("data"))
        assert.isFalse(yield* two.create("token", "other", yield* inAnHour))
      })
    )

    it.effect("syncs at each write if durability is disk, and not otherwise", () =>
      Effect.gen(function* () {
        const { open, prepare } = yield* internals
        for (const [durability, synchronous] of [
          ["os", 1],
          ["disk", 2]
        ] as const) {
          const file = { filename: yield* temporaryFile, table: "sessions", durability }
          const database = yield* open(file)
          const { primitives, sweep } = prepare(database, file, noCheckpoints)
          yield* primitives.commit("token", "data", yield* anHourAgo)
          assert.strictEqual(yield* sweep, 1)
          assert.strictEqual(database.prepare("PRAGMA synchronous").get()?.synchronous, synchronous)
        }
      })
    )
  })

  describe("cleanup", () => {
    it.effect("deletes what has expired, and nothing else, each five minutes", () =>
      withLog((logged) =>
        Effect.gen(function* () {
          const filename = yield* temporaryFile
          const store = yield* openStore({ filename })
          const [active, expired] = [yield* inAYear, yield* anHourAgo]
          for (let i = 0; i < 2_000; i++) yield* store.commit(`token ${i}`, "data", i % 4 === 0 ? active : expired)
          yield* TestClock.adjust("299 seconds")
          assert.strictEqual(yield* countRows(filename), 2_000)
          yield* TestClock.adjust("1 second")
          yield* awaitRows(filename, 500)
          assert.strictEqual(HashMap.size(yield* store.all), 500)
          yield* store.commit("later", "data", expired)
          // The next interval begins when the sweep has ended, which may be in a moment.
          yield* Effect.repeat(Effect.andThen(TestClock.adjust("5 minutes"), countRows(filename)), {
            until: (found) => found === 500
          })
          assert.deepStrictEqual(logged, [])
        })
      )
    )

    it.effect("gives way to other work between its batches", () =>
      Effect.gen(function* () {
        const { open, prepare } = yield* internals
        const file = { filename: yield* temporaryFile, table: "sessions", durability: "os" } as const
        const { primitives, sweep } = prepare(yield* open(file), file, noCheckpoints)
        const expired = yield* anHourAgo
        for (let i = 0; i < 3_000; i++) yield* primitives.commit(`token ${i}`, "data", expired)
        let turns = 0
        const others = yield* Effect.forkChild(
          Effect.forever(
            Effect.andThen(
              Effect.sync(() => turns++),
              Effect.yieldNow
            )
          )
        )
        assert.strictEqual(yield* sweep, 3_000)
        yield* Fiber.interrupt(others)
        assert.isAbove(turns, 2)
      })
    )

    it.effect("deletes few at a time, also after many that are active", () =>
      Effect.gen(function* () {
        const { open, prepare } = yield* internals
        const file = { filename: yield* temporaryFile, table: "sessions", durability: "os" } as const
        const deleted: Array<number> = []
        const checkpoints = { wrote: (rows: number) => void deleted.push(rows), areBehind: () => false }
        const { primitives, sweep } = prepare(yield* open(file), file, checkpoints)
        const [active, expired] = [yield* inAnHour, yield* anHourAgo]
        for (let i = 0; i < 3_000; i++) yield* primitives.commit(`token ${i}`, "data", i < 2_000 ? active : expired)
        deleted.length = 0
        assert.strictEqual(yield* sweep, 1_000)
        assert.isAtMost(Math.max(...deleted), 64)
        assert.strictEqual(yield* countRows(file.filename), 2_000)
      })
    )

    it.effect("waits where the log is behind", () =>
      Effect.gen(function* () {
        const { open, prepare } = yield* internals
        const file = { filename: yield* temporaryFile, table: "sessions", durability: "os" } as const
        let isBehind = true
        const checkpoints = { wrote: () => {}, areBehind: () => isBehind }
        const { primitives, sweep } = prepare(yield* open(file), file, checkpoints)
        yield* primitives.commit("token", "data", yield* anHourAgo)
        const fiber = yield* Effect.forkChild(sweep)
        for (let turn = 0; turn < 10; turn++) yield* Effect.yieldNow
        assert.strictEqual(yield* countRows(file.filename), 1)
        isBehind = false
        assert.strictEqual(yield* Fiber.join(fiber), 1)
      })
    )

    it.effect("is not there if the interval is zero", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const store = yield* openStore({ filename, cleanupInterval: 0 })
        yield* store.commit("token", "data", yield* anHourAgo)
        yield* TestClock.adjust("1 day")
        assert.strictEqual(yield* countRows(filename), 1)
      })
    )

    it.effect("logs a sweep that fails as a warning, and goes on", () =>
      withLog((logged) =>
        Effect.gen(function* () {
          const filename = yield* temporaryFile
          const store = yield* openStore({ filename, cleanupInterval: "1 second" })
          yield* store.commit("token", "data", yield* anHourAgo)
          const other = yield* connect(filename)
          other.exec("CREATE TRIGGER no BEFORE DELETE ON sessions BEGIN SELECT RAISE(ABORT, 'no'); END")
          yield* TestClock.adjust("1 second")
          assert.match(logged.join(), /^Warn: Session cleanup failed; the next sweep tries again/)
          other.exec("DROP TRIGGER no")
          yield* TestClock.adjust("1 second")
          assert.strictEqual(yield* countRows(filename), 0)
        })
      )
    )

    it.effect("has nothing to do for a session that was ended by replace: its row is gone at once", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const store = yield* openStore({ filename })
        yield* store.commit("token", "data", yield* inAnHour)
        assert.isTrue(yield* store.replace("token", "data", "", yield* anHourAgo))
        assert.strictEqual(yield* countRows(filename), 0)
      })
    )
  })

  describe("checkpoints", () => {
    /** How often the log has restarted, which SQLite counts at its beginning. */
    const beginningsOf = (filename: string) => readFileSync(`${filename}-wal`).readUInt32BE(12)

    it.live("move what was written from the log into the file, and the log begins anew, while writes go on", () =>
      Effect.flatMap(temporaryFile, (filename) =>
        Effect.gen(function* () {
          const store = yield* openStore({ filename })
          const expiry = yield* inAnHour
          yield* store.commit("token", "data", expiry)
          const before = beginningsOf(filename)
          // Less than what makes SQLite itself move it; slower after a while, for the machine may be busy.
          for (let i = 0; i < 900 && beginningsOf(filename) === before; i++) {
            yield* store.commit(`token ${i}`, "x".repeat(80_000), expiry)
            yield* Effect.sleep(i < 200 ? "0 millis" : "20 millis")
          }
          assert.isAbove(beginningsOf(filename), before)
          assert.isAbove(statSync(filename).size, 4_000_000)
        }).pipe(
          Effect.scoped,
          // The last connection that is closed removes the log: so the worker's is closed too.
          Effect.map(() => assert.isFalse(existsSync(`${filename}-wal`)))
        )
      )
    )

    it.live("are SQLite's own where no worker may be started", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const permissions = ["--permission", "--allow-fs-read=*", "--allow-fs-write=*"]
        const { stdout } = yield* run(quiet, ...permissions, yield* bundled, "commit", filename, "2000")
        assert.strictEqual(stdout, "data 0\n")
      })
    )
  })

  describe("start", () => {
    const startError = (filename: string, table = "sessions") =>
      Effect.flip(Effect.scoped(openStore({ filename, table })))

    it.effect("fails for a file that is no database, and leaves it as it was", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const text = "Dear diary, ".repeat(1_000)
        writeFileSync(filename, text)
        const error = yield* startError(filename)
        assert.strictEqual(error._tag, "SqliteStoreError")
        assert.strictEqual(error.reason, "notADatabase")
        assert.strictEqual(
          error.message,
          `SqliteStore cannot use ${filename}: it is not a SQLite database (file is not a database)`
        )
        assert.strictEqual(readFileSync(filename, "utf8"), text)
      })
    )

    it.effect("fails for the database of another application, and leaves it as it was", () =>
      Effect.gen(function* () {
        for (const sql of ["CREATE TABLE orders (id)", "PRAGMA user_version = 7", "PRAGMA application_id = 7"]) {
          const filename = yield* temporaryFile
          yield* Effect.scoped(Effect.map(connect(filename), (database) => database.exec(sql)))
          const before = readFileSync(filename)
          const error = yield* startError(filename)
          assert.strictEqual(
            error.message,
            `SqliteStore cannot use ${filename}: it is the database of another application`
          )
          assert.strictEqual(error.reason, "otherApplication")
          assert.isTrue(before.equals(readFileSync(filename)))
        }
      })
    )

    it.effect("fails for a file that a newer version wrote", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        yield* Effect.scoped(openStore({ filename }))
        yield* Effect.scoped(Effect.map(connect(filename), (database) => database.exec("PRAGMA user_version = 2")))
        const error = yield* startError(filename)
        assert.strictEqual(error.reason, "newerVersion")
        assert.strictEqual(
          error.message,
          `SqliteStore cannot use ${filename}: a newer version of effect-sessions wrote it`
        )
      })
    )

    it.effect("fails where no file can be, with what the operating system says", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        mkdirSync(filename)
        const directory = yield* startError(filename)
        assert.strictEqual(directory.reason, "unusable")
        assert.include(
          directory.message,
          `cannot use ${filename}: it cannot be opened, read or written (unable to open`
        )

        const missing = yield* startError(join(filename, "missing", "sessions.db"))
        assert.include(missing.message, `${join(filename, "missing", "sessions.db")}: it cannot be opened`)
        assert.include(missing.message, "ENOENT")

        const file = join(filename, "file")
        writeFileSync(file, "")
        assert.include((yield* startError(join(file, "sessions.db"))).message, "ENOTDIR")
      })
    )

    const isThread = isSkipped(isRoot && runtime === "Bun", "a thread cannot be another user")
    it.effect.skipIf(isThread)("fails in a folder, and for a file, without the right to write", () =>
      Effect.gen(function* () {
        yield* internals
        const filename = yield* temporaryFile
        const forOthers = yield* temporaryFile
        yield* Effect.scoped(openStore({ filename: forOthers }))
        chmodSync(forOthers, 0o444)
        chmodSync(join(forOthers, ".."), 0o555)
        chmodSync(join(filename, ".."), 0o555)
        const errors = yield* Effect.scoped(
          Effect.andThen(asNobody, Effect.all([startError(filename), startError(forOthers)]))
        )
        for (const folder of [join(filename, ".."), join(forOthers, "..")]) chmodSync(folder, 0o755)
        for (const error of errors) assert.strictEqual(error.reason, "unusable")
        assert.include(errors[0].message, "EACCES")
        assert.include(errors[0].message, filename)
        assert.include(errors[1].message, forOthers)
      })
    )

    it.effect("fails for a table that is none of a store", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        yield* Effect.scoped(openStore({ filename }))
        yield* Effect.scoped(Effect.map(connect(filename), (database) => database.exec("CREATE TABLE other (id)")))
        assert.include((yield* startError(filename, "other")).message, filename)
      })
    )

    it.effect("dies of a name that is none of a file, and of an interval that is none", () =>
      Effect.gen(function* () {
        for (const filename of ["", ":memory:"]) {
          const cause = yield* Effect.flip(Effect.sandbox(openStore({ filename })))
          assert.include(Cause.pretty(cause), "TypeError: SqliteStore: the filename has to name a file")
        }
        const filename = yield* temporaryFile
        const cause = yield* Effect.flip(Effect.sandbox(openStore({ filename, cleanupInterval: Number.NaN })))
        assert.include(Cause.pretty(cause), "SqliteStore: the cleanup interval is no duration: NaN")
      })
    )
  })

  describe("a failure", () => {
    const failureOf = (effect: Effect.Effect<unknown, SessionStoreError>) =>
      Effect.map(Effect.flip(effect), ({ operation, cause }) => ({ operation, cause: messageOf(cause) }))

    it.effect("of any operation is a SessionStoreError, with what SQLite said", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const store = yield* openStore({ filename })
        const expiry = yield* inAnHour
        const other = yield* connect(filename)
        other.exec("ALTER TABLE sessions RENAME TO gone")
        const cause = "no such table: sessions"
        const hides = isSkipped(
          runtime === "Deno",
          "a failure of all and entries, which its node:sqlite takes for the end"
        )
        const listings = [
          ["all", store.all],
          ["entries", Stream.runDrain(store.entries)]
        ] as const
        for (const [operation, effect] of [
          ["find", store.find("token")],
          ["create", store.create("token", "data", expiry)],
          ["commit", store.commit("token", "data", expiry)],
          ["replace", store.replace("token", "data", "data", expiry)],
          ["delete", store.delete("token")],
          ...(hides ? [] : listings)
        ] as const) {
          assert.deepStrictEqual(yield* failureOf(effect), { operation, cause })
        }
        other.exec("ALTER TABLE gone RENAME TO sessions")
        yield* store.commit("token", "data", expiry)
        assert.deepStrictEqual(yield* store.find("token"), Option.some("data"))
      })
    )

    it.effect("shows nothing of the row", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const store = yield* openStore({ filename })
        const other = yield* connect(filename)
        other.exec("CREATE TRIGGER no BEFORE INSERT ON sessions BEGIN SELECT RAISE(ABORT, 'a secret'); END")
        const failure = yield* failureOf(store.commit("token", "data", yield* inAnHour))
        assert.strictEqual(failure.cause, "A constraint of the table is violated; the row is not shown")
      })
    )

    it.effect("is the answer when the store is closed", () =>
      Effect.gen(function* () {
        const store = yield* Effect.scoped(openStore({ filename: yield* temporaryFile }))
        assert.strictEqual((yield* failureOf(store.find("token"))).operation, "find")
      })
    )

    it.effect("is the answer when the disk is full; the store goes on when there is room", () =>
      Effect.gen(function* () {
        const { open, prepare } = yield* internals
        const file = { filename: yield* temporaryFile, table: "sessions", durability: "os" } as const
        const database = yield* open(file)
        const { primitives } = prepare(database, file, noCheckpoints)
        const expiry = yield* inAnHour
        const data = "x".repeat(3_000)
        database.exec("PRAGMA max_page_count = 50")
        let kept = 0
        const failure = yield* Effect.suspend(() => primitives.commit(`token ${kept}`, data, expiry)).pipe(
          Effect.tap(() => Effect.sync(() => kept++)),
          Effect.forever,
          Effect.flip
        )
        assert.strictEqual(messageOf(failure.cause), "database or disk is full")
        assert.isAbove(kept, 10)
        const isKept = Effect.gen(function* () {
          for (let i = 0; i < kept; i++) {
            assert.deepStrictEqual(yield* primitives.find(`token ${i}`), Option.some(data))
          }
          assert.deepStrictEqual(yield* primitives.find(`token ${kept}`), Option.none())
        })
        yield* isKept
        // A log-out makes room, and so does a larger disk.
        yield* primitives.delete(`token ${--kept}`)
        yield* primitives.commit("other", data, expiry)
        yield* isKept
        database.exec("PRAGMA max_page_count = 1000")
        for (let i = 0; i < 100; i++) yield* primitives.commit(`more ${i}`, data, expiry)
        yield* isKept
      })
    )
  })

  describe("beside another process", () => {
    it.live("waits for its turn to write, while everything else goes on", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const store = yield* openStore({ filename })
        const expiry = yield* inAnHour
        yield* store.commit("token", "data", expiry)
        const other = yield* connect(filename)
        other.exec("BEGIN IMMEDIATE")
        const fiber = yield* Effect.forkChild(store.replace("token", "data", "next", expiry))
        yield* Effect.sleep("100 millis")
        assert.deepStrictEqual(yield* store.find("token"), Option.some("data"))
        assert.isUndefined(fiber.pollUnsafe())
        other.exec("COMMIT")
        assert.isTrue(yield* Fiber.join(fiber))
        assert.deepStrictEqual(yield* store.find("token"), Option.some("next"))
      })
    )

    it.live("fails after five seconds without a turn", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const store = yield* openStore({ filename })
        const other = yield* connect(filename)
        other.exec("BEGIN IMMEDIATE")
        const error = yield* Effect.flip(store.commit("token", "data", yield* inAnHour))
        assert.strictEqual(error.operation, "commit")
        assert.include(String(error.cause), "database is locked")
      })
    )

    it.live(
      "loses no update: of 1,000 increments each there are 2,000",
      () =>
        Effect.gen(function* () {
          const filename = yield* temporaryFile
          const store = yield* openStore({ filename })
          const expiry = yield* inAnHour
          yield* store.commit("counter", "0", expiry)
          const other = run(quiet, yield* bundled, "increment", filename, "1000")
          const own = Effect.replicateEffect(increment(store, "counter", expiry), 1_000, { concurrency: 10 })
          const child = yield* Effect.forkChild(other)
          // Not before the other has begun, so they overlap.
          yield* Effect.repeat(Effect.andThen(Effect.sleep("2 millis"), store.find("counter")), {
            until: (found) => !Option.contains(found, "0")
          })
          yield* own
          yield* Fiber.join(child)
          assert.deepStrictEqual(yield* store.find("counter"), Option.some("2000"))
        }),
      60_000
    )
  })

  describe("killed in the middle of its writes", () => {
    // How often: a few times, or as often as the environment says.
    const kills = Number(process.env.SQLITE_KILLS ?? 5)

    /** What a process has tried and what was confirmed, by its own log: the last entry of each token. */
    const readLog = (log: string) => {
      const confirmed = new Map<string, string | null>()
      const tried = new Map<string, string | null>()
      const lines = readFileSync(log, "utf8").split("\n")
      for (const line of lines.slice(0, -1)) {
        const [token, data] = JSON.parse(line.slice(line.indexOf(" "))) as [string, string | null]
        if (line.startsWith("done")) confirmed.set(token, data)
        if (line.startsWith("done")) tried.delete(token)
        else tried.set(token, data)
      }
      return { confirmed, tried, lines: lines.length }
    }

    /** Starts a process, kills it in the middle of its load, and waits for its end. */
    const killUnderLoad = (program: string, filename: string, log: string, seed: number) =>
      Effect.promise(async () => {
        writeFileSync(log, "")
        const child = spawn(process.execPath, [quiet, program, "load", filename, log], { stdio: "inherit" })
        const exit = once(child, "exit")
        while (statSync(log).size === 0 && child.exitCode === null) await new Promise((done) => setTimeout(done, 5))
        await new Promise((done) => setTimeout(done, (seed * 37) % 300))
        child.kill("SIGKILL")
        await exit
        assert.strictEqual(child.signalCode, "SIGKILL")
      })

    it.live(
      `loses nothing that was confirmed, and no log-out comes undone: ${kills} times`,
      () =>
        Effect.gen(function* () {
          const filename = yield* temporaryFile
          const log = `${filename}.log`
          const program = yield* bundled
          const expected = new Map<string, string>()
          const deleted = new Set<string>()
          let steps = 0
          for (let kill = 0; kill < kills; kill++) {
            yield* killUnderLoad(program, filename, log, kill + 1)
            const { confirmed, tried, lines } = readLog(log)
            steps += lines
            for (const [token, data] of confirmed) {
              if (data === null) deleted.add(token)
              else expected.set(token, data)
            }
            const all = yield* Effect.scoped(Effect.flatMap(openStore({ filename }), (store) => store.all))
            // An unconfirmed write may or may not be there.
            for (const [token, data] of tried) {
              const found = Option.getOrNull(HashMap.get(all, token))
              assert.include([data, confirmed.get(token) ?? null], found)
              deleted.delete(token)
              if (found === null) expected.delete(token)
              else expected.set(token, found)
            }
            assert.deepStrictEqual(new Map(all), expected)
            for (const token of deleted) assert.isFalse(HashMap.has(all, token))
            assert.isAbove(confirmed.size, 0)
          }
          const database = yield* connect(filename)
          assert.deepStrictEqual({ ...database.prepare("PRAGMA integrity_check").get() }, { integrity_check: "ok" })
          console.log(
            `killed ${kills} times; ${steps} lines of log, ${expected.size} sessions, ${deleted.size} log-outs`
          )
        }),
      600_000
    )
  })
})
