import { PgClient } from "@effect/sql-pg"
import { Layer } from "effect"
import { SqlStore } from "effect-sessions/sql"
import { serveEffectSession } from "./effectApp.ts"

const client = PgClient.layer({
  host: "127.0.0.1",
  port: Number(process.env.STORE_PORT),
  username: "sessions",
  database: "postgres"
})
serveEffectSession(Layer.provide(SqlStore.layer, client))
