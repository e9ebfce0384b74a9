/** Node's own server: no framework, no session. */
import { createServer } from "node:http"
import { announce } from "./announce.ts"

const server = createServer((_request, response) => {
  response.setHeader("content-type", "text/plain")
  response.end("Visit 1")
})
announce(server).listen(0, "127.0.0.1")
