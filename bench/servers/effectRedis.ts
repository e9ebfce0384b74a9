import { NodeRedis } from "@effect/platform-node"
import { Layer } from "effect"
import { RedisStore } from "effect-sessions/redis"
import { serveEffectSession } from "./effectApp.ts"

const client = NodeRedis.layer({ socket: { host: "127.0.0.1", port: Number(process.env.STORE_PORT) } })
serveEffectSession(Layer.provide(RedisStore.layer, client))
