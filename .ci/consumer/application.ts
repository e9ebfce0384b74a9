/** What an application may import from the package: every entry but the suite of tests. */
import assert from "node:assert/strict"
import { DateTime, Effect, Layer, Option, Schema } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import * as Core from "effect-sessions"
import { HttpSession } from "effect-sessions/http"
import { MemStore } from "effect-sessions/MemStore"
import { RedisStore } from "effect-sessions/redis"
import * as Session from "effect-sessions/Session"
import { SessionStore, SessionStoreError } from "effect-sessions/SessionStore"
import { SessionTest } from "effect-sessions/testing"
import { SqlStore } from "effect-sessions/sql"

assert.deepEqual({ ...Core }, { MemStore, Session, SessionStore, SessionStoreError })
for (const layer of [RedisStore.layer, SqlStore.layer]) assert.ok(Layer.isLayer(layer))

const commitAndFind = Effect.gen(function* () {
  const expiry = DateTime.add(yield* DateTime.now, { minutes: 1 })
  yield* (yield* SessionStore).commit("token", new Uint8Array([1, 2, 3]), expiry)
  return yield* (yield* MemStore).find("token")
})
const found: Option.Option<Uint8Array> = await Effect.runPromise(Effect.provide(commitAndFind, MemStore.layer))
assert.deepEqual(found, Option.some(new Uint8Array([1, 2, 3])))

class Visits extends Session.Service<Visits>()("app/Visits", { schema: Schema.Int, initial: () => 0 }) {}

const visit = Effect.gen(function* () {
  const visits = yield* Visits
  yield* visits.update((n) => n + 1)
  return `Visit number ${yield* visits.get}`
})

const { handler, dispose } = HttpRouter.toWebHandler(
  HttpRouter.add(
    "GET",
    "/",
    Effect.map(visit, (text) => HttpServerResponse.text(text))
  ).pipe(Layer.provide(HttpSession.middleware(Visits).layer), Layer.provide(MemStore.layer)),
  { disableLogger: true }
)
const first = await handler(new Request("http://localhost/"))
const cookie = first.headers.get("set-cookie")?.split(";")[0] ?? assert.fail("No cookie was set")
const second = await handler(new Request("http://localhost/", { headers: { cookie } }))
assert.equal(await second.text(), "Visit number 2")
await dispose()

assert.equal(await Effect.runPromise(Effect.provide(visit, SessionTest.layer(Visits, 41))), "Visit number 42")

console.log(`The package works under Node ${process.version}`)
