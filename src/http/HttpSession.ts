/**
 * Sessions for `effect/http`: a cookie (or the `Authorization` header) that carries the token, and a middleware that
 * opens the session, commits it and sends the cookie.
 *
 * {@link middleware} takes a session class and the options, and returns one value with everything for HTTP: `layer` for
 * `HttpRouter`, `api` and `security` for `HttpApi`, and `open` without a middleware. The middleware rejects requests
 * from pages of other origins, opens the session, and provides it under its tag. Before the head of the response is
 * sent, it commits the session and sets the cookie, each only if there is something new.
 *
 * @module
 */
import type { Layer, Types } from "effect"
import { Cause, Context, Effect, Exit, Option, Redacted, Schema } from "effect"
import { HttpEffect, HttpRouter, HttpServerRequest, HttpServerRespondable, HttpServerResponse } from "effect/http"
import type { HttpApiMiddleware, HttpApiSecurity } from "effect/http-api"
import * as Carrier from "../internal/carrier.ts"
import * as CrossOrigin from "../internal/crossOrigin.ts"
import { opener } from "../internal/opening.ts"
import { sealCarrier } from "../internal/session.ts"
import * as SessionCookie from "../internal/sessionCookie.ts"
import type * as Session from "../Session.ts"
import { SessionStore } from "../SessionStore.ts"

/**
 * The cookie that carries the token. The option names follow [scs](https://github.com/alexedwards/scs).
 *
 * **Details**: the defaults for `httpOnly`, `secure`, `sameSite` and the missing `domain` follow [OWASP's page on
 * sessions](https://cheatsheetseries.owasp.org/cheatsheets/Session_Management_Cheat_Sheet.html), and the name reveals
 * nothing about the software, as that page advises. Three defaults differ, each for a reason:
 *
 * - `persist: true`. OWASP advises a cookie that is deleted when the browser closes. But `lifetime` and `idleTimeout`
 *   limit a session already, and on phones a browser hardly ever closes. To follow OWASP, set `persist: false`, and
 *   offer "remember me" with `setRememberMe`.
 * - `path: "/"`. OWASP advises the narrowest path. But a session belongs to a whole site, a path keeps no script out,
 *   and the prefix `__Host-` requires `/`.
 * - No prefix in the name. OWASP's verification standard asks for `__Host-`. But that rules out `domain`, `path` and
 *   plain HTTP, which some sites need. If yours does not, use `name: "__Host-session"`: then no subdomain can set the
 *   cookie.
 */
export interface CookieOptions {
  /** Default: `"session"`. A `__Host-` or `__Secure-` prefix restricts the other options. */
  readonly name?: string | undefined
  /** Subdomains of this domain get the cookie too. Default: none, so only this host gets it. */
  readonly domain?: string | undefined
  /** Requests to this path and below it carry the cookie. Default: `"/"`. */
  readonly path?: string | undefined
  /** Hides the cookie from scripts. Default: `true`. */
  readonly httpOnly?: boolean | undefined
  /**
   * Sends the cookie over HTTPS only. Default: `true`. Chromium and Firefox accept `http://localhost` as secure. Over
   * any other plain HTTP, a browser drops the cookie, and every request starts a new session.
   */
  readonly secure?: boolean | undefined
  /**
   * Which requests from other sites carry the cookie. Default: `"lax"`, only links to the site. With `"strict"`, not
   * even links: a user who follows a link from another site is a visitor on the first page, and logged in on the next.
   */
  readonly sameSite?: "lax" | "strict" | "none" | undefined
  /** Keeps a separate cookie for each site that embeds the page. Default: `false`. */
  readonly partitioned?: boolean | undefined
  /** Which cookies Chromium drops first if a site has too many. Default: none, which means medium. */
  readonly priority?: "low" | "medium" | "high" | undefined
  /**
   * Whether the browser keeps the cookie until the session expires, or only until it closes. Default: `true`. With
   * `false`, it still keeps the cookies of sessions with `setRememberMe(true)`.
   */
  readonly persist?: boolean | undefined
}

/**
 * Which requests from other origins are allowed.
 *
 * @example
 * ```ts
 * import type { HttpSession } from "effect-sessions/http"
 *
 * const crossOrigin: HttpSession.CrossOriginOptions = {
 *   trusted: ["https://app.example.com"],
 *   // The identity provider makes the browser post its answer here.
 *   exempt: (request) => request.url === "/saml/answer"
 * }
 * ```
 */
export interface CrossOriginOptions {
  /** Origins whose pages may make any request, as browsers write them: `"https://app.example.com"`. Default: none. */
  readonly trusted?: ReadonlyArray<string> | undefined
  /**
   * Requests that any page may make. Default: none.
   *
   * **When to use**: for a route to which an identity provider makes the browser post its answer, as SAML does, and
   * OAuth with `form_post`. Such a route must verify the answer itself, by a signature, `state` or `nonce`.
   *
   * **Gotchas**: the browser sends no `Lax` or `Strict` cookie with such a request, so the session is new, and is not
   * saved. Verify the answer, store it under a random code, and redirect (303) to another of your routes with that
   * code. That request has the `Lax` cookie, and can log in.
   */
  readonly exempt?: ((request: HttpServerRequest.HttpServerRequest) => boolean) | undefined
}

/**
 * The options that can differ between routes.
 */
export interface RouteOptions {
  /**
   * Whether a request counts as use of the session, which restarts the idle timeout. Default: `true`. Use `false` for
   * requests that a page makes by itself, such as polling. Then a user who has left still goes idle.
   */
  readonly touch?: boolean | undefined
  /**
   * What to do with requests from other origins. By default, a WebSocket and any request other than GET, HEAD and
   * OPTIONS is rejected with a 403 if the browser says, by `Sec-Fetch-Site` or else by `Origin`, that a page of another
   * origin made it. `false` allows all requests. With `carrier: "bearer"` the default is `false`, because a browser
   * does not add that header by itself.
   */
  readonly crossOrigin?: CrossOriginOptions | false | undefined
  /**
   * The response to a request whose session could not be opened or committed. Default: logs the error, and returns an
   * empty response with status 503 for a `SessionBusyError` and 500 for all other errors.
   */
  readonly onError?: ((error: Session.SessionError) => Effect.Effect<HttpServerResponse.HttpServerResponse>) | undefined
}

/**
 * The options of sessions over HTTP.
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
export interface Options extends RouteOptions {
  /**
   * What carries the token. Default: `"cookie"`. With `"bearer"`, it comes in the header `Authorization: Bearer …`, and
   * no cookie is read or set. Your handler has to send a new token to the client: see {@link middleware}.
   */
  readonly carrier?: "cookie" | "bearer" | undefined
  /** The cookie that carries the token. */
  readonly cookie?: CookieOptions | undefined
  /**
   * Whether the response that removes the cookie at log-out also makes the browser delete all other data of the site,
   * with `Clear-Site-Data: "cache", "cookies", "storage"`. Default: `false`. It works over HTTPS only, deletes the
   * cookies of sibling hosts too, and may take the browser some seconds.
   */
  readonly clearSiteData?: boolean | undefined
}

const refused = HttpServerResponse.text("Refused: a page of another origin made this request", { status: 403 })

/**
 * The session was not opened, because a page of another origin made the request.
 *
 * Only the `open` of a {@link Middleware} fails with this; the middleware itself responds with a 403. If your handler
 * does not handle the error, the response is a 403 too.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Session } from "effect-sessions"
 * import { HttpSession } from "effect-sessions/http"
 *
 * class Visits extends Session.Service<Visits>()("app/Visits", { schema: Schema.Int, initial: () => 0 }) {}
 *
 * const open = Effect.tapErrorTag(HttpSession.middleware(Visits).open, "CrossOriginError", (error) =>
 *   Effect.logWarning(error.message)
 * )
 * ```
 */
export class CrossOriginError extends Schema.TaggedError<CrossOriginError>("effect-sessions/CrossOriginError")(
  "CrossOriginError",
  {
    /** What the browser said about the origin of the request. */
    reason: Schema.String
  }
) {
  /** Includes what the browser said about the request. */
  override get message(): string {
    return `A page of another origin made this request: ${this.reason}`
  }

  /** The response if nothing handles the error. */
  [HttpServerRespondable.symbol](): Effect.Effect<HttpServerResponse.HttpServerResponse> {
    return Effect.succeed(refused)
  }
}

/**
 * The sessions of a class over HTTP, with all options in one place. {@link middleware} makes one.
 *
 * It is a middleware of `HttpRouter`, with `layer` and `combine`, plus the members below.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { HttpRouter, HttpServerResponse } from "effect/http"
 * import { Session } from "effect-sessions"
 * import { HttpSession } from "effect-sessions/http"
 *
 * class Visits extends Session.Service<Visits>()("app/Visits", { schema: Schema.Int, initial: () => 0 }) {}
 *
 * const Sessions = HttpSession.middleware(Visits, { cookie: { name: "__Host-visits" } })
 *
 * const news = Visits.use((visits) => Effect.map(visits.get, (n) => HttpServerResponse.text(`${n} visits`)))
 *
 * // A page requests this every minute, whether its user is there or not.
 * const Polling = HttpRouter.add("GET", "/news", news).pipe(Layer.provide(Sessions.with({ touch: false }).layer))
 * ```
 */
export interface Middleware<Self, A>
  extends HttpRouter.Middleware<{
    provides: Self | SessionStore
    handles: never
    error: never
    requires: never
    layerError: never
    layerRequires: SessionStore
  }> {
  /**
   * Provides a session for each request of the routes that you provide it to. It commits the session before the response
   * is sent, and sets the cookie if there is something new.
   */
  readonly layer: Layer.Layer<HttpRouter.Request.From<"Requires", Self | SessionStore>, never, SessionStore>

  /** Makes the service of an `HttpApiMiddleware`, which provides a session to the endpoints of an `HttpApi`. */
  readonly api: Effect.Effect<
    HttpApiMiddleware.HttpApiMiddleware<Self | SessionStore, never, never>,
    never,
    SessionStore
  >

  /**
   * Describes the carrier to OpenAPI, as the security scheme of an `HttpApiMiddleware`: the cookie by its name, or the
   * bearer token.
   *
   * **When to use**: for endpoints that only make sense with a session. It describes; it keeps nobody out.
   *
   * **Gotchas**: if the scheme is a cookie, Effect decodes the whole `Cookie` header of each request, which takes long
   * if an attacker filled it. The rest of this module never decodes the whole header.
   */
  readonly security: HttpApiSecurity.ApiKey | HttpApiSecurity.Http

  /**
   * Opens the session of the current request, with the same carrier.
   *
   * **When to use**: for a WebSocket or an RPC connection, which a middleware cannot serve. If you open a session,
   * commit it yourself.
   *
   * **Details**: with a cookie, it cannot start a session or renew a token, because no response is left that could set
   * the cookie. The commit then logs a warning. It saves nothing of a new session, and nothing if an index value has
   * changed. After `renewToken`, it saves the changes under the old token.
   *
   * **Errors**: fails with a {@link CrossOriginError} if a page of another origin made the request, and with the errors
   * of the class's `open`.
   */
  readonly open: Effect.Effect<
    Session.Session<A>,
    Session.SessionError | CrossOriginError,
    HttpServerRequest.HttpServerRequest | SessionStore
  >

  /**
   * The same sessions with other options for some routes. Options that you leave out stay the same.
   *
   * **When to use**: for routes that do not count as use, `with({ touch: false })`, and for routes that pages of other
   * origins may call.
   */
  readonly with: (options: RouteOptions) => Middleware<Self, A>
}

type Response = HttpServerResponse.HttpServerResponse

type Request = HttpServerRequest.HttpServerRequest

/** The options, prepared for use by each request. */
interface Settings<Self, Id extends string, A> {
  readonly session: Session.ServiceClass<Self, Id, A>
  readonly carrier: Carrier.Carrier
  readonly check: CrossOrigin.Check | undefined
  readonly openOptions: { readonly touch: false } | undefined
  readonly onError: (error: Session.SessionError) => Effect.Effect<Response>
}

const makeCarrier = (key: string, options: Options): Carrier.Carrier => {
  const { clearSiteData = false } = options
  if (options.carrier === "bearer") {
    if (options.cookie === undefined && !clearSiteData) return Carrier.bearer
    throw new TypeError(
      `HttpSession: carrier: "bearer" has no cookie, so the options cookie and clearSiteData do nothing`
    )
  }
  const { persist = true, name = "session", ...attributes } = options.cookie ?? {}
  const {
    domain,
    httpOnly = true,
    partitioned = false,
    path = "/",
    priority,
    sameSite = "lax",
    secure = true
  } = attributes
  const cookie = SessionCookie.make(name, { domain, httpOnly, partitioned, path, priority, sameSite, secure })
  return Carrier.cookie(key, cookie, { clearSiteData, persist, sameSite })
}

const makeCheck = ({ carrier, crossOrigin }: Options): CrossOrigin.Check | undefined => {
  if (crossOrigin === false) return undefined
  return crossOrigin === undefined && carrier === "bearer" ? undefined : CrossOrigin.make(crossOrigin ?? {})
}

const clientClosedRequest = HttpServerResponse.empty({ status: 499 })
const internalServerError = HttpServerResponse.empty({ status: 500 })
const serviceUnavailable = HttpServerResponse.empty({ status: 503 })

// A logger that throws must not fail the response.
const log = <A>(effect: Effect.Effect<A>): Effect.Effect<void> => Effect.ignoreCause(effect)

const fail = (key: string, cause: Cause.Cause<unknown>, response: Response): Effect.Effect<Response> =>
  Cause.hasInterruptsOnly(cause)
    ? Effect.succeed(clientClosedRequest)
    : Effect.as(log(Effect.logError(`${key}: the session could not be kept`, cause)), response)

const makeOnError =
  (key: string): Settings<never, string, never>["onError"] =>
  (error) => {
    const response = error._tag === "SessionBusyError" ? serviceUnavailable : internalServerError
    return fail(key, Cause.fail(error), response)
  }

const logRefusal = (key: string, { method }: Request, reason: string): Effect.Effect<void> =>
  log(Effect.logDebug(`${key}: a ${method} request of another origin was refused: ${reason}`))

/** Opens the session of the first token that opens one. */
const openFirst = Effect.fnUntraced(function* <Self, Id extends string, A>(
  { openOptions, session }: Settings<Self, Id, A>,
  store: SessionStore["Service"],
  context: Context.Context<never>,
  tokens: ReadonlyArray<string>
): Effect.fn.Return<Session.Session<A>, Session.SessionError> {
  let ended: Session.Session<A> | undefined
  for (const token of tokens) {
    const opened = yield* session[opener](store, context, token, openOptions)
    if (Option.isSome(yield* opened.token)) return opened
    if ((yield* opened.status) === "ended") ended ??= opened
  }
  // A late request with the token from before a renewal must not start another session.
  return ended ?? (yield* session[opener](store, context, undefined, openOptions))
})

const openRequest = <Self, Id extends string, A>(
  settings: Settings<Self, Id, A>,
  store: SessionStore["Service"],
  context: Context.Context<never>,
  request: Request,
  tokens: ReadonlyArray<string>
): Effect.Effect<Session.Session<A>, Session.SessionError> => {
  const { carrier, openOptions, session } = settings
  const opened =
    tokens.length > 1
      ? openFirst(settings, store, context, tokens)
      : session[opener](store, context, tokens[0], openOptions)
  if (!carrier.isOneWay(request)) return opened
  return Effect.map(opened, (opened) => {
    sealCarrier(opened)
    return opened
  })
}

/**
 * The session that a handler gets. If the client sent several tokens, `destroy` ends the sessions of all of them: the
 * browser keeps sending the other cookies, and they must not log the user in again after a log-out.
 */
const endingAll = <Self, Id extends string, A>(
  { session }: Settings<Self, Id, A>,
  store: SessionStore["Service"],
  opened: Session.Session<A>,
  tokens: ReadonlyArray<string>
): Session.Session<A> => {
  if (tokens.length < 2) return opened
  const end = (token: string) =>
    Effect.contextWith((context: Context.Context<never>) => session[opener](store, context, token)).pipe(
      Effect.flatMap((other) => other.destroy),
      // A session that does not decode opens nothing.
      Effect.catchTag("SessionDecodeError", () => Effect.void)
    )
  const endOthers = Effect.flatMap(opened.token, (own) =>
    Effect.forEach(
      tokens.filter((token) => !Option.exists(own, (own) => Redacted.value(own) === token)),
      end,
      { discard: true }
    )
  )
  // The others first: if one cannot be ended, the log-out fails, and can be tried again.
  const destroy = Effect.andThen(endOthers, opened.destroy)
  // Everything else comes from the session, with its private state.
  return new Proxy(opened, { get: (target, key) => (key === "destroy" ? destroy : Reflect.get(target, key)) })
}

/**
 * Whether the application produced a response, including as an error or by dying with it; not after a defect or an
 * interruption.
 */
const isProduced = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isSuccess(exit) ||
  exit.cause.reasons.every(
    (reason) =>
      Cause.isFailReason(reason) ||
      (Cause.isDieReason(reason) && HttpServerResponse.isHttpServerResponse(reason.defect))
  )

const commit = <Self, Id extends string, A>(
  { carrier, onError, session }: Settings<Self, Id, A>,
  opened: Session.Session<A>,
  request: Request,
  response: Response
): Effect.Effect<Response> =>
  carrier.commit(opened, request, response).pipe(
    Effect.catch(onError),
    Effect.catchCause((cause) => fail(session.key, cause, internalServerError))
  )

/**
 * Provides a session to a route. In few steps of the fiber, because every request runs this: no generators, and no
 * copied context.
 */
const makeRun = <Self, Id extends string, A>(settings: Settings<Self, Id, A>, store: SessionStore["Service"]) => {
  const { carrier, check, onError, session } = settings
  // After an error, a middleware around the routes may run a route again, or another one. Then the commit of the failed
  // run is dropped, because its response is not the one that is sent. Keyed by request.
  const failed = new WeakMap<object, () => void>()

  return (
    route: Effect.Effect<Response, Types.unhandled, Self | SessionStore>
  ): Effect.Effect<Response, Types.unhandled, HttpServerRequest.HttpServerRequest> =>
    Effect.contextWith((context: Context.Context<HttpServerRequest.HttpServerRequest>) => {
      const request = Context.get(context, HttpServerRequest.HttpServerRequest)
      const reason = check?.(request)
      if (reason !== undefined) return Effect.as(logRefusal(session.key, request, reason), refused)
      const tokens = carrier.tokensOf(request)

      failed.get(request.source)?.()
      // A variable, because an object with a mutable field cost a quarter of the requests per second.
      let handle = (response: Response) => Effect.succeed(response)
      HttpEffect.appendPreResponseHandlerUnsafe(context, (_, response) =>
        Effect.mapEager(handle(response), carrier.vary)
      )
      return Effect.matchEffect(openRequest(settings, store, context, request, tokens), {
        onFailure: onError,
        onSuccess: (opened) => {
          const given = endingAll(settings, store, opened, tokens)
          const provide = <R>(context: Context.Context<R>) =>
            Context.add(Context.add(context, SessionStore, store), session, given)
          return Effect.onExitPrimitive(Effect.updateContext(route, provide), (exit) => {
            if (!isProduced(exit)) return undefined
            handle = (response) => commit(settings, opened, request, response)
            if (Exit.isFailure(exit)) {
              failed.set(request.source, () => {
                handle = Effect.succeed
              })
            }
            return undefined
          })
        }
      })
    })
}

const openCurrent = <Self, Id extends string, A>(
  settings: Settings<Self, Id, A>,
  context: Context.Context<HttpServerRequest.HttpServerRequest | SessionStore>
): Effect.Effect<Session.Session<A>, Session.SessionError | CrossOriginError> => {
  const { carrier, check, session } = settings
  const request = Context.get(context, HttpServerRequest.HttpServerRequest)
  const reason = check?.(request)
  if (reason !== undefined) {
    return Effect.andThen(logRefusal(session.key, request, reason), Effect.fail(new CrossOriginError({ reason })))
  }
  const tokens = carrier.tokensOf(request)
  const store = Context.get(context, SessionStore)
  return Effect.map(openRequest(settings, store, context, request, tokens), (opened) => {
    if (carrier.isCarriedByResponse) sealCarrier(opened)
    return endingAll(settings, store, opened, tokens)
  })
}

/**
 * Makes the sessions of a class available over HTTP: a middleware for `HttpRouter`, and everything else that needs the
 * same options.
 *
 * **When to use**: with `HttpRouter`, provide its `layer` to the routes that need a session; the compiler tells you if
 * you forget. With `HttpApi`, use its `api` and `security`. Without a middleware, use `open`.
 *
 * **Details**: the routes get the store too, so `sessionsOf` and `open` of the class work in a handler. The session is
 * opened before the handler runs, with the token in the cookie. It is committed, and the cookie set, before the head of
 * the response is sent: for a success, a redirect, an error of the handler and a streaming body. After a defect, or if
 * the client disconnected, nothing is committed. The same holds after an error if a middleware runs the route again.
 * Every response of such a route has `Vary: Cookie`, and one that sets the cookie has
 * `Cache-Control: no-cache="Set-Cookie"`.
 *
 * The cookie is sent only if the client needs it: for a new token, and for a persistent cookie, also for a new expiry.
 * If the handler destroys the session, the cookie is removed. If another request has ended the session, the cookie
 * stays, because it may already belong to a newer session. If a request carries several cookies of that name, the first
 * one that opens a session is used, and destroying it ends all of them. Up to four are tried.
 *
 * A request from a page of another origin is rejected with a 403, before the handler runs and before the store is
 * asked: see {@link RouteOptions}. GET, HEAD and OPTIONS are allowed, so a route for them must not change anything.
 *
 * With `carrier: "bearer"`, the handler that logs a user in calls `commit`, and sends the token in its response. A new
 * session or a renewed token that it does not commit is not saved, because no client would have the token.
 *
 * **Gotchas**: two session classes need different cookie names. Provide a route with `layer` or with the `layer` of
 * `with`, not with both. After the head of the response is sent, no cookie can be set: in a streaming body, `commit`
 * your changes yourself. A new session is not saved there, and a warning is logged. The same holds for a route that
 * upgrades to a WebSocket. A new session is also not saved if a request came from another site, and the browser
 * withheld the cookie, such as for a link with `sameSite: "strict"`: the new cookie would replace the one that the
 * browser has.
 *
 * **Errors**: if the store fails, or if data does not decode and the class has `undecodable: "fail"`, the response
 * comes from `onError`, even if the handler has produced another. Throws a `TypeError` if the name, path or domain of
 * the cookie or a trusted origin is not valid, or if options contradict each other.
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
 * const Sessions = HttpSession.middleware(Visits)
 *
 * class WithVisits extends HttpApiMiddleware.Service<WithVisits, { provides: Visits }>()("app/WithVisits", {
 *   security: { session: Sessions.security }
 * }) {}
 *
 * const Api = HttpApi.make("app").add(
 *   HttpApiGroup.make("visits")
 *     .add(HttpApiEndpoint.post("count", "/visits", { success: Schema.Int }))
 *     .middleware(WithVisits)
 * )
 *
 * const Handlers = HttpApiBuilder.group(Api, "visits", (handlers) =>
 *   handlers.handle("count", () => Visits.use((visits) => visits.modify((n) => [n + 1, n + 1])))
 * )
 *
 * const Routes = HttpApiBuilder.layer(Api).pipe(
 *   Layer.provide(Handlers),
 *   Layer.provide(Layer.effect(WithVisits, Effect.map(Sessions.api, (session) => ({ session })))),
 *   Layer.provide(MemStore.layer)
 * )
 * ```
 */
export const middleware = <Self, Id extends string, A>(
  session: Session.ServiceClass<Self, Id, A>,
  options: Options = {}
): Middleware<Self, A> => {
  const settings: Settings<Self, Id, A> = {
    session,
    carrier: makeCarrier(session.key, options),
    check: makeCheck(options),
    openOptions: options.touch === false ? { touch: false } : undefined,
    onError: options.onError ?? makeOnError(session.key)
  }
  const api = Effect.map(SessionStore, (store) => makeRun(settings, store))
  const open = Effect.contextWith((context: Context.Context<HttpServerRequest.HttpServerRequest | SessionStore>) =>
    openCurrent(settings, context)
  )
  return Object.assign(HttpRouter.middleware<{ provides: Self | SessionStore }>()(api), {
    api,
    security: settings.carrier.security,
    open,
    with: (overrides: RouteOptions) => middleware(session, { ...options, ...overrides })
  })
}
