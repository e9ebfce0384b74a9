/** The types of the entry `effect-sessions/testing`. Nothing here runs: `npm run check` compiles it. */
import { expectTypeOf, it } from "@effect/vitest"
import { Effect, type Layer, type Ref, Schema, type Scope } from "effect"
import type { Cookies, HttpClient, HttpClientError, HttpClientResponse, HttpRouter } from "effect/http"
import { MemStore, Session, type SessionStore } from "effect-sessions"
import { SessionStoreTest, SessionTest } from "effect-sessions/testing"

class Visits extends Session.Service<Visits>()("app/Visits", { schema: Schema.Int, initial: () => 0 }) {}

// SessionTest.layer: all that a handler needs, with a value of the class.
const layer = SessionTest.layer(Visits, 1)
expectTypeOf(layer).toEqualTypeOf<Layer.Layer<Visits | SessionStore | MemStore>>()
expectTypeOf(Effect.provide(Visits, layer)).toEqualTypeOf<Effect.Effect<Session.Session<number>>>()
// @ts-expect-error: a value of another class.
SessionTest.layer(Visits, "1")

// SessionTest.browser: routes with all that they need, but the router and what it has for each request.
declare const routes: Layer.Layer<never, never, HttpRouter.HttpRouter>
declare const routesWithoutStore: Layer.Layer<never, "broken", HttpRouter.HttpRouter | SessionStore>
expectTypeOf(SessionTest.browser(routes)).toEqualTypeOf<Effect.Effect<SessionTest.Browser, never, Scope.Scope>>()
expectTypeOf(SessionTest.browser(routesWithoutStore, { origin: "https://example.org" })).toEqualTypeOf<
  Effect.Effect<SessionTest.Browser, "broken", Scope.Scope | SessionStore>
>()
expectTypeOf<SessionTest.Requires<HttpRouter.HttpRouter>>().toBeNever()
expectTypeOf<SessionTest.Requires<HttpRouter.HttpRouter | SessionStore>>().toEqualTypeOf<SessionStore>()
expectTypeOf<SessionTest.BrowserOptions>().toEqualTypeOf<{ readonly origin?: string | undefined }>()

// SessionTest.Browser is a client, with a jar.
type Browser = SessionTest.Browser
expectTypeOf<Browser>().toExtend<HttpClient.HttpClient>()
expectTypeOf<Browser["jar"]>().toEqualTypeOf<Ref.Ref<ReadonlyArray<Cookies.Cookie>>>()
expectTypeOf<Browser["cookies"]>().toEqualTypeOf<Effect.Effect<ReadonlyArray<Cookies.Cookie>>>()
expectTypeOf<Browser["another"]>().toEqualTypeOf<Effect.Effect<Browser>>()
expectTypeOf<Browser["restart"]>().toEqualTypeOf<Effect.Effect<void>>()
expectTypeOf<Browser["submit"]>().returns.toEqualTypeOf<
  Effect.Effect<HttpClientResponse.HttpClientResponse, HttpClientError.HttpClientError>
>()

// SessionStoreTest: `R` is what the layer needs and the runner gives.
expectTypeOf(it.effect).toExtend<SessionStoreTest.Tester<Scope.Scope>>()
expectTypeOf(it.live).toExtend<SessionStoreTest.Tester>()
expectTypeOf<Parameters<SessionStoreTest.Tester<"server">>>().toEqualTypeOf<
  [title: string, body: () => Effect.Effect<void, unknown, "server">]
>()
declare const storeOnServer: Layer.Layer<SessionStore, "broken", "server">
declare const onServer: SessionStoreTest.Tester<"server">
expectTypeOf(SessionStoreTest.suite("MemStore", MemStore.layer, it.effect)).toBeVoid()
expectTypeOf(SessionStoreTest.suite("A store", storeOnServer, onServer)).toBeVoid()
expectTypeOf(
  SessionStoreTest.indexes("A store", (name) => (name === "" ? storeOnServer : storeOnServer), onServer)
).toBeVoid()
expectTypeOf(it.live).not.toExtend<SessionStoreTest.Tester<"server">>()
// @ts-expect-error: a layer of no store.
SessionStoreTest.indexes("No store", layer as Layer.Layer<Visits>, it.live)
