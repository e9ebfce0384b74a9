/** `SealedStore` around stores on real servers. */
import { assert, layer } from "@effect/vitest"
import { DateTime, Effect, Layer, Option, Redacted } from "effect"
import * as Redis from "effect/persistence/Redis"
import { SessionStore } from "effect-sessions"
import { RedisStore } from "effect-sessions/redis"
import { SealedStore } from "effect-sessions/sealed"
import { SqlStore } from "effect-sessions/sql"
import { SessionStoreTest } from "effect-sessions/testing"
import { describePostgres, describeRedis, PostgresServer, postgresClient, RedisServer, redisClient } from "./servers.ts"

const newKey = () => Redacted.make(Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64"))

const sealed = SealedStore.layerWith({ current: newKey(), previous: [newKey()] })

describeRedis("SealedStore in Redis", () => {
  layer(Layer.provideMerge(redisClient, RedisServer.layer), { excludeTestServices: true })("on a server", (it) => {
    const emptyStore = Layer.unwrap(Effect.sync(() => RedisStore.layerWith({ prefix: `${crypto.randomUUID()}:` })))

    SessionStoreTest.suite("SealedStore", Layer.provide(sealed, emptyStore), it.effect)

    it.effect("shows whoever reads Redis no value", () =>
      Effect.gen(function* () {
        const store = yield* SessionStore
        yield* store.commit("token", "a value in the clear", DateTime.add(yield* DateTime.now, { hours: 1 }))
        const redis = yield* Redis.Redis
        assert.match(String(yield* redis.send("GET", "sealed:token:5")), /^sealed\.1\./)
        assert.deepStrictEqual(yield* store.find("token"), Option.some("a value in the clear"))
      }).pipe(Effect.provide(Layer.provide(sealed, RedisStore.layerWith({ prefix: "sealed:" }))))
    )
  })
})

describePostgres("SealedStore in PostgreSQL", () => {
  layer(Layer.provideMerge(postgresClient, PostgresServer.layer), { excludeTestServices: true })(
    "on a server",
    (it) => {
      const emptyStore = Layer.unwrap(
        Effect.sync(() => SqlStore.layerWith({ table: `s${crypto.randomUUID().replaceAll("-", "")}` }))
      )

      SessionStoreTest.suite("SealedStore", Layer.provide(sealed, emptyStore), it.effect)
    }
  )
})
