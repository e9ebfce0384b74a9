/** Counts the round trips to a server: how often what is sent to it follows something that it answered. */
import { once } from "node:events"
import { type AddressInfo, connect, createServer } from "node:net"

/** Stands before a server on this machine, on a port of its own. */
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
    // Whoever is cut off on one side is on the other.
    client.on("error", () => server.destroy())
    server.on("error", () => client.destroy())
  })
  proxy.listen(0, "127.0.0.1")
  await once(proxy, "listening")
  return { port: (proxy.address() as AddressInfo).port, count: () => count }
}
