/**
 * What the application does: log in, count, list the devices of a user, log out here or there or everywhere.
 *
 * Each form is a POST that is answered by a redirect, so that to reload a page repeats nothing. `WithSession` protects
 * them from forgery: it refuses a POST that a page of another origin makes. A GET changes nothing but what was shown.
 */
import { readFile } from "node:fs/promises"
import { Context, Effect, Layer, Option, Schedule, Schema, Stream, type Types } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Session, SessionStore } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"
import * as Pages from "./Pages.ts"

const User = Schema.Struct({
  name: Schema.optionalKey(Schema.String),
  count: Schema.Int,
  /** What the browser said of itself at log-in. */
  device: Schema.optionalKey(Schema.String),
  /** A message for the next page. */
  flash: Schema.optionalKey(Schema.String)
})

class UserSession extends Session.Service<UserSession>()("example/UserSession", {
  schema: User,
  initial: () => ({ count: 0 }),
  lifetime: "30 days",
  idleTimeout: "7 days",
  touchInterval: "1 minute", // how exactly the list of devices knows when one was last used
  indexes: { user: (user) => user.name },
  maxSessions: { user: 5 }
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

/** What the panel "Under the hood" shows: of the token its start, and of the store what is this session's own. */
const stored = Effect.gen(function* () {
  const id = Option.getOrUndefined(yield* UserSession.use((session) => session.id))
  const { headers } = yield* HttpServerRequest.HttpServerRequest
  const token = /(?:^|; )session=([\w-]{6})/.exec(headers.cookie ?? "")?.[1]
  const data = id === undefined ? undefined : Option.getOrUndefined(yield* (yield* SessionStore).find(id))
  return { token, id, data }
})

const logInPage = Effect.gen(function* () {
  const session = yield* UserSession
  const { name, flash } = yield* session.get
  if (name !== undefined) return redirect("/account")
  if (flash !== undefined) yield* session.destroy // a visitor has nothing else to keep
  return Pages.logIn({ flash, stored: yield* stored })
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
  const { headers } = yield* HttpServerRequest.HttpServerRequest
  const device = (headers["user-agent"] ?? "Unknown device").slice(0, 200)
  yield* session.set({ name, count: 0, device, flash: `Welcome, ${name}!` })
  yield* session.setRememberMe(remember === "on")
  return redirect("/account")
})

/** A session, as the list of devices shows it. */
const toDevice = (session: Session.Session<typeof User.Type>) =>
  Effect.all({
    id: Effect.map(
      session.id,
      Option.getOrElse(() => "")
    ),
    user: session.get,
    createdAt: session.createdAt,
    usedAt: session.usedAt
  })

const accountPage = Effect.gen(function* () {
  const name = yield* CurrentUser
  const session = yield* UserSession
  const here = yield* session.id
  const devices = yield* UserSession.sessionsOf("user", name).pipe(
    Stream.mapEffect(toDevice),
    Stream.map((device) => ({ ...device, isHere: Option.contains(here, device.id) })),
    Stream.runCollect
  )
  const { count } = yield* session.get
  const flash = yield* session.modify(({ flash, ...user }) => [flash, user]) // taken out, so that it is shown once
  return Pages.account({ name, count, flash, devices, stored: yield* stored })
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

const DeviceForm = Schema.Struct({ id: Schema.String })

const logOutDevice = Effect.gen(function* () {
  const name = yield* CurrentUser
  const { id } = yield* HttpServerRequest.schemaBodyUrlParams(DeviceForm)
  if (Option.contains(yield* UserSession.use((session) => session.id), id)) return yield* logOut
  const device = yield* UserSession.byId(id)
  // Anybody may know an id, so that it has to be one of this user.
  if (Option.isSome(device) && (yield* device.value.get).name === name) yield* device.value.destroy
  return redirect("/account")
})

const logOutOthers = Effect.gen(function* () {
  const session = yield* UserSession
  const count = yield* UserSession.destroyAllOf("user", yield* CurrentUser, { except: session })
  yield* session.update((user) => ({ ...user, flash: `Devices logged out: ${count}.` }))
  return redirect("/account")
})

const logOutEverywhere = Effect.gen(function* () {
  yield* UserSession.destroyAllOf("user", yield* CurrentUser)
  return yield* logOut
})

/** Tells a page that is left open when its session has ended. A line each half minute finds out whether it still is. */
const ended = Effect.gen(function* () {
  const session = yield* UserSession
  const { name } = yield* session.get
  if (name === undefined) return HttpServerResponse.empty() // a 204, after which a browser does not ask again
  const alive = Stream.repeat(Stream.make(":\n\n"), Schedule.spaced("30 seconds"))
  const farewell = Stream.fromEffect(Effect.map(session.ended, (how) => `event: ended\ndata: ${how}\n\n`))
  const body = Stream.merge(alive, farewell, { haltStrategy: "right" })
  return HttpServerResponse.stream(Stream.encodeText(body), {
    contentType: "text/event-stream",
    headers: { "cache-control": "no-store" }
  })
})

const Source = Schema.Struct({ file: Schema.Literals(["Pages.ts", "Routes.ts", "Store.ts"]) })

const source = Effect.gen(function* () {
  const { file } = yield* HttpRouter.schemaPathParams(Source)
  return HttpServerResponse.text(yield* Effect.promise(() => readFile(new URL(file, import.meta.url), "utf8")))
})

const SourceRoutes = HttpRouter.add("GET", "/source/:file", source)

const PublicRoutes = HttpRouter.addAll([
  HttpRouter.route("GET", "/", logInPage),
  HttpRouter.route("POST", "/log-in", logIn)
]).pipe(Layer.provide(WithSession.layer))

const PrivateRoutes = HttpRouter.addAll([
  HttpRouter.route("GET", "/account", accountPage),
  HttpRouter.route("POST", "/count", count),
  HttpRouter.route("POST", "/log-out", logOut),
  HttpRouter.route("POST", "/log-out-device", logOutDevice),
  HttpRouter.route("POST", "/log-out-others", logOutOthers),
  HttpRouter.route("POST", "/log-out-everywhere", logOutEverywhere)
]).pipe(Layer.provide(WithUser.layer))

// A page that is left open does not keep its session from going idle.
const EventRoutes = HttpRouter.add("GET", "/ended", ended).pipe(Layer.provide(WithSession.with({ touch: false }).layer))

/** All of the application but the server and the store. */
export const Routes = Layer.mergeAll(PublicRoutes, PrivateRoutes, EventRoutes, SourceRoutes)
