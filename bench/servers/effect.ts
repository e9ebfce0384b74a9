/** Effect's server, and no session: the most that a session on it can reach. */
import { createServer } from "node:http"
import { layer as serverLayer } from "@effect/platform-node/NodeHttpServer"
import { runMain } from "@effect/platform-node/NodeRuntime"
import { Effect, Layer } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { announce } from "./announce.ts"

const Routes = HttpRouter.add(
  "GET",
  "/",
  Effect.sync(() => HttpServerResponse.text("Visit 1"))
)

HttpRouter.serve(Routes, { disableLogger: true, disableListenLog: true }).pipe(
  Layer.provide(serverLayer(() => announce(createServer()), { port: 0 })),
  Layer.launch,
  runMain
)
