/**
 * Checkpoints off the event loop.
 *
 * What is written goes to a log first, and from there into the file at a checkpoint, which waits for the disk: 40 to 100 ms
 * at a time, in the midst of somebody's commit, if SQLite does it when the log has 1,000 pages. A worker thread with a
 * connection of its own does it instead. Commits among 200,000 sessions, 1,000 a second, on a busy machine with a slow disk:
 * the longest 45 ms without it and 9 to 19 with it, one of 1,000 above 41 and above 4; what is left is one wait for the disk
 * each time that the log begins anew.
 */
import type { DatabaseSync } from "node:sqlite"
import { Worker } from "node:worker_threads"
import { Effect, type Scope } from "effect"

// Most of the time nobody has to wait for a checkpoint. But if somebody writes at any moment, the log grows, for it can
// only begin anew if all of it is in the file; then writers are held off for a moment, and wait without blocking anything.
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
      // A disk that is full, say: the next time tries again.
    }
    parentPort.postMessage("done")
  })`

// A page has 4 kB. A small session touches one of the table and one of the index of tokens.
const pagesOf = (rows: number, characters: number): number => 2 * rows + (characters >> 12)
const pagesBetween = 1_000

const startWorker = (filename: string): Worker | undefined => {
  try {
    // Nothing of what the application told Node, such as a loader; and the main thread has warned already.
    const execArgv = ["--disable-warning=ExperimentalWarning"]
    return new Worker(program, { eval: true, workerData: filename, execArgv, name: "SqliteStore checkpoints" })
  } catch {
    // Node's permission model may forbid workers.
    return undefined
  }
}

export interface Checkpoints {
  /** To be told how much was written. */
  readonly wrote: (rows: number, characters: number) => void
  /**
   * Whether one is under way, so that what is not urgent had better wait: whoever writes to the log meanwhile may have to
   * wait for the disk, and the log could not begin anew.
   */
  readonly areUnderWay: () => boolean
}

/** Starts a worker for the file once there is something to do, and ends it with the current scope. */
export const make = (database: DatabaseSync, filename: string): Effect.Effect<Checkpoints, never, Scope.Scope> =>
  Effect.suspend(() => {
    let worker: Worker | undefined
    let state: "unstarted" | "idle" | "working" | "ended" = "unstarted"
    let isClosing = false
    let pages = 0

    // What SQLite does by itself: as if there were no worker, or only if the worker cannot keep up.
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
      // An error ends the worker, and nothing more is to be known about it.
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

    const areUnderWay = () => state === "working"

    // Its connection has to be closed first: the last one to close empties the log and removes it.
    const close = Effect.callback<void>((resume) => {
      isClosing = true
      if (worker === undefined || state === "ended") return resume(Effect.void)
      worker.ref()
      worker.on("exit", () => resume(Effect.void))
      worker.postMessage("close")
    })

    return Effect.as(
      Effect.addFinalizer(() => close),
      { wrote, areUnderWay }
    )
  })
