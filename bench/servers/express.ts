/** Express with express-session and memorystore, set as their READMEs advise. */
import { createServer } from "node:http"
import express from "express"
import session from "express-session"
import createMemoryStore from "memorystore"
import { announce } from "./announce.ts"

declare module "express-session" {
  interface SessionData {
    user?: string
    visits?: number
  }
}

const MemoryStore = createMemoryStore(session)

const app = express()
app.use(
  session({
    secret: "of this benchmark",
    resave: false,
    saveUninitialized: false,
    store: new MemoryStore({ checkPeriod: 60_000 })
  })
)
app.get("/", (request, response) => {
  request.session.user ??= "someone"
  request.session.visits = (request.session.visits ?? 0) + 1
  response.type("text/plain").send(`Visit ${request.session.visits}`)
})

announce(createServer(app)).listen(0)
