/** Express with express-session on a store, set as its README and those of the stores advise. */
import { createServer } from "node:http"
import express from "express"
import session from "express-session"
import { announce } from "./announce.ts"

declare module "express-session" {
  interface SessionData {
    user?: string
    visits?: number
  }
}

export const serveExpress = (store: session.Store): void => {
  const app = express()
  app.use(session({ secret: "of this benchmark", resave: false, saveUninitialized: false, store }))
  app.get("/", (request, response) => {
    request.session.user ??= "someone"
    request.session.visits = (request.session.visits ?? 0) + 1
    response.type("text/plain").send(`Visit ${request.session.visits}`)
  })
  app.get("/read", (request, response) => {
    response.type("text/plain").send(`Visit ${request.session.visits}`)
  })
  announce(createServer(app)).listen(0, "127.0.0.1")
}
