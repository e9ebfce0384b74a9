import type { ServerType } from "@hono/node-server"

/** Tells the parent process the port of a server once it listens, and, if asked, the processor time it took until now. */
export const announce = (server: ServerType): ServerType => {
  const tellPort = () => {
    const address = server.address()
    if (address !== null && typeof address === "object") process.send?.({ port: address.port })
  }
  process.on("message", () => process.send?.(process.cpuUsage()))
  process.on("disconnect", () => process.exit())
  if (server.listening) tellPort()
  else server.once("listening", tellPort)
  return server
}
