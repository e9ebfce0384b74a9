/**
 * Koa with koa-session, set as its README says for plain HTTP. By itself it keeps sessions in the cookie; the others keep
 * them in memory, so it gets the least of the stores that its README describes: a map of the objects.
 */
import { createServer } from "node:http"
import Koa from "koa"
import { createSession } from "koa-session"
import { announce } from "./announce.ts"

const sessions = new Map<string, Record<string, unknown>>()

const app = new Koa()
app.keys = ["of this benchmark"]
app.use(
  createSession(
    {
      maxAge: 86_400_000,
      store: {
        get: async (key: string) => sessions.get(key),
        set: async (key: string, session: Record<string, unknown>) => {
          sessions.set(key, session)
        },
        destroy: async (key: string) => {
          sessions.delete(key)
        }
      }
    },
    app
  )
)
app.use((context) => {
  if (context.path === "/") {
    context.session.user ??= "someone"
    context.session.visits = (context.session.visits ?? 0) + 1
  }
  context.type = "text/plain"
  context.body = `Visit ${context.session.visits}`
})
announce(createServer(app.callback())).listen(0, "127.0.0.1")
