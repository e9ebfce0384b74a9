/** Fastify, and no session. */
import { fastify } from "fastify"
import { announce } from "./announce.ts"

const app = fastify()
app.get("/", (_request, reply) => {
  reply.type("text/plain").send("Visit 1")
})
await app.listen({ host: "127.0.0.1", port: 0 })
announce(app.server)
