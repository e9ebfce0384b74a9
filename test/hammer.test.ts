/**
 * No update is lost over real HTTP: many simultaneous requests, and a slow one that overlaps a log-out.
 */
import { createServer } from "node:http"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Schema } from "effect"
import { HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { MemStore, Session } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"

class Counter extends Session.Service<Counter>()("test/Counter", { schema: Schema.Int, initial: () => 0 }) {}

const increment = Effect.gen(function* () {
  yield* (yield* Counter).update((n) => n + 1)
  return HttpServerResponse.empty()
})

/** A gate that opens when the given number of fibers has arrived. */
const makeBarrier = (size: number) => {
  const open = Deferred.makeUnsafe<void>()
  let waiting = 0
  return Effect.suspend(() =>
    ++waiting < size ? Deferred.await(open) : Effect.asVoid(Deferred.succeed(open, undefined))
  )
}

const read = Effect.gen(function* () {
  return HttpServerResponse.text(String(yield* (yield* Counter).get))
})

const logOut = Effect.gen(function* () {
  yield* (yield* Counter).destroy
  return HttpServerResponse.empty()
})

/** A server on a free loopback port, and a client of it that sends one cookie, the first it is given. */
const serve = Effect.fnUntraced(function* (slow: Effect.Effect<HttpServerResponse.HttpServerResponse, never, Counter>) {
  const routes = Layer.mergeAll(
    HttpRouter.add("POST", "/increment", increment),
    HttpRouter.add("POST", "/slow", slow),
    HttpRouter.add("POST", "/log-out", logOut),
    HttpRouter.add("GET", "/", read)
  ).pipe(Layer.provide(HttpSession.middleware(Counter).layer), Layer.provide(MemStore.layer))
  const server = NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" })
  const context = yield* Layer.build(
    HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(Layer.provideMerge(server))
  )
  const url = HttpServer.formatAddress((yield* Effect.provide(HttpServer.HttpServer, context)).address)
  let cookie = ""
  return Effect.fnUntraced(function* (path: string, method = "POST") {
    const response = yield* Effect.promise((signal) => fetch(url + path, { method, headers: { cookie }, signal }))
    const [set] = response.headers.getSetCookie()
    if (cookie === "") cookie = set?.split(";")[0] ?? ""
    return { set, text: yield* Effect.promise(() => response.text()) }
  })
})

describe("over real HTTP", () => {
  it.live(
    "1,000 increments of one session end at exactly 1,000, though all had opened it before any was committed",
    () =>
      Effect.gen(function* () {
        const send = yield* serve(Effect.tap(increment, makeBarrier(999)))
        yield* send("/increment")
        yield* Effect.replicateEffect(send("/slow"), 999, { concurrency: "unbounded" })
        assert.strictEqual((yield* send("/", "GET")).text, "1000")
      }),
    60_000
  )

  it.live(
    "a slow request that overlaps a log-out does not bring the session back",
    () =>
      Effect.gen(function* () {
        const [started, done] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const slow = increment.pipe(
          Effect.tap(() => Deferred.succeed(started, undefined)),
          Effect.tap(() => Deferred.await(done))
        )
        const send = yield* serve(slow)
        yield* send("/increment")
        const fiber = yield* Effect.forkChild(send("/slow"))
        yield* Deferred.await(started)
        const { set } = yield* send("/log-out")
        assert.include(set, "Max-Age=0")
        yield* Deferred.succeed(done, undefined)
        assert.isUndefined((yield* Fiber.join(fiber)).set)
        assert.strictEqual((yield* send("/", "GET")).text, "0")
      }),
    60_000
  )
})
