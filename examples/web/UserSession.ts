/**
 * The session of a user, and the two middlewares that the pages choose from: with a session, and with a user who is logged
 * in.
 *
 * Each form is a POST that responds with a redirect, so reloading a page repeats nothing. `WithSession` protects them
 * from forgery: it rejects a POST from a page of another origin. A GET changes nothing except which messages were
 * shown.
 */
import { Context, Effect, Option, Schema, type Types } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Session } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"

const User = Schema.Struct({
  name: Schema.optionalKey(Schema.String),
  count: Schema.Int,
  /** What the browser said of itself at log-in. */
  device: Schema.optionalKey(Schema.String),
  /** A message for the next page. */
  flash: Schema.optionalKey(Schema.String)
})

export type User = typeof User.Type

export class UserSession extends Session.Service<UserSession>()("example/UserSession", {
  schema: User,
  initial: () => ({ count: 0 }),
  lifetime: "30 days",
  idleTimeout: "7 days",
  touchInterval: "1 minute", // how exactly the list of devices knows when one was last used
  indexes: { user: (user) => user.name },
  maxSessions: { user: 5 }
}) {}

// Without `persist`, the browser forgets the cookie when it closes, unless the user asked to be remembered.
export const WithSession = HttpSession.middleware(UserSession, { cookie: { persist: false } })

/** For what a page asks for by itself: if it is left open, that does not keep its session from going idle. */
export const WithUntouchedSession = WithSession.with({ touch: false })

/** The name of the user who is logged in. */
export class CurrentUser extends Context.Service<CurrentUser, string>()("example/CurrentUser") {}

export const redirect = (location: string) => HttpServerResponse.redirect(location, { status: 303 })

/** Sends visitors to the log-in page, and those whose session has ended to the page that says so. */
export const WithUser = HttpRouter.middleware<{ provides: CurrentUser }>()(
  Effect.fnUntraced(function* (
    route: Effect.Effect<HttpServerResponse.HttpServerResponse, Types.unhandled, CurrentUser>
  ) {
    const session = yield* UserSession
    const { name } = yield* session.get
    if (name !== undefined) return yield* Effect.provideService(route, CurrentUser, name)
    const { cookies } = yield* HttpServerRequest.HttpServerRequest
    const opensNothing = cookies.session !== undefined && Option.isNone(yield* session.id)
    return redirect(opensNothing ? "/logged-out?how=gone" : "/")
  })
).combine(WithSession)

/** The message for this page, removed from the session so it is shown only once. */
export const takeFlash = Effect.gen(function* () {
  const session = yield* UserSession
  const { flash, name } = yield* session.get
  if (flash === undefined) return undefined
  if (name === undefined)
    yield* session.destroy // a visitor has nothing else to keep
  else yield* session.update(({ flash, ...user }) => user)
  return flash
})
