/** What an application may import from the package. */
import assert from "node:assert/strict"
import { DateTime, Effect, Layer, Option, Schema } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { MemStore, Session, SessionStore } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"
import { SessionTest } from "effect-sessions/testing"
import * as entries from "./entries.js"

const stores = Object.entries(entries).filter(([name]) => name.endsWith("Store") && name !== "SessionStore")
assert.ok(stores.length >= 3)
for (const [name, store] of stores) {
  assert.ok("layerWith" in store && typeof store.layerWith === "function", name)
  // One that cannot do without options has no layer for the defaults.
  assert.ok(!("layer" in store) || Layer.isLayer(store.layer), name)
}

const internal = "effect-sessions/internal/token"
await assert.rejects(import(`${internal}.js`), { code: "ERR_PACKAGE_PATH_NOT_EXPORTED" })
await assert.rejects(import(internal), { code: "ERR_PACKAGE_PATH_NOT_EXPORTED" })

const commitAndFind = Effect.gen(function* () {
  const expiry = DateTime.add(yield* DateTime.now, { minutes: 1 })
  yield* (yield* SessionStore).commit("token", "data", expiry)
  return yield* (yield* MemStore).find("token")
})
const found: Option.Option<string> = await Effect.runPromise(Effect.provide(commitAndFind, MemStore.layer))
assert.deepEqual(found, Option.some("data"))

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
