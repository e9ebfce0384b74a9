import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { RedisStore } from "effect-sessions/RedisStore"
import { sessionStoreTest } from "./SessionStoreTest.ts"
import { describeRedis, RedisServer, redisClient } from "./servers.ts"

/** A store with a prefix that no other test has. */
const emptyStore = Layer.unwrap(Effect.sync(() => RedisStore.layerWith({ prefix: `${crypto.randomUUID()}:` })))

describeRedis("RedisStore", () => {
  layer(RedisServer.layer, { excludeTestServices: true })("on a server", (it) => {
    sessionStoreTest("RedisStore", Layer.provide(emptyStore, redisClient), it.effect)
  })
})
