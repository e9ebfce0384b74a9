/**
 * The second of two application processes that change one session: says `ready` when it has opened the session as often
 * as it is told, waits for a line, commits all of them at the same time, and prints how many store operations that
 * took.
 */
import { createInterface } from "node:readline/promises"
import { Effect, Layer, Redacted } from "effect"
import { SessionStore } from "effect-sessions"
import { RedisStore } from "effect-sessions/redis"
import { SqlStore } from "effect-sessions/sql"
import { commitAtOnce, countOperations } from "./contended.ts"
import { postgresClientOn, redisClientOn } from "./servers.ts"

const [kind, port, namespace = "", token = "", commits] = process.argv.slice(2)

const program = Effect.gen(function* () {
  const counted = countOperations(yield* SessionStore)
  const commit = yield* Effect.provideService(
    commitAtOnce(Redacted.make(token), Number(commits)),
    SessionStore,
    counted.store
  )
  counted.operations = 0
  const lines = createInterface(process.stdin)
  console.log("ready")
  yield* Effect.promise(() => lines.question(""))
  yield* commit
  console.log(counted.operations)
  lines.close()
})

const store: Layer.Layer<SessionStore, unknown> =
  kind === "redis"
    ? Layer.provide(RedisStore.layerWith({ prefix: namespace }), redisClientOn(Number(port)))
    : Layer.provide(SqlStore.layerWith({ table: namespace }), postgresClientOn(Number(port)))

await Effect.runPromise(Effect.provide(program, store))
