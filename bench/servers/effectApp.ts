import { createServer } from "node:http"
import { layer as serverLayer } from "@effect/platform-node/NodeHttpServer"
import { runMain } from "@effect/platform-node/NodeRuntime"
import { Effect, Layer, Schema } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { Session, type SessionStore } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"
import { announce } from "./announce.ts"

/** It listens before its routes are there, and never answers what comes in between: it is announced when both are done. */
export const serveEffect = <E>(routes: Layer.Layer<never, E, HttpRouter.HttpRouter>): void => {
  const server = createServer()
  const served = HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provide(serverLayer(() => server, { host: "127.0.0.1", port: 0 }))
  )
  Layer.effectDiscard(Effect.sync(() => announce(server))).pipe(Layer.provide(served), Layer.launch, runMain)
}

/** Routes with a session in a store; all options have their defaults, except for those given. */
export const serveEffectSession = <E>(
  store: Layer.Layer<SessionStore, E>,
  options?: { readonly idleTimeout: "20 minutes" }
): void => {
  class UserSession extends Session.Service<UserSession>()("bench/UserSession", {
    schema: Schema.Struct({ user: Schema.String, visits: Schema.Int }),
    initial: () => ({ user: "someone", visits: 0 }),
    ...options
  }) {}

  const change = Effect.gen(function* () {
    const session = yield* UserSession
    yield* session.update((value) => ({ ...value, visits: value.visits + 1 }))
    return HttpServerResponse.text(`Visit ${(yield* session.get).visits}`)
  })
  const read = Effect.gen(function* () {
    const session = yield* UserSession
    return HttpServerResponse.text(`Visit ${(yield* session.get).visits}`)
  })
  const routes = Layer.mergeAll(HttpRouter.add("GET", "/", change), HttpRouter.add("GET", "/read", read)).pipe(
    Layer.provide(HttpSession.middleware(UserSession).layer),
    Layer.provide(store)
  )
  serveEffect(routes)
}
