/**
 * The second of two application processes on one store: it ends all sessions of the given user, and prints how many
 * there were.
 */
import { Effect, Layer } from "effect"
import type { SessionStore } from "effect-sessions"
import { RedisStore } from "effect-sessions/redis"
import { SqlStore } from "effect-sessions/sql"
import { AccountSession } from "./accounts.ts"
import { postgresClientOn, redisClientOn } from "./servers.ts"

const [kind, port, namespace = "", user = ""] = process.argv.slice(2)

const store: Layer.Layer<SessionStore, unknown> =
  kind === "redis"
    ? Layer.provide(RedisStore.layerWith({ prefix: namespace }), redisClientOn(Number(port)))
    : Layer.provide(SqlStore.layerWith({ table: namespace }), postgresClientOn(Number(port)))

console.log(await Effect.runPromise(Effect.provide(AccountSession.destroyAllOf("user", user), store)))
