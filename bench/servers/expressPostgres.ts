import connectPgSimple from "connect-pg-simple"
import session from "express-session"
import { Pool } from "pg"
import { serveExpress } from "./expressApp.ts"

const PgStore = connectPgSimple(session)
const pool = new Pool({
  host: "127.0.0.1",
  port: Number(process.env.STORE_PORT),
  user: "sessions",
  database: "postgres"
})
serveExpress(new PgStore({ pool, createTableIfMissing: true }))
