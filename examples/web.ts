/**
 * A small web application with sessions. Run `npm start`, and open the address that it prints.
 *
 * Each page is a file in web/: LogIn.ts, Counter.ts, Devices.ts, LogOut.ts. The session that they share is in
 * web/UserSession.ts, and where it is kept in web/Store.ts.
 */
import { createServer } from "node:http"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Config, Console, Effect, Layer, Schema } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { Routes } from "./web/Routes.ts"
import { Store } from "./web/Store.ts"

// From http://localhost, Chromium and Firefox accept a secure cookie. Port 0 is any that is free.
const Server = NodeHttpServer.layerConfig(createServer, {
  host: Config.succeed("localhost"),
  port: Config.withDefault(Config.schema(Schema.Port, "PORT"), 3000),
  gracefulShutdownTimeout: Config.succeed("1 second")
})

const Welcome = Layer.effectDiscard(
  Effect.gen(function* () {
    const { address } = yield* HttpServer.HttpServer
    if ("port" in address) yield* Console.log(`Open http://localhost:${address.port} (Ctrl-C ends it)`)
  })
)

const App = HttpRouter.serve(Routes, { disableListenLog: true }).pipe(
  Layer.merge(Welcome),
  Layer.provide([Store, Server])
)

NodeRuntime.runMain(Layer.launch(App))
