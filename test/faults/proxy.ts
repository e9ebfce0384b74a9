/** A proxy between clients and a server, which delays answers, drops them, falls silent, and cuts connections. */
import { once } from "node:events"
import { connect, createServer, type Socket } from "node:net"
import { setTimeout } from "node:timers/promises"
import { Effect } from "effect"

export type Conduct =
  | { readonly name: "pass" }
  /** Answers arrive so many milliseconds late, in their order. */
  | { readonly name: "delay"; readonly millis: number }
  /** Some answers never arrive, and their connection is cut. */
  | { readonly name: "drop"; readonly share: number }
  /** Connections look as if they were open, and nothing goes through. Afterwards they are cut. */
  | { readonly name: "silence" }

interface Pair {
  readonly client: Socket
  readonly server: Socket
  isSilenced: boolean
  /** Resolves when all earlier answers have gone out. */
  sent: Promise<unknown>
}

const cut = ({ client, server }: Pair): void => {
  client.resetAndDestroy()
  server.destroy()
}

/** Listens until the scope closes. */
export const makeProxy = Effect.fnUntraced(function* (target: number) {
  const pairs = new Set<Pair>()
  let conduct: Conduct = { name: "pass" }

  const answer = (pair: Pair, data: Buffer): void => {
    if (conduct.name === "silence") pair.isSilenced = true
    if (pair.isSilenced) return
    if (conduct.name === "drop" && Math.random() < conduct.share) {
      cut(pair)
      return
    }
    const millis = conduct.name === "delay" ? conduct.millis : 0
    const due = millis === 0 ? undefined : setTimeout(millis)
    pair.sent = Promise.all([pair.sent, due]).then(() => pair.client.write(data))
  }

  const listener = createServer((client) => {
    const server = connect(target, "127.0.0.1")
    const pair: Pair = { client, server, isSilenced: false, sent: Promise.resolve() }
    pairs.add(pair)
    client.on("data", (data) => {
      if (conduct.name === "silence") pair.isSilenced = true
      if (!pair.isSilenced) server.write(data)
    })
    server.on("data", (data) => answer(pair, data))
    for (const socket of [client, server]) {
      socket.setNoDelay().on("error", () => {})
      socket.on("close", () => {
        pairs.delete(pair)
        // One end of a half-open connection does not hear of the other.
        if (!pair.isSilenced) cut(pair)
      })
    }
  })
  yield* Effect.acquireRelease(
    Effect.promise(async () => {
      listener.listen(0, "127.0.0.1")
      await once(listener, "listening")
    }),
    () =>
      Effect.sync(() => {
        listener.close()
        for (const pair of pairs) cut(pair)
      })
  )
  const address = listener.address()
  return {
    port: typeof address === "object" && address !== null ? address.port : 0,
    cutAll: Effect.sync(() => {
      for (const pair of pairs) cut(pair)
    }),
    /** Behaves in some way for a while. */
    behave: (how: Conduct, millis: number) =>
      Effect.sync(() => {
        conduct = how
      }).pipe(
        Effect.andThen(Effect.sleep(millis)),
        Effect.ensuring(
          Effect.sync(() => {
            conduct = { name: "pass" }
            for (const pair of pairs) if (pair.isSilenced) cut(pair)
          })
        )
      )
  }
})

export type Gateway = Effect.Success<ReturnType<typeof makeProxy>>
