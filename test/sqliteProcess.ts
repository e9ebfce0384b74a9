/**
 * A separate process on a file of sessions, to be killed, to run next to another, or to run with too few resources:
 * `sqliteProcess.ts <what it does> <file> <log or number>`.
 */
import { openSync, writeSync } from "node:fs"
import { DateTime, Effect, Option } from "effect"
import { SessionStore, type SessionStoreOperations } from "effect-sessions"
import { SqliteStore } from "effect-sessions/sqlite"
import { increment } from "./counter.ts"

const [kind, filename = "", argument = ""] = process.argv.slice(2)

const inAnHour = Effect.map(DateTime.now, DateTime.add({ hours: 1 }))

/**
 * Writes sessions without end. Each line of the log is written before the next step: what is tried, and what was
 * confirmed.
 */
const visitor = Effect.fnUntraced(function* (store: SessionStoreOperations, log: (line: string) => void, name: string) {
  const expiry = yield* inAnHour
  for (let i = 0; ; i++) {
    const token = `${name} ${i}`
    let data: string | undefined
    const confirmed = Effect.fnUntraced(function* (next: string | undefined, write: Effect.Effect<unknown, unknown>) {
      log(`try ${JSON.stringify([token, next])}`)
      yield* write
      log(`done ${JSON.stringify([token, next])}`)
      data = next
      yield* Effect.yieldNow
    })
    const opened = `${i} ${"x".repeat((i * 97) % 3_000)}`
    yield* confirmed(opened, i % 2 === 0 ? store.create(token, opened, expiry) : store.commit(token, opened, expiry))
    for (let change = 0; change < i % 4; change++) {
      const next: string = `${data} ${change}`
      yield* confirmed(next, store.replace(token, data ?? "", next, expiry))
    }
    if (i % 3 === 0) yield* confirmed(undefined, store.delete(token))
  }
})

const program = Effect.gen(function* () {
  const store = yield* SessionStore
  switch (kind) {
    case "load": {
      const file = openSync(argument, "a")
      const log = (line: string) => void writeSync(file, `${line}\n`)
      const names = [1, 2, 3, 4].map((fiber) => `${process.pid} ${fiber}`)
      yield* Effect.forEach(names, (name) => visitor(store, log, name), { concurrency: "unbounded" })
      break
    }
    case "increment": {
      const expiry = yield* inAnHour
      yield* Effect.replicateEffect(increment(store, "counter", expiry), Number(argument), { concurrency: 10 })
      break
    }
    case "commit": {
      const expiry = yield* inAnHour
      for (let i = 0; i < Number(argument); i++) yield* store.commit(`token ${i}`, `data ${i}`, expiry)
      console.log(Option.getOrElse(yield* store.find("token 0"), () => "nothing"))
    }
  }
})

await Effect.runPromise(Effect.provide(program, SqliteStore.layer({ filename })))
