/** Fastify with @fastify/session, set as its README says for plain HTTP. Its store keeps the object of the session. */
import { fastifyCookie } from "@fastify/cookie"
import { fastifySession } from "@fastify/session"
import { fastify } from "fastify"
import { announce } from "./announce.ts"

declare module "fastify" {
  interface Session {
    user?: string
    visits?: number
  }
}

const app = fastify()
app.register(fastifyCookie)
app.register(fastifySession, {
  secret: "the secret of this benchmark, longer than it has to be",
  cookie: { secure: false }
})
app.get("/", (request, reply) => {
  request.session.user ??= "someone"
  request.session.visits = (request.session.visits ?? 0) + 1
  reply.type("text/plain").send(`Visit ${request.session.visits}`)
})
app.get("/read", (request, reply) => {
  reply.type("text/plain").send(`Visit ${request.session.visits}`)
})
await app.listen({ host: "127.0.0.1", port: 0 })
announce(app.server)
