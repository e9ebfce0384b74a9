/**
 * Sessions for `effect/http`: a cookie that carries the token, and a middleware that opens, commits and sends it.
 *
 * {@link middleware} opens the session of each request to the routes it is given to, and provides it under its tag.
 * When the application has produced its response, and before the head of it is sent, the session is committed and the
 * cookie set, each where there is something to save or to send. {@link apiMiddleware} is the same for `HttpApi`.
 *
 * @module
 */
import type { Types } from "effect"
import { Cause, Clock, Context, DateTime, Duration, Effect, Exit, Formatter, Option, Redacted, Result } from "effect"
import { Cookies, HttpEffect, HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { type HttpApiMiddleware, HttpApiSecurity } from "effect/http-api"
import type * as Session from "../Session.ts"
import { SessionStore } from "../SessionStore.ts"

/**
 * The cookie that carries the token. The names are those of [scs](https://github.com/alexedwards/scs), the defaults what
 * [OWASP](https://cheatsheetseries.owasp.org/cheatsheets/Session_Management_Cheat_Sheet.html) advises.
 */
export interface CookieOptions {
  /** Default: `"session"`. A `__Host-` or `__Secure-` prefix binds the other options to what it demands. */
  readonly name?: string | undefined
  /** The hosts below this domain get the cookie as well. Default: none, so that this host alone gets it. */
  readonly domain?: string | undefined
  /** Requests to this path and below it carry the cookie. Default: `"/"`. */
  readonly path?: string | undefined
  /** Keeps the cookie from scripts. Default: `true`. */
  readonly httpOnly?: boolean | undefined
  /**
   * Keeps the cookie off plain HTTP. Default: `true`. Chromium and Firefox take `http://localhost` for secure; elsewhere
   * a browser drops the cookie of a plain HTTP response, and every request starts a new session.
   */
  readonly secure?: boolean | undefined
  /** Which requests from other sites carry the cookie. Default: `"lax"`, links to the site alone. */
  readonly sameSite?: "lax" | "strict" | "none" | undefined
  /** Keeps a jar for each site that the page is embedded in. Default: `false`. */
  readonly partitioned?: boolean | undefined
  /**
   * Whether the browser keeps the cookie until the session expires, or only until it closes. Default: `true`. With
   * `false`, the sessions whose `rememberMe` was turned on are kept all the same.
   */
  readonly persist?: boolean | undefined
}

/**
 * What a session middleware is made from.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { HttpServerResponse } from "effect/http"
 * import { Session } from "effect-sessions"
 * import { HttpSession } from "effect-sessions/http"
 *
 * class Visits extends Session.Service<Visits>()("app/Visits", { schema: Schema.Int, initial: () => 0 }) {}
 *
 * const Sessions = HttpSession.middleware(Visits, {
 *   cookie: { name: "__Host-session", sameSite: "strict" },
 *   onError: (error) =>
 *     Effect.as(Effect.logError(error.message, error.cause), HttpServerResponse.text("Try again later", { status: 503 }))
 * })
 * ```
 */
export interface Options {
  /** The cookie that carries the token. */
  readonly cookie?: CookieOptions | undefined
  /**
   * The response to a request whose session could not be opened or committed. Default: it logs the error, and answers
   * with an empty response of status 500.
   */
  readonly onError?: ((error: Session.SessionError) => Effect.Effect<HttpServerResponse.HttpServerResponse>) | undefined
}

type Response = HttpServerResponse.HttpServerResponse

type Attributes = NonNullable<Cookies.Cookie["options"]>

const domainShape = /^\.?[a-z0-9-]+(\.[a-z0-9-]+)*$/i

const makeAttributes = (name: string, options: Omit<CookieOptions, "name" | "persist">): Attributes => {
  const { domain, path = "/", httpOnly = true, secure = true, sameSite = "lax", partitioned = false } = options
  const attributes = { domain, path, httpOnly, secure, sameSite, partitioned }
  const reject = (why: string) => {
    throw new TypeError(`HttpSession: the cookie ${Formatter.format(name)} ${why}`)
  }
  const cookie = Cookies.makeCookie(name, "", attributes)
  if (Result.isFailure(cookie) && cookie.failure.reason._tag === "InvalidCookieName") reject("has no valid name")
  if (domain !== undefined && !domainShape.test(domain)) reject(`has no valid domain: ${Formatter.format(domain)}`)
  if (Result.isFailure(cookie) || !path.startsWith("/")) reject(`has no valid path: ${Formatter.format(path)}`)
  if (/^__(Host|Secure)-/i.test(name) && !secure) reject("has a prefix that demands secure: true")
  if (/^__Host-/i.test(name) && path !== "/") reject(`has a prefix that demands path: "/"`)
  if (/^__Host-/i.test(name) && domain !== undefined) reject("has a prefix that demands no domain")
  if (sameSite === "none" && !secure) reject(`needs secure: true with sameSite: "none", or browsers drop it`)
  if (partitioned && !secure) reject("needs secure: true with partitioned: true, or browsers drop it")
  return attributes
}

const append = (response: Response, header: string, value: string, present: RegExp): Response => {
  const values = response.headers[header]
  if (values === undefined) return HttpServerResponse.setHeader(response, header, value)
  const isThere = values.split(",").some((each) => present.test(each.trim()))
  return isThere ? response : HttpServerResponse.setHeader(response, header, `${values}, ${value}`)
}

/** A response produced by the application, also as an error or by dying with it; no defect, no interruption. */
const isProduced = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isSuccess(exit) ||
  exit.cause.reasons.every(
    (reason) =>
      Cause.isFailReason(reason) ||
      (Cause.isDieReason(reason) && HttpServerResponse.isHttpServerResponse(reason.defect))
  )

const localhost = /^(.+\.)?localhost$|^127\.\d+\.\d+\.\d+$|^\[::1\]$/i

const isInsecure = ({ headers, originalUrl, protocol }: HttpServerRequest.HttpServerRequest): boolean => {
  const host = /^http:\/\/(\[[^\]]*\]|[^/:?#]*)/i.exec(originalUrl)?.[1]
  // A proxy that ends TLS may say so in these headers. They are not to be trusted, and good enough for a hint.
  const isProxied = /https/i.test(`${protocol} ${headers["x-forwarded-proto"]} ${headers.forwarded}`)
  return host !== undefined && !localhost.test(host) && !isProxied
}

const internalServerError = HttpServerResponse.empty({ status: 500 })

const clientClosedRequest = HttpServerResponse.empty({ status: 499 })

const make = Effect.fnUntraced(function* <Self, Id extends string, A>(
  session: Session.ServiceClass<Self, Id, A>,
  options: Options
) {
  const store = yield* SessionStore
  const { name = "session", persist = true, ...others } = options.cookie ?? {}
  const attributes = makeAttributes(name, others)

  const fail = (cause: Cause.Cause<unknown>) =>
    Cause.hasInterruptsOnly(cause)
      ? Effect.succeed(clientClosedRequest)
      : Effect.logError(`${session.key}: the session could not be kept`, cause).pipe(
          // A logger that throws must not take the response with it.
          Effect.ignoreCause,
          Effect.as(internalServerError)
        )

  const onError = options.onError ?? ((error) => fail(Cause.fail(error)))

  let isWarned = !attributes.secure

  const warn = (request: HttpServerRequest.HttpServerRequest) =>
    Effect.suspend(() => {
      if (isWarned || !isInsecure(request)) return Effect.void
      isWarned = true
      return Effect.logWarning(
        `${session.key}: a secure cookie was set over plain HTTP. Browsers drop it, and every request starts a new ` +
          `session. Serve HTTPS; to develop, use http://localhost, or the cookie option secure: false. ` +
          `Behind a proxy that ends TLS, have it send X-Forwarded-Proto.`
      )
    })

  const setCookie = (response: Response, token: string, lifetime: Attributes): Response =>
    append(
      HttpServerResponse.setCookieUnsafe(response, name, token, { ...attributes, ...lifetime }),
      "cache-control",
      'no-cache="Set-Cookie"',
      /^no-store$|^no-cache="set-cookie"$/i
    )

  const isPersistent = (rememberMe: boolean): boolean => persist || rememberMe

  const send = (
    request: HttpServerRequest.HttpServerRequest,
    response: Response,
    { expiry, isExpiryNew, isRememberMeNew, isTokenNew, rememberMe, token }: Session.Committed
  ): Effect.Effect<Response> => {
    const persistent = isPersistent(rememberMe)
    const isPersistenceNew = isRememberMeNew && persistent !== isPersistent(!rememberMe)
    if (!isTokenNew && !isPersistenceNew && !(persistent && isExpiryNew)) return Effect.succeed(response)
    return Effect.andThen(
      warn(request),
      Effect.map(Clock.currentTimeMillis, (now) => {
        if (!persistent) return setCookie(response, Redacted.value(token), {})
        const millis = DateTime.toEpochMillis(expiry)
        return setCookie(response, Redacted.value(token), {
          maxAge: Duration.seconds(Math.max(Math.ceil((millis - now) / 1000), 0)),
          expires: new Date(Math.ceil(millis / 1000) * 1000)
        })
      })
    )
  }

  const sendDestroyed = (
    request: HttpServerRequest.HttpServerRequest,
    response: Response,
    status: Session.Status
  ): Response =>
    status === "destroyed" && name in request.cookies
      ? setCookie(response, "", { maxAge: Duration.zero, expires: new Date(0) })
      : response

  const commit = (
    current: Session.Session<A>,
    request: HttpServerRequest.HttpServerRequest,
    response: Response
  ): Effect.Effect<Response> =>
    // Effect runs this where nothing can be interrupted. A store that hangs has to be.
    Effect.interruptible(current.commit).pipe(
      Effect.flatMap((committed) =>
        Option.isSome(committed)
          ? send(request, response, committed.value)
          : Effect.map(current.status, (status) => sendDestroyed(request, response, status))
      ),
      Effect.catch(onError),
      Effect.catchCause(fail)
    )

  // A middleware around the routes may run one again, or another, after an error. The commit that is then left of the
  // failed one is dropped, by request: its response is not the one that is sent.
  const failed = new WeakMap<object, () => void>()

  // Every request runs this, hence the few steps: no generators, and no context that is copied.
  return (httpEffect: Effect.Effect<Response, Types.unhandled, Self | SessionStore>) =>
    Effect.contextWith((context: Context.Context<HttpServerRequest.HttpServerRequest>) => {
      const request = Context.get(context, HttpServerRequest.HttpServerRequest)
      const cookie = request.cookies[name]
      const token = cookie === undefined ? undefined : Redacted.make(cookie, { label: "session token" })

      failed.get(request.source)?.()
      // A variable: with an object whose field is set anew, V8 had a quarter fewer requests a second.
      let handle = (response: Response) => Effect.succeed(response)
      HttpEffect.appendPreResponseHandlerUnsafe(context, (_, response) =>
        Effect.mapEager(handle(response), (response) => append(response, "vary", "Cookie", /^(\*|cookie)$/i))
      )
      return session.open(token).pipe(
        Effect.matchEffect({
          onFailure: onError,
          onSuccess: (opened) =>
            Effect.onExitPrimitive(Effect.provideService(httpEffect, session, opened), (exit) => {
              if (!isProduced(exit)) return undefined
              handle = (response) => commit(opened, request, response)
              if (Exit.isFailure(exit)) {
                failed.set(request.source, () => {
                  handle = Effect.succeed
                })
              }
              return undefined
            })
        }),
        Effect.provideService(SessionStore, store)
      )
    })
})

/**
 * Makes a middleware that gives the routes it is provided to a session.
 *
 * **When to use**: with `HttpRouter`. Provide its `layer` to the routes that need a session; each names the session
 * class as a requirement until it is.
 *
 * **Details**: the routes are given the store too, so that `sessions` and `open` of the class work in a handler. The
 * session is opened before the handler, by the token in the cookie. It is committed, and the cookie set, when there is
 * a response and before the head of it is sent: for a success, a redirect, an error of the handler's and a body that
 * streams. After a defect, or where the client went away, nothing is committed, nor after an error where the route is
 * run again, as by a middleware that retries. What a streaming body changes comes too late for that; it has to call
 * `commit` itself. Every response of such a route says `Vary: Cookie`, and one that sets the cookie
 * `Cache-Control: no-cache="Set-Cookie"`.
 *
 * **Gotchas**: two session classes need cookies of two names. On a route that upgrades to a WebSocket there
 * is no head left to set a cookie in; use `open` of the class there.
 *
 * The cookie is sent where the client needs it and only there: for a new token, and where it is kept beyond the browser
 * session, for a new expiry. A session that was destroyed takes its cookie along. A session that ended elsewhere leaves
 * the cookie alone, since by now it may be that of another.
 *
 * **Errors**: where the store fails, or its data does not decode and the class was told to fail, the response is that
 * of `onError`, also if the handler had produced another. The layer dies with a `TypeError` where the name, path or
 * domain of the cookie is not valid, or its options contradict each other.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { HttpRouter, HttpServerResponse } from "effect/http"
 * import { MemStore, Session } from "effect-sessions"
 * import { HttpSession } from "effect-sessions/http"
 *
 * class Visits extends Session.Service<Visits>()("app/Visits", { schema: Schema.Int, initial: () => 0 }) {}
 *
 * const Routes = HttpRouter.add(
 *   "GET",
 *   "/",
 *   Effect.gen(function* () {
 *     const visits = yield* Visits
 *     yield* visits.update((n) => n + 1)
 *     return HttpServerResponse.text(`Visit ${yield* visits.get}`)
 *   })
 * ).pipe(Layer.provide(HttpSession.middleware(Visits).layer), Layer.provide(MemStore.layer))
 *
 * const { handler, dispose } = HttpRouter.toWebHandler(Routes, { disableLogger: true })
 * const first = await handler(new Request("http://localhost/"))
 * const cookie = first.headers.get("set-cookie")?.split(";")[0] ?? ""
 * const second = await handler(new Request("http://localhost/", { headers: { cookie } }))
 * await second.text() // => "Visit 2"
 * await dispose()
 * ```
 */
export const middleware = <Self, Id extends string, A>(
  session: Session.ServiceClass<Self, Id, A>,
  options: Options = {}
): HttpRouter.Middleware<{
  provides: Self | SessionStore
  handles: never
  error: never
  requires: never
  layerError: never
  layerRequires: SessionStore
}> => HttpRouter.middleware<{ provides: Self | SessionStore }>()(make(session, options))

/**
 * Makes the service of an `HttpApiMiddleware` that gives the endpoints of an `HttpApi` a session.
 *
 * **When to use**: with `HttpApi`. All else is as with {@link middleware}.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup, HttpApiMiddleware } from "effect/http-api"
 * import { MemStore, Session } from "effect-sessions"
 * import { HttpSession } from "effect-sessions/http"
 *
 * class Visits extends Session.Service<Visits>()("app/Visits", { schema: Schema.Int, initial: () => 0 }) {}
 *
 * class VisitsMiddleware extends HttpApiMiddleware.Service<VisitsMiddleware, { provides: Visits }>()(
 *   "app/VisitsMiddleware"
 * ) {}
 *
 * const Api = HttpApi.make("app").add(
 *   HttpApiGroup.make("visits")
 *     .add(HttpApiEndpoint.post("count", "/visits", { success: Schema.Int }))
 *     .middleware(VisitsMiddleware)
 * )
 *
 * const Handlers = HttpApiBuilder.group(Api, "visits", (handlers) =>
 *   handlers.handle("count", () => Visits.use((visits) => visits.modify((n) => [n + 1, n + 1])))
 * )
 *
 * const Routes = HttpApiBuilder.layer(Api).pipe(
 *   Layer.provide(Handlers),
 *   Layer.provide(Layer.effect(VisitsMiddleware, HttpSession.apiMiddleware(Visits))),
 *   Layer.provide(MemStore.layer)
 * )
 * ```
 */
export const apiMiddleware = <Self, Id extends string, A>(
  session: Session.ServiceClass<Self, Id, A>,
  options: Options = {}
): Effect.Effect<HttpApiMiddleware.HttpApiMiddleware<Self | SessionStore, never, never>, never, SessionStore> =>
  make(session, options)

/**
 * Describes the session cookie to OpenAPI, as the security scheme of an `HttpApiMiddleware`.
 *
 * **When to use**: for endpoints that are of use only to those who have a session. It describes; it keeps nobody out.
 *
 * **Details**: the name is that of the cookie, `"session"` by default. Where `apiMiddleware` is given another one, give
 * it here too.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { HttpApiMiddleware } from "effect/http-api"
 * import { Session } from "effect-sessions"
 * import { HttpSession } from "effect-sessions/http"
 *
 * class Visits extends Session.Service<Visits>()("app/Visits", { schema: Schema.Int, initial: () => 0 }) {}
 *
 * class VisitsMiddleware extends HttpApiMiddleware.Service<VisitsMiddleware, { provides: Visits }>()(
 *   "app/VisitsMiddleware",
 *   { security: { session: HttpSession.security() } }
 * ) {}
 *
 * const VisitsMiddlewareLive = Layer.effect(
 *   VisitsMiddleware,
 *   Effect.map(HttpSession.apiMiddleware(Visits), (session) => ({ session }))
 * )
 * ```
 */
export const security = (name = "session"): HttpApiSecurity.ApiKey =>
  HttpApiSecurity.apiKey({ in: "cookie", key: name })
