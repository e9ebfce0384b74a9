/**
 * Checkpoints off the event loop.
 *
 * Writes go to a log first, and from there into the file at a checkpoint, which waits for the disk. If SQLite does it
 * when the log has 1,000 pages, it takes 40 to 100 ms in the middle of a commit. So a worker thread with its own
 * connection does it instead. Measured with commits among 200,000 sessions, 1,000 per second, on a busy machine with a
 * slow disk: the longest took 45 ms without the worker and 9 to 19 ms with it; one in 1,000 took more than 41 ms
 * without it and more than 4 ms with it. What remains is one wait for the disk each time the log restarts.
 */
import type { DatabaseSync } from "node:sqlite"
import { Worker } from "node:worker_threads"
import { Effect, type Scope } from "effect"

// Usually nothing waits for a checkpoint. But under constant writes the log keeps growing, because it can only restart
// when all of it is in the file. Then writers are held off for a moment, and wait without blocking anything.
const program = `
  const { parentPort, workerData } = require("node:worker_threads")
  const { DatabaseSync } = require("node:sqlite")
  const database = new DatabaseSync(workerData)
  database.exec("PRAGMA busy_timeout = 100")
  const passive = database.prepare("PRAGMA wal_checkpoint(PASSIVE)")
  const restart = database.prepare("PRAGMA wal_checkpoint(RESTART)")
  parentPort.on("message", (message) => {
    if (message === "close") {
      database.close()
      return parentPort.close()
    }
    try {
      if (passive.get().log > 4000) restart.get()
    } catch {
      // For example, the disk is full: the next checkpoint tries again.
    }
    parentPort.postMessage("done")
  })`

// A page has 4 kB. A small session touches one page of the table and one of the token index.
const pagesOf = (rows: number, characters: number): number => 2 * rows + (characters >> 12)
const pagesBetween = 1_000

const startWorker = (filename: string): Worker | undefined => {
  try {
    // Without the application's flags for Node, such as a loader; and the main thread has already warned.
    const execArgv = ["--disable-warning=ExperimentalWarning"]
    return new Worker(program, { eval: true, workerData: filename, execArgv, name: "SqliteStore checkpoints" })
  } catch {
    // Node's permission model may forbid workers.
    return undefined
  }
}

export interface Checkpoints {
  /** Call this with the size of each write. */
  readonly wrote: (rows: number, characters: number) => void
  /** Whether the log grows faster than it is moved into the file. Then work that is not urgent should wait. */
  readonly areBehind: () => boolean
}

/** Starts a worker for the file when there is something to do, and ends it with the current scope. */
export const make = (database: DatabaseSync, filename: string): Effect.Effect<Checkpoints, never, Scope.Scope> =>
  Effect.suspend(() => {
    let worker: Worker | undefined
    let state: "unstarted" | "idle" | "working" | "ended" = "unstarted"
    let isClosing = false
    let pages = 0

    // Lets SQLite do checkpoints itself: always without a worker, otherwise only if the worker cannot keep up.
    const leaveToSqlite = (logPages: number) => database.exec(`PRAGMA wal_autocheckpoint = ${logPages}`)
    leaveToSqlite(20 * pagesBetween)

    const onExit = () => {
      state = "ended"
      if (!isClosing) leaveToSqlite(pagesBetween)
    }

    const start = () => {
      worker = startWorker(filename)
      if (worker === undefined) return onExit()
      state = "idle"
      worker.unref()
      worker.on("message", () => {
        state = "idle"
      })
      // An error ends the worker. Nothing else can be done about it.
      worker.on("error", () => {})
      worker.on("exit", onExit)
    }

    const wrote: Checkpoints["wrote"] = (rows, characters) => {
      pages += pagesOf(rows, characters)
      if (pages < pagesBetween) return
      if (state === "unstarted") start()
      if (state !== "idle") return
      state = "working"
      pages = 0
      worker?.postMessage("checkpoint")
    }

    const areBehind = () => state === "working" && pages > pagesBetween

    // Close its connection first: the last one to close empties the log and removes it.
    const close = Effect.callback<void>((resume) => {
      isClosing = true
      if (worker === undefined || state === "ended") return resume(Effect.void)
      worker.ref()
      worker.on("exit", () => resume(Effect.void))
      worker.postMessage("close")
    })

    return Effect.as(
      Effect.addFinalizer(() => close),
      { wrote, areBehind }
    )
  })
