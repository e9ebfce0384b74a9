/** Two clients of a file, in a separate process that can be killed: `sqliteClient.ts <task as JSON>`. */
import { openSync, writeSync } from "node:fs"
import { Effect, Random } from "effect"
import { SessionStore } from "effect-sessions"
import { SqliteStore } from "effect-sessions/sqlite"
import { type Client, prepare, use, withClockAhead } from "./clients.ts"
import type { Task } from "./sqlite.ts"

const task: Task = JSON.parse(process.argv[2] ?? "{}")
const file = openSync(task.log, "a")

let isOver = false
process.on("message", () => {
  isOver = true
})

const program = Effect.gen(function* () {
  const store = yield* prepare(yield* SessionStore, task.planted)
  const clients = [task.number, task.number + 1].map((number): Client => {
    // Each line is with the operating system before the next step.
    const append: Client["append"] = (entry) => void writeSync(file, `${JSON.stringify(entry)}\n`)
    return { ...task, name: `client ${number}`, number, store, append, isOver: () => isOver }
  })
  process.send?.("at work")
  yield* Effect.forEach(clients, use, { concurrency: 2, discard: true })
})

await Effect.runPromise(
  Effect.provide(program, SqliteStore.layer({ filename: task.filename })).pipe(
    withClockAhead(task.clockAhead),
    Random.withSeed(task.seed)
  )
)
process.disconnect()
