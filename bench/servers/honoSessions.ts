/**
 * Hono with hono-sessions, set as its README says, but without the encryption of the cookie, which is optional for a
 * store and takes longer than all the rest. Its store keeps the object of the session.
 */
import { serve } from "@hono/node-server"
import { Hono } from "hono"
import { MemoryStore, type Session, sessionMiddleware } from "hono-sessions"
import { announce } from "./announce.ts"

interface Data {
  readonly user: string
  readonly visits: number
}

const app = new Hono<{ Variables: { session: Session<Data> } }>()
app.use(
  "*",
  sessionMiddleware({
    store: new MemoryStore(),
    expireAfterSeconds: 900,
    cookieOptions: { sameSite: "Lax", path: "/", httpOnly: true }
  })
)
app.get("/", (context) => {
  const session = context.get("session")
  session.set("user", session.get("user") ?? "someone")
  session.set("visits", (session.get("visits") ?? 0) + 1)
  return context.text(`Visit ${session.get("visits")}`)
})
app.get("/read", (context) => context.text(`Visit ${context.get("session").get("visits")}`))
announce(serve({ fetch: app.fetch, hostname: "127.0.0.1", port: 0 }))
