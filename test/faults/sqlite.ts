/** Processes that work on one file of sessions. Some are killed, or stopped for a while. */
import { type ChildProcess, fork } from "node:child_process"
import { once } from "node:events"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { Context, Effect, Layer, Random } from "effect"
import { SessionStore } from "effect-sessions"
import { SqliteStore } from "effect-sessions/sqlite"
import { temporaryFolder } from "../temporary.ts"
import { type AnyEntry, type PlantedFault, prepare, type Run } from "./clients.ts"
import { type Fault, pause } from "./rig.ts"
import { begin, clockAhead, judge, lastLook, type RunOptions } from "./run.ts"

/** The task of a process. */
export interface Task extends Run {
  readonly filename: string
  readonly log: string
  readonly number: number
  readonly seed: number
  readonly clockAhead: number
  readonly planted?: PlantedFault | undefined
}

export const faultsOfFiles = ["kill", "stop", "clock"] as const

const program = fileURLToPath(new URL("sqliteClient.ts", import.meta.url))

/** Starts a process, which is at work once it has said so. */
const start = (task: Task) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const child = fork(program, [JSON.stringify(task)], { stdio: ["ignore", "ignore", "inherit", "ipc"] })
      await once(child, "message")
      return child
    }),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )

const end = (child: ChildProcess, how: "kill" | "stop") =>
  Effect.promise(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exit = once(child, "exit")
    if (how === "kill") child.kill("SIGKILL")
    else child.send("stop")
    await exit
  })

/** Lines that are whole: one that was being written when its process was killed is none. */
const entriesIn = (text: string): ReadonlyArray<AnyEntry> =>
  text
    .slice(0, text.lastIndexOf("\n") + 1)
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line))

export const runOnFile = (fault: Fault, { apart, name, planted }: RunOptions) =>
  Effect.gen(function* () {
    const folder = yield* temporaryFolder
    const filename = join(folder, "sessions.db")
    const store = Context.get(yield* Layer.build(SqliteStore.layer({ filename })), SessionStore)
    const run = yield* begin(store, name)
    const logs: Array<string> = []
    const work = Effect.fnUntraced(function* (number: number) {
      const log = join(folder, `${logs.length}.log`)
      logs.push(log)
      const drawn = yield* Random.nextIntBetween(0, 1_000_000)
      return yield* start({
        ...run,
        filename,
        log,
        number: 2 * logs.length,
        seed: drawn,
        clockAhead: clockAhead(fault, apart, number),
        planted
      })
    })
    const children = yield* Effect.forEach([0, 1], work, { concurrency: 2 })
    const [first, second] = children
    if (first === undefined || second === undefined) throw new Error("There are no processes")
    yield* Effect.sleep(yield* Random.nextIntBetween(300, 700))
    if (fault === "kill") {
      yield* end(first, "kill")
      children.push(yield* work(2))
      yield* end(second, "kill")
    }
    if (fault === "stop") for (const { pid } of [first, second]) yield* pause(pid === undefined ? [] : [pid])
    yield* Effect.sleep("500 millis")
    yield* Effect.forEach(children, (child) => end(child, "stop"), { concurrency: 3 })
    const entries: Array<AnyEntry> = []
    for (const log of logs) entries.push(...entriesIn(yield* Effect.promise(() => readFile(log, "utf8"))))
    yield* lastLook(yield* prepare(store), run, (entry) => void entries.push(entry))
    return judge(entries)
  }).pipe(Effect.scoped, Effect.orDie)
