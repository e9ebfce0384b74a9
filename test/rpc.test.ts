/**
 * RPC over a WebSocket, as docs/HttpSession.md has it: calls have the session of the connection, which closes when that
 * ends.
 */
import { NodeWS } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Option, Redacted, Schema, Stream } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { Rpc, RpcClient, RpcGroup, RpcSerialization, RpcServer } from "effect/rpc"
import * as Socket from "effect/socket/Socket"
import { MemStore, Session } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"
import { nobody, stored, User, visit } from "./session/fixtures.ts"
import { listen, send } from "./site.ts"

class UserSession extends Session.Service<UserSession>()("test/UserSession", {
  schema: User,
  initial: nobody,
  recheckInterval: "1 hour"
}) {}

const Sessions = HttpSession.middleware(UserSession)

const Api = RpcGroup.make(
  Rpc.make("Visit", { success: Schema.Int }),
  Rpc.make("LogOut"),
  Rpc.make("Forever", { success: Schema.Int, stream: true })
)

const Handlers = Api.toLayer({
  Visit: () =>
    UserSession.use((session) =>
      Effect.gen(function* () {
        yield* session.update(visit)
        yield* session.commit
        return (yield* session.get).visits
      }).pipe(Effect.orDie)
    ),
  LogOut: () => UserSession.use((session) => Effect.orDie(session.destroy)),
  Forever: () => Stream.concat(Stream.make(1), Stream.never)
})

/** As in docs/HttpSession.md, and tells how the session of a connection ended. */
const routes = (closed: Deferred.Deferred<Session.Ending>) =>
  HttpRouter.add(
    "GET",
    "/rpc",
    Effect.gen(function* () {
      const session = yield* Sessions.open
      if (Option.isNone(yield* session.id)) return HttpServerResponse.empty({ status: 401 })
      const serve = Effect.flatten(RpcServer.toHttpEffectWebsocket(Api)).pipe(
        Effect.provide([Handlers, RpcSerialization.layerNdjson], { local: true }),
        Effect.provideService(UserSession, session)
      )
      const ended = Effect.flatMap(session.ended, (ending) => Deferred.succeed(closed, ending))
      return yield* Effect.raceFirst(serve, Effect.as(ended, HttpServerResponse.empty()))
    })
  )

const connect = (port: number, token: Redacted.Redacted<string>) => {
  const headers = { cookie: `session=${Redacted.value(token)}` }
  const protocol = RpcClient.layerProtocolSocket().pipe(
    Layer.provide(Socket.layerWebSocket(`ws://127.0.0.1:${port}/rpc`, { headers })),
    Layer.provide([NodeWS.layerWebSocketConstructor, RpcSerialization.layerNdjson])
  )
  return Effect.flatMap(Layer.build(protocol), (context) => Effect.provide(RpcClient.make(Api), context))
}

const start = Effect.gen(function* () {
  const closed = yield* Deferred.make<Session.Ending>()
  const port = yield* listen(routes(closed))
  const { open, token } = yield* stored(UserSession)
  return { closed, open, port, token, client: yield* connect(port, token) }
})

/** A call that never ends. */
const listenForever = <E>(stream: Stream.Stream<number, E>) =>
  Effect.gen(function* () {
    const isBegun = yield* Deferred.make<void>()
    const fiber = yield* Effect.forkChild(
      Effect.exit(Stream.runForEach(stream, () => Deferred.succeed(isBegun, undefined)))
    )
    yield* Deferred.await(isBegun)
    return fiber
  })

describe("RPC over a WebSocket", () => {
  it.live("has the session of the connection in each call", () =>
    Effect.gen(function* () {
      const { client, open, port } = yield* start
      assert.strictEqual(yield* client.Visit(), 2)
      assert.strictEqual(yield* client.Visit(), 3)
      assert.strictEqual((yield* (yield* open).get).visits, 3)
      const other = yield* stored(UserSession)
      assert.strictEqual(yield* (yield* connect(port, other.token)).Visit(), 2)
      assert.strictEqual(yield* client.Visit(), 4)
    }).pipe(Effect.provide(MemStore.layer))
  )

  it.live("closes when the session is logged out by another request", () =>
    Effect.gen(function* () {
      const { client, closed, open } = yield* start
      const call = yield* listenForever(client.Forever())
      yield* (yield* open).destroy
      assert.strictEqual(yield* Deferred.await(closed), "destroyed")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(call)))
    }).pipe(Effect.provide(MemStore.layer))
  )

  it.live("closes when one of its calls logs out", () =>
    Effect.gen(function* () {
      const { client, closed } = yield* start
      const call = yield* listenForever(client.Forever())
      yield* Effect.ignoreCause(client.LogOut())
      assert.strictEqual(yield* Deferred.await(closed), "destroyed")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(call)))
    }).pipe(Effect.provide(MemStore.layer))
  )

  it.live("is refused without a session", () =>
    Effect.gen(function* () {
      const port = yield* listen(routes(yield* Deferred.make<Session.Ending>()))
      const handshake = [
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
      ]
      assert.strictEqual((yield* send(port, "GET /rpc", handshake)).status, 401)
    }).pipe(Effect.provide(MemStore.layer))
  )
})
