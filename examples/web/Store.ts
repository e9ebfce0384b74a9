/**
 * Where the sessions are kept: `SESSION_STORE` is `memory` (the default), `sqlite`, `redis` or `postgres`. The rest of
 * the application does not know. With Redis, every server learns of a log-out on another one immediately.
 */
import { NodeRedis } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Config, Effect, Layer, Redacted, Schema } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { SqlError } from "effect/sql/SqlError"
import { MemStore, type SessionStore } from "effect-sessions"
import { RedisEvents, RedisStore } from "effect-sessions/redis"
import { SqlStore } from "effect-sessions/sql"
import type { SqliteStoreError } from "effect-sessions/sqlite"

// Loaded if it is chosen: Node.js 20 has no SQLite, and an import says so.
const inFile = Layer.unwrap(
  Effect.gen(function* () {
    const filename = yield* Config.withDefault(Config.String("SQLITE_FILE"), "sessions.db")
    const { SqliteStore } = yield* Effect.promise(() => import("effect-sessions/sqlite"))
    return SqliteStore.layer({ filename })
  })
)

const inRedis = Layer.mergeAll(RedisStore.layer, RedisEvents.layer).pipe(
  Layer.provide(
    NodeRedis.layerConfig({
      url: Config.withDefault(Config.String("REDIS_URL"), "redis://localhost:6379"),
      disableOfflineQueue: Config.succeed(true) // fail immediately while Redis is down, instead of waiting
    })
  )
)

const inPostgres = SqlStore.layer.pipe(
  Layer.provide(
    PgClient.layerConfig({
      url: Config.withDefault(Config.Redacted("DATABASE_URL"), Redacted.make("postgres://localhost:5432/postgres"))
    })
  )
)

export const Store = Layer.unwrap(
  Effect.map(
    Config.withDefault(
      Config.schema(Schema.Literals(["memory", "sqlite", "redis", "postgres"]), "SESSION_STORE"),
      "memory"
    ),
    (name): Layer.Layer<SessionStore, Config.ConfigError | SqliteStoreError | RedisError | SqlError> =>
      ({ memory: MemStore.layer, sqlite: inFile, redis: inRedis, postgres: inPostgres })[name]
  )
)
