import { RedisStore } from "connect-redis"
import { createClient } from "redis"
import { serveExpress } from "./expressApp.ts"

const client = createClient({ socket: { host: "127.0.0.1", port: Number(process.env.STORE_PORT) } })
await client.connect()
serveExpress(new RedisStore({ client }))
