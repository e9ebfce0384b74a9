/** Counts the round trips to a server: how often a message to it follows an answer. */
import { once } from "node:events"
import { type AddressInfo, connect, createServer } from "node:net"

/** A proxy in front of a server on this machine, on its own port. */
export const countRoundTrips = async (port: number) => {
  let count = 0
  const proxy = createServer({ noDelay: true }, (client) => {
    const server = connect({ host: "127.0.0.1", port, noDelay: true })
    let isAnswered = true
    client.on("data", () => {
      if (isAnswered) count++
      isAnswered = false
    })
    server.on("data", () => {
      isAnswered = true
    })
    client.pipe(server)
    server.pipe(client)
    // If one side disconnects, so does the other.
    client.on("error", () => server.destroy())
    server.on("error", () => client.destroy())
  })
  proxy.listen(0, "127.0.0.1")
  await once(proxy, "listening")
  return { port: (proxy.address() as AddressInfo).port, count: () => count }
}
