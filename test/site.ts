/**
 * A site on a real server: routes at a free port of loopback, and a client that sends what no `fetch` would.
 */
import { createServer } from "node:http"
import { connect } from "node:net"
import { NodeHttpServer } from "@effect/platform-node"
import { assert } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import type { SessionStore } from "effect-sessions"

/** Serves routes until the scope closes, and returns the port. */
export const listen = Effect.fnUntraced(function* (
  routes: Layer.Layer<
    never,
    never,
    | HttpRouter.HttpRouter
    | SessionStore
    | HttpRouter.Request<"Error", unknown>
    | HttpRouter.Request<"Requires", SessionStore>
  >
) {
  const context = yield* HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provideMerge(
      NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0, gracefulShutdownTimeout: "1 millis" })
    ),
    Layer.build
  )
  const { address } = yield* Effect.provide(HttpServer.HttpServer, context)
  return "port" in address ? address.port : assert.fail("the server listens on no port")
})

export interface Answer {
  readonly status: number
  /** Each `Set-Cookie`. */
  readonly cookies: ReadonlyArray<string>
  readonly headers: Record<string, string>
  readonly body: string
}

const parse = (text: string): Answer => {
  const [head = "", ...rest] = text.split("\r\n\r\n")
  const [status = "", ...lines] = head.split("\r\n")
  const fields = lines.map((line) => {
    const colon = line.indexOf(":")
    return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()] as const
  })
  return {
    status: Number(status.split(" ")[1]),
    cookies: fields.filter(([name]) => name === "set-cookie").map(([, value]) => value),
    headers: Object.fromEntries(fields),
    body: rest.join("\r\n\r\n")
  }
}

/** Sends lines unchanged, one byte per character, over a new connection. Does not wait for the end of an upgrade. */
export const send = (port: number, request: string, headers: ReadonlyArray<string> = []): Effect.Effect<Answer> =>
  Effect.callback<Answer>((resume) => {
    const isUpgrade = headers.some((line) => /^upgrade:/i.test(line))
    const connection = isUpgrade ? "Connection: Upgrade" : "Connection: close"
    const socket = connect(port, "127.0.0.1")
    let received = ""
    const end = () => {
      resume(Effect.succeed(parse(received)))
      socket.destroy()
    }
    socket.on("data", (data) => {
      received += data.toString("latin1")
      if (received.startsWith("HTTP/1.1 101 ") && received.includes("\r\n\r\n")) end()
    })
    socket.on("end", end)
    socket.on("error", (error) => resume(Effect.die(error)))
    const hasHost = headers.some((line) => /^host:/i.test(line))
    const lines = [
      `${request} HTTP/1.1`,
      ...(hasHost ? [] : [`Host: 127.0.0.1:${port}`]),
      connection,
      ...headers,
      "",
      ""
    ]
    socket.write(lines.join("\r\n"), "latin1")
    return Effect.sync(() => socket.destroy())
  })

/** The token in the `Set-Cookie` of a name. */
export const tokenOf = (answer: Answer, name: string): string =>
  answer.cookies
    .map((cookie) => cookie.split(";")[0] ?? "")
    .find((cookie) => cookie.startsWith(`${name}=`))
    ?.slice(name.length + 1) ?? assert.fail(`no cookie ${name}`)
