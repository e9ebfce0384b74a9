/** A Worker with sessions in memory: what `check.ts` asks for. */
import { DateTime, Effect, HashMap, Layer, Metric, Schema } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { MemStore, Session, SessionStore } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"

class Visits extends Session.Service<Visits>()("worker/Visits", { schema: Schema.Int, initial: () => 0 }) {}

const visit = Effect.gen(function* () {
  const visits = yield* Visits
  yield* visits.update((n) => n + 1)
  return HttpServerResponse.text(String(yield* visits.get))
})

const leave = Effect.gen(function* () {
  yield* (yield* Visits).destroy
  return HttpServerResponse.text("gone")
})

/** Adds sessions that live for half a second, and says how much there is of what. */
const Watched = HttpRouter.use(
  Effect.fnUntraced(function* (router) {
    const store = yield* SessionStore
    const flood = Effect.gen(function* () {
      const expiry = DateTime.add(yield* DateTime.now, { milliseconds: 500 })
      for (let i = 0; i < 600; i++) yield* store.commit(crypto.randomUUID(), "data", expiry)
      return HttpServerResponse.empty()
    })
    const report = Effect.gen(function* () {
      const active = HashMap.size(yield* store.all)
      const values = (yield* Metric.snapshot).map(({ id, state }) => [id, state])
      return yield* HttpServerResponse.json({ active, metrics: Object.fromEntries(values) })
    })
    yield* router.add("GET", "/flood", flood)
    yield* router.add("GET", "/report", report)
  })
)

const Routes = Layer.mergeAll(HttpRouter.add("GET", "/", visit), HttpRouter.add("POST", "/leave", leave)).pipe(
  Layer.provide(HttpSession.middleware(Visits).layer)
)

const App = Layer.mergeAll(Routes, Watched).pipe(
  Layer.provide(MemStore.layerWith({ cleanupInterval: "1 second", capacity: 1_000 }))
)

// Not at the top: outside of a request a Worker may set no timer and draw no random number.
let handler: ((request: Request) => Promise<Response>) | undefined

export default {
  fetch: (request: Request): Promise<Response> => {
    handler ??= HttpRouter.toWebHandler(App, { disableLogger: true }).handler
    return handler(request)
  }
}
