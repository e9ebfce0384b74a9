/**
 * The second of two application processes on one store. It finds the session `first`, opens the session `second` with
 * the same data, and adds to the number in the session `counter` as many times as the argument says.
 */
import { DateTime, Effect, Layer, Option } from "effect"
import { SessionStore } from "effect-sessions"
import { RedisStore } from "effect-sessions/redis"
import { SqlStore } from "effect-sessions/sql"
import { increment } from "./counter.ts"
import { postgresClientOn, redisClientOn } from "./servers.ts"

const [kind, port, namespace = "", increments] = process.argv.slice(2)

const program = Effect.gen(function* () {
  const store = yield* SessionStore
  const expiry = DateTime.add(yield* DateTime.now, { hours: 1 })
  const first = Option.getOrThrow(yield* store.find("first"))
  yield* store.commit("second", first, expiry)
  yield* Effect.replicateEffect(increment(store, "counter", expiry), Number(increments), { concurrency: 10 })
})

const store: Layer.Layer<SessionStore, unknown> =
  kind === "redis"
    ? Layer.provide(RedisStore.layerWith({ prefix: namespace }), redisClientOn(Number(port)))
    : Layer.provide(SqlStore.layerWith({ table: namespace }), postgresClientOn(Number(port)))

await Effect.runPromise(Effect.provide(program, store))
