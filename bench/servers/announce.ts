import type { Server } from "node:http"

/** Prints the port of a server once it listens: what its parent process waits for. */
export const announce = (server: Server): Server =>
  server.on("listening", () => {
    const address = server.address()
    if (typeof address === "object") console.log(address?.port)
  })
