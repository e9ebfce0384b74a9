/** The types of the entry `effect-sessions/http`. Nothing here runs: `npm run check` compiles it. */
import { expectTypeOf } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { HttpRouter, type HttpServerRequest, HttpServerResponse } from "effect/http"
import { MemStore, Session, type SessionStore } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"

class Visits extends Session.Service<Visits>()("app/Visits", { schema: Schema.Int, initial: () => 0 }) {}

// HttpSession.middleware takes the value from the class.
const visits = HttpSession.middleware(Visits, { cookie: { name: "visits" }, crossOrigin: false })
expectTypeOf(visits).toEqualTypeOf<HttpSession.Middleware<Visits, number>>()
expectTypeOf(HttpSession.middleware).parameter(1).toEqualTypeOf<HttpSession.Options | undefined>()
// @ts-expect-error: what is no session class.
HttpSession.middleware(MemStore)
// @ts-expect-error: an option that a browser does not know.
HttpSession.middleware(Visits, { cookie: { sameSite: "loose" } })

// HttpSession.Middleware provides the session to routes, and needs a store.
const routes = HttpRouter.add("GET", "/", Effect.as(Visits, HttpServerResponse.empty()))
const provided = routes.pipe(Layer.provide(visits.layer))
expectTypeOf(Layer.provide(provided, MemStore.layer)).toEqualTypeOf<Layer.Layer<never, never, HttpRouter.HttpRouter>>()
expectTypeOf(provided).toEqualTypeOf<Layer.Layer<never, never, SessionStore | HttpRouter.HttpRouter>>()
expectTypeOf(visits.open).toEqualTypeOf<
  Effect.Effect<
    Session.Session<number>,
    Session.SessionError | HttpSession.CrossOriginError,
    HttpServerRequest.HttpServerRequest | SessionStore
  >
>()
expectTypeOf(visits.with).toEqualTypeOf<(options: HttpSession.RouteOptions) => HttpSession.Middleware<Visits, number>>()
// @ts-expect-error: a route cannot have its own cookie.
visits.with({ cookie: { name: "other" } })

// The options.
expectTypeOf<HttpSession.Options>().toExtend<HttpSession.RouteOptions>()
expectTypeOf<HttpSession.Options["carrier"]>().toEqualTypeOf<"cookie" | "bearer" | undefined>()
expectTypeOf<HttpSession.Options["clearSiteData"]>().toEqualTypeOf<boolean | undefined>()
expectTypeOf<HttpSession.Options["cookie"]>().toEqualTypeOf<HttpSession.CookieOptions | undefined>()
expectTypeOf<HttpSession.CookieOptions["sameSite"]>().toEqualTypeOf<"lax" | "strict" | "none" | undefined>()
expectTypeOf<HttpSession.CookieOptions["priority"]>().toEqualTypeOf<"low" | "medium" | "high" | undefined>()
expectTypeOf<HttpSession.CookieOptions["name" | "domain" | "path"]>().toEqualTypeOf<string | undefined>()
expectTypeOf<HttpSession.CookieOptions["httpOnly" | "secure" | "partitioned" | "persist"]>().toEqualTypeOf<
  boolean | undefined
>()
expectTypeOf<HttpSession.RouteOptions["touch"]>().toEqualTypeOf<boolean | undefined>()
expectTypeOf<HttpSession.RouteOptions["crossOrigin"]>().toEqualTypeOf<
  HttpSession.CrossOriginOptions | false | undefined
>()
// What answers in place of an error cannot fail, and needs nothing.
expectTypeOf<NonNullable<HttpSession.RouteOptions["onError"]>>().toEqualTypeOf<
  (error: Session.SessionError) => Effect.Effect<HttpServerResponse.HttpServerResponse>
>()
expectTypeOf<HttpSession.CrossOriginOptions["trusted"]>().toEqualTypeOf<ReadonlyArray<string> | undefined>()
expectTypeOf<NonNullable<HttpSession.CrossOriginOptions["exempt"]>>().toEqualTypeOf<
  (request: HttpServerRequest.HttpServerRequest) => boolean
>()

// HttpSession.CrossOriginError
expectTypeOf<HttpSession.CrossOriginError["_tag"]>().toEqualTypeOf<"CrossOriginError">()
expectTypeOf<HttpSession.CrossOriginError["reason"]>().toEqualTypeOf<string>()
expectTypeOf(Effect.catchTag(visits.open, "CrossOriginError", () => Effect.succeedNone)).toExtend<
  Effect.Effect<unknown, Session.SessionError, HttpServerRequest.HttpServerRequest | SessionStore>
>()
