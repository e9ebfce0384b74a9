/**
 * Carriers take tokens from client to server and back: the session cookie, or the `Authorization` header.
 */
import { Clock, DateTime, Duration, Effect, Option, Redacted } from "effect"
import type { HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiSecurity } from "effect/http-api"
import { isWebSocket, isWithheld } from "./crossOrigin.ts"
import type { SessionError } from "./errors.ts"
import { type Committed, type Status, sealCarrier } from "./session.ts"
import * as SessionCookie from "./sessionCookie.ts"

type Request = HttpServerRequest.HttpServerRequest
type Response = HttpServerResponse.HttpServerResponse

/** What a carrier needs to know about a session. */
export interface Carried {
  readonly commit: Effect.Effect<Option.Option<Committed>, SessionError>
  readonly status: Effect.Effect<Status>
}

export interface Carrier {
  /** Describes the carrier to OpenAPI. */
  readonly security: HttpApiSecurity.ApiKey | HttpApiSecurity.Http
  /** Tells caches what the response depends on. */
  readonly vary: (response: Response) => Response
  /** The tokens to try, in order. */
  readonly tokensOf: (request: Request) => ReadonlyArray<string>
  /** Whether no response to this request can bring a new token to the client. */
  readonly isOneWay: (request: Request) => boolean
  /** Whether the response carries the token. If not, the handler has to send it. */
  readonly isCarriedByResponse: boolean
  /** Commits the session, and adds the token to the response if necessary. */
  readonly commit: (session: Carried, request: Request, response: Response) => Effect.Effect<Response, SessionError>
}

// Effect runs this commit in an uninterruptible region, but a store that hangs has to be interruptible.
const commit = (session: Carried) => Effect.interruptible(session.commit)

const lifetimeOf = (expiry: DateTime.Utc, now: number): SessionCookie.Attributes => {
  const millis = DateTime.toEpochMillis(expiry)
  return {
    maxAge: Duration.seconds(Math.max(Math.ceil((millis - now) / 1000), 0)),
    expires: new Date(Math.ceil(millis / 1000) * 1000)
  }
}

/** Warns once about a cookie that browsers drop. */
const makeWarning = (key: string, cookie: SessionCookie.SessionCookie) => {
  let isWarned = !cookie.attributes.secure
  return (request: Request) =>
    Effect.suspend(() => {
      if (isWarned || !SessionCookie.isOverPlainHttp(request)) return Effect.void
      isWarned = true
      return Effect.logWarning(
        `${key}: a secure cookie was set over plain HTTP. Browsers drop it, and every request starts a new ` +
          `session. Serve HTTPS; to develop, use http://localhost, or the cookie option secure: false. ` +
          `Behind a proxy that ends TLS, have it send X-Forwarded-Proto.`
      )
    })
}

/** The cookie. `key` is the key of the session class, for warnings. */
export const cookie = (
  key: string,
  cookie: SessionCookie.SessionCookie,
  options: { readonly persist: boolean; readonly clearSiteData: boolean; readonly sameSite: "lax" | "strict" | "none" }
): Carrier => {
  const { name } = cookie
  const warn = makeWarning(key, cookie)
  const isPersistent = (rememberMe: boolean): boolean => options.persist || rememberMe

  const send = (request: Request, response: Response, committed: Committed): Effect.Effect<Response> => {
    const { isExpiryNew, isRememberMeNew, isTokenNew, rememberMe } = committed
    const persistent = isPersistent(rememberMe)
    const isPersistenceNew = isRememberMeNew && persistent !== isPersistent(!rememberMe)
    if (!isTokenNew && !isPersistenceNew && !(persistent && isExpiryNew)) return Effect.succeed(response)
    return Effect.andThen(
      warn(request),
      Effect.map(Clock.currentTimeMillis, (now) => {
        const { expiry, token } = committed
        return SessionCookie.set(response, cookie, Redacted.value(token), persistent ? lifetimeOf(expiry, now) : {})
      })
    )
  }

  const sendNothing = (request: Request, response: Response, status: Status): Response => {
    if (status !== "destroyed" || !SessionCookie.isIn(request.headers.cookie, name)) return response
    const removed = SessionCookie.remove(response, cookie)
    return options.clearSiteData ? SessionCookie.clearSiteData(removed) : removed
  }

  /** Whether the browser may have a cookie that it did not send, and that the cookie of a new session would replace. */
  const isKeptBack = (request: Request): boolean =>
    isWithheld(request, options.sameSite) && !SessionCookie.isIn(request.headers.cookie, name)

  // Not a warning, because pages of other sites can trigger it as often as they like.
  const logKeptBack = (session: Carried): Effect.Effect<void> =>
    Effect.flatMap(session.status, (status) =>
      status === "modified"
        ? Effect.logDebug(
            `${key}: a new session was not saved, since a page of another site made the request, and the browser may ` +
              `have kept back the cookie of another session`
          )
        : Effect.void
    )

  return {
    security: HttpApiSecurity.apiKey({ in: "cookie", key: name }),
    vary: SessionCookie.vary,
    tokensOf: (request) => SessionCookie.tokensOf(request.headers.cookie, name),
    // The response to an upgrade cannot carry a cookie.
    isOneWay: (request) => isWebSocket(request) || isKeptBack(request),
    isCarriedByResponse: true,
    commit: (session, request, response) =>
      isKeptBack(request)
        ? Effect.as(logKeptBack(session), response)
        : Effect.flatMap(commit(session), (committed) => {
            // Later changes to the session, such as by a streaming body, come too late for a cookie.
            sealCarrier(session)
            return Option.isSome(committed)
              ? send(request, response, committed.value)
              : Effect.map(session.status, (status) => sendNothing(request, response, status))
          })
  }
}

const bearerShape = /^bearer +([\w-]{43})$/i

/**
 * The `Authorization` header. The handler has to commit a new token and send it to the client. A new session or token
 * that it has not committed before the response is not saved.
 */
export const bearer: Carrier = {
  security: HttpApiSecurity.bearer,
  vary: SessionCookie.varyByAuthorization,
  tokensOf: ({ headers }) => bearerShape.exec(headers.authorization ?? "")?.slice(1) ?? [],
  isOneWay: () => false,
  isCarriedByResponse: false,
  commit: (session, _request, response) =>
    Effect.suspend(() => {
      sealCarrier(session)
      return Effect.as(commit(session), response)
    })
}
