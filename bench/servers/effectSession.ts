/** The same server with a session in MemStore, all options at their defaults. */
import { createServer } from "node:http"
import { layer as serverLayer } from "@effect/platform-node/NodeHttpServer"
import { runMain } from "@effect/platform-node/NodeRuntime"
import { Effect, Layer, Schema } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { MemStore, Session } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"
import { announce } from "./announce.ts"

class UserSession extends Session.Service<UserSession>()("bench/UserSession", {
  schema: Schema.Struct({ user: Schema.String, visits: Schema.Int }),
  initial: () => ({ user: "someone", visits: 0 })
}) {}

const Routes = HttpRouter.add(
  "GET",
  "/",
  Effect.gen(function* () {
    const session = yield* UserSession
    yield* session.update((value) => ({ ...value, visits: value.visits + 1 }))
    return HttpServerResponse.text(`Visit ${(yield* session.get).visits}`)
  })
).pipe(Layer.provide(HttpSession.middleware(UserSession).layer), Layer.provide(MemStore.layer))

HttpRouter.serve(Routes, { disableLogger: true, disableListenLog: true }).pipe(
  Layer.provide(serverLayer(() => announce(createServer()), { port: 0 })),
  Layer.launch,
  runMain
)
