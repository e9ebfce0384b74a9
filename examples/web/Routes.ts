/**
 * What the application does: log in, count, list the sessions of a user, log out here or everywhere.
 *
 * Each form is a POST that is answered by a redirect, so that to reload a page repeats nothing. `WithSession` protects
 * them from forgery: it refuses a POST that a page of another origin makes. A GET changes nothing but what was shown.
 */
import { Context, Effect, Layer, Option, Schema, Stream, type Types } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Session } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"
import * as Pages from "./Pages.ts"

const User = Schema.Struct({
  name: Schema.optionalKey(Schema.String),
  count: Schema.Int,
  /** A message for the next page. */
  flash: Schema.optionalKey(Schema.String)
})

class UserSession extends Session.Service<UserSession>()("example/UserSession", {
  schema: User,
  initial: () => ({ count: 0 }),
  lifetime: "7 days"
}) {}

// Without `persist`, the browser forgets the cookie when it closes, unless the user asked to be remembered.
const WithSession = HttpSession.middleware(UserSession, { cookie: { persist: false } })

const redirect = (location: string) => HttpServerResponse.redirect(location, { status: 303 })

/** The name of the user who is logged in. */
class CurrentUser extends Context.Service<CurrentUser, string>()("example/CurrentUser") {}

/** Sends visitors to the log-in page, and has browsers keep no copy of a private page. */
const WithUser = HttpRouter.middleware<{ provides: CurrentUser }>()(
  Effect.fnUntraced(function* (
    route: Effect.Effect<HttpServerResponse.HttpServerResponse, Types.unhandled, CurrentUser>
  ) {
    const { name } = yield* UserSession.use((session) => session.get)
    if (name === undefined) return redirect("/")
    const response = yield* Effect.provideService(route, CurrentUser, name)
    return HttpServerResponse.setHeader(response, "cache-control", "no-store")
  })
).combine(WithSession)

const logInPage = Effect.gen(function* () {
  const session = yield* UserSession
  const { name, flash } = yield* session.get
  if (name !== undefined) return redirect("/account")
  if (flash !== undefined) yield* session.destroy // a visitor has nothing else to keep
  return Pages.logIn({ flash })
})

const LogInForm = Schema.Struct({
  name: Schema.Trim.check(Schema.isNonEmpty(), Schema.isMaxLength(40)),
  remember: Schema.optionalKey(Schema.Literal("on"))
})

const logIn = Effect.gen(function* () {
  const session = yield* UserSession
  const form = yield* Effect.option(HttpServerRequest.schemaBodyUrlParams(LogInForm))
  if (Option.isNone(form)) {
    yield* session.update((user) => ({ ...user, flash: "Please enter a name of 1 to 40 characters." }))
    return redirect("/")
  }

  const { name, remember } = form.value
  yield* session.renewToken // whoever knew the token before does not know this one
  yield* session.set({ name, count: 0, flash: `Welcome, ${name}!` })
  yield* session.setRememberMe(remember === "on")
  return redirect("/account")
})

// Reads every session there is. With many users, keep the sessions of each in a table of its own.
const sessionsOf = (name: string) =>
  Stream.filterEffect(UserSession.sessions, (session) => Effect.map(session.get, (user) => user.name === name))

const accountPage = Effect.gen(function* () {
  const name = yield* CurrentUser
  const session = yield* UserSession
  const here = yield* session.id
  const sessions = yield* sessionsOf(name).pipe(
    Stream.mapEffect((session) => Effect.all([session.id, session.get, session.deadline])),
    Stream.map(([id, { count }, deadline]) => ({
      id: Option.getOrElse(id, () => ""),
      isHere: Option.isSome(id) && Option.contains(here, id.value),
      count,
      deadline
    })),
    Stream.runCollect
  )
  const { count } = yield* session.get
  const flash = yield* session.modify(({ flash, ...user }) => [flash, user]) // taken out, so that it is shown once
  return Pages.account({ name, count, flash, sessions })
})

const count = Effect.gen(function* () {
  const session = yield* UserSession
  yield* session.update((user) => ({ ...user, count: user.count + 1 }))
  return redirect("/account")
})

const logOut = Effect.gen(function* () {
  const session = yield* UserSession
  yield* session.destroy
  // This belongs to a new session, with a cookie of its own. Chromium forgets the private pages that it kept for the back
  // button, `no-store` or not, when a cookie is set, and not when one is only deleted.
  yield* session.update((user) => ({ ...user, flash: "You are logged out." }))
  return redirect("/")
})

const logOutEverywhere = Effect.gen(function* () {
  yield* Stream.runForEach(sessionsOf(yield* CurrentUser), (session) => session.destroy)
  return yield* logOut
})

const PublicRoutes = HttpRouter.addAll([
  HttpRouter.route("GET", "/", logInPage),
  HttpRouter.route("POST", "/log-in", logIn)
]).pipe(Layer.provide(WithSession.layer))

const PrivateRoutes = HttpRouter.addAll([
  HttpRouter.route("GET", "/account", accountPage),
  HttpRouter.route("POST", "/count", count),
  HttpRouter.route("POST", "/log-out", logOut),
  HttpRouter.route("POST", "/log-out-everywhere", logOutEverywhere)
]).pipe(Layer.provide(WithUser.layer))

/** All of the application but the server and the store. */
export const Routes = Layer.merge(PublicRoutes, PrivateRoutes)
