/**
 * A browser for tests: an HTTP client with a cookie jar, over routes, without a server.
 */
import { Clock, type Context, Effect, type Layer, Ref, type Scope } from "effect"
import {
  Cookies,
  HttpClient,
  HttpClientError,
  HttpClientRequest,
  HttpClientResponse,
  HttpEffect,
  HttpRouter,
  type HttpServerRequest,
  type HttpServerResponse,
  UrlParams
} from "effect/http"

/**
 * A browser for tests: an `HttpClient` of Effect with a cookie jar.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import type { SessionTest } from "effect-sessions/testing"
 *
 * const logIn = Effect.fnUntraced(function* (browser: SessionTest.Browser) {
 *   const { status } = yield* browser.submit("/log-in", { name: "ada" })
 *   const page = yield* browser.get("/")
 *   return { status, text: yield* page.text }
 * })
 * ```
 */
export interface Browser extends HttpClient.HttpClient {
  /** Posts a form, like a page of the site. The fields are URL-encoded. */
  readonly submit: (
    path: string,
    fields?: Readonly<Record<string, string>>
  ) => Effect.Effect<HttpClientResponse.HttpClientResponse, HttpClientError.HttpClientError>

  /** The cookies of the browser, without those that have expired by the `Clock`. */
  readonly cookies: Effect.Effect<ReadonlyArray<Cookies.Cookie>>

  /**
   * The cookie jar, to plant or steal a cookie. It may hold expired cookies, which are never sent. A cookie that you make
   * yourself needs a `domain`, such as `localhost`. To send one with a single request, set the header `cookie`.
   */
  readonly jar: Ref.Ref<ReadonlyArray<Cookies.Cookie>>

  /** Closes the browser and opens it again: it forgets the cookies that have no expiry. */
  readonly restart: Effect.Effect<void>

  /** Opens another browser on the same site, with an empty jar: another device, or another user. */
  readonly another: Effect.Effect<Browser>
}

/**
 * The options of a browser.
 */
export interface BrowserOptions {
  /** The origin of the site. Default: `"https://localhost"`. */
  readonly origin?: string | undefined
}

const localhost = /^(.+\.)?localhost$|^127\.\d+\.\d+\.\d+$|^\[::1\]$/

/** Whether a browser treats the connection as secure: over HTTPS, or to this machine. */
const isSecure = ({ hostname, protocol }: URL): boolean => protocol === "https:" || localhost.test(hostname)

/** Whether a browser accepts a cookie from the site. The domain is checked when the cookie is stored. */
const isKept = ({ name, options = {} }: Cookies.Cookie, url: URL): boolean => {
  const { domain, partitioned = false, path, sameSite, secure = false } = options
  if (secure) {
    if (!isSecure(url)) return false
  } else if (partitioned || sameSite === "none" || /^__(Host|Secure)-/i.test(name)) return false
  return !/^__Host-/i.test(name) || (path === "/" && domain === undefined)
}

const isCurrent =
  (now: number) =>
  ({ options }: Cookies.Cookie): boolean =>
    options?.expires === undefined || options.expires.getTime() > now

/**
 * Whether a cookie is sent with a request from a page of another site: no `Lax` or `Strict` cookie, except `Lax` with a
 * link.
 */
const isSentAcrossSites = (isLink: boolean, { options }: Cookies.Cookie): boolean =>
  options?.sameSite === "none" || (isLink && options?.sameSite !== "strict")

const toCookieHeader = (
  cookies: ReadonlyArray<Cookies.Cookie>,
  { headers, method }: HttpClientRequest.HttpClientRequest,
  url: URL,
  now: number
): string | undefined => {
  const isLink = method === "GET" && (headers["sec-fetch-mode"] ?? "navigate") === "navigate"
  const allowed =
    headers["sec-fetch-site"] === "cross-site" ? cookies.filter((cookie) => isSentAcrossSites(isLink, cookie)) : cookies
  const seen = new URL(url)
  if (isSecure(url)) seen.protocol = "https:"
  return Cookies.toRequestCookieHeader(allowed, seen.href, now)
}

/** Adds the headers of a browser, unless the test sets them. */
const withHeaders = (request: HttpClientRequest.HttpClientRequest, url: URL, cookie: string | undefined) => {
  const headers: Record<string, string> = {}
  if (isSecure(url)) headers["sec-fetch-site"] = "same-origin"
  if (request.method !== "GET" && request.method !== "HEAD") headers.origin = url.origin
  if (cookie !== undefined) headers.cookie = cookie
  return HttpClientRequest.setHeaders(request, { ...headers, ...request.headers })
}

type OfRequest = HttpServerRequest.HttpServerRequest | Scope.Scope

type AppOfRequests = Effect.Effect<HttpServerResponse.HttpServerResponse, unknown, OfRequest>

type Handler = (request: Request, context: Context.Context<never>) => Promise<Response>

const makeBrowser = (handler: Handler, origin: string): Effect.Effect<Browser> =>
  Effect.gen(function* () {
    const jar = yield* Ref.make<ReadonlyArray<Cookies.Cookie>>([])

    const send = Effect.fnUntraced(function* (
      request: HttpClientRequest.HttpClientRequest,
      url: URL,
      signal: AbortSignal
    ) {
      const cookie = toCookieHeader(yield* Ref.get(jar), request, url, yield* Clock.currentTimeMillis)
      const context = yield* Effect.context<never>()
      const sent = yield* Effect.orDie(HttpClientRequest.toWeb(withHeaders(request, url, cookie), { signal }))
      const response = yield* Effect.tryPromise({
        try: () => handler(sent, context),
        catch: (cause) =>
          new HttpClientError.HttpClientError({ reason: new HttpClientError.TransportError({ request, cause }) })
      })
      const now = yield* Clock.currentTimeMillis
      // One at a time, because two cookies with different paths may have the same name.
      for (const line of response.headers.getSetCookie()) {
        const set = Cookies.fromSetCookie(line)
        if (Object.values(set.cookies).every((each) => isKept(each, url))) {
          yield* Ref.update(jar, Cookies.mergeIntoArray(url.href, set, now))
        }
      }
      return HttpClientResponse.fromWeb(request, response)
    })

    const resolve = (request: HttpClientRequest.HttpClientRequest) =>
      URL.canParse(request.url) ? request : HttpClientRequest.setUrl(request, new URL(request.url, origin).href)
    const { postprocess } = HttpClient.make(send)
    // Last, after other changes to the request, such as those of a client with its own base URL.
    const client = HttpClient.makeWith<HttpClientError.HttpClientError, never, HttpClientError.HttpClientError, never>(
      (request) => postprocess(Effect.map(request, resolve)),
      Effect.succeed
    )
    return Object.assign(client, {
      submit: (path: string, fields: Readonly<Record<string, string>> = {}) =>
        client.execute(
          HttpClientRequest.bodyUrlParams(HttpClientRequest.post(path), UrlParams.fromInput({ ...fields }))
        ),
      cookies: Effect.gen(function* () {
        return (yield* Ref.get(jar)).filter(isCurrent(yield* Clock.currentTimeMillis))
      }),
      jar,
      restart: Ref.update(jar, (cookies) => cookies.filter(({ options }) => options?.expires !== undefined)),
      another: Effect.suspend(() => makeBrowser(handler, origin))
    })
  })

/** What routes need from the test: everything that does not come with a request. */
export type Requires<R> =
  | Exclude<HttpRouter.Request.Without<R>, HttpRouter.HttpRouter>
  | Exclude<
      HttpRouter.Request.Only<"Requires", R> | HttpRouter.Request.Only<"GlobalRequires", R>,
      HttpRouter.GlobalProvided
    >

/**
 * Opens a browser on routes: an HTTP client that keeps cookies as a browser does. No server runs.
 *
 * **When to use**: to test what a user does over several requests, such as logging in, coming back, logging out and
 * letting a session expire. To test one handler, {@link layer} is less work.
 *
 * **Details**: the routes use the services of the test: its store, and its clock, so `TestClock.adjust` lets sessions
 * and cookies expire. `another` opens more browsers on the same site, for a second device or a second user.
 *
 * A cookie is sent to its paths and domains only. `Secure`, `__Host-`, `__Secure-` and `SameSite` work as in Chromium:
 * `http://localhost` counts as secure, any other `http:` does not. By default, a request comes from a page of the site.
 * To send one from another site, set the header `sec-fetch-site: cross-site`. The browser then withholds `Strict`
 * cookies, and also `Lax` ones if the request is not a GET.
 *
 * The `cookies` of a response are those that it sets. To read its `Set-Cookie` lines unchanged, use the headers of
 * `HttpClientResponse.toWeb(response)`.
 *
 * **Gotchas**: the browser returns a redirect and does not follow it. To follow redirects, use
 * `HttpClient.followRedirects(browser)`. The browser has no list of public suffixes, and runs no scripts.
 *
 * @example
 * ```ts
 * import { assert, it } from "@effect/vitest"
 * import { Effect, Layer, Schema } from "effect"
 * import { HttpRouter, HttpServerResponse } from "effect/http"
 * import { TestClock } from "effect/testing"
 * import { MemStore, Session } from "effect-sessions"
 * import { HttpSession } from "effect-sessions/http"
 * import { SessionTest } from "effect-sessions/testing"
 *
 * class Visits extends Session.Service<Visits>()("app/Visits", { schema: Schema.Int, initial: () => 0 }) {}
 *
 * const visit = Effect.gen(function* () {
 *   const visits = yield* Visits
 *   yield* visits.update((n) => n + 1)
 *   return HttpServerResponse.text(`Visit number ${yield* visits.get}`)
 * })
 *
 * const Routes = HttpRouter.add("GET", "/", visit).pipe(Layer.provide(HttpSession.middleware(Visits).layer))
 *
 * it.effect("counts the visits of each browser, for a day", () =>
 *   Effect.gen(function* () {
 *     const laptop = yield* SessionTest.browser(Routes)
 *     const phone = yield* laptop.another
 *     yield* laptop.get("/")
 *     assert.strictEqual(yield* (yield* laptop.get("/")).text, "Visit number 2")
 *     assert.strictEqual(yield* (yield* phone.get("/")).text, "Visit number 1")
 *     yield* TestClock.adjust("25 hours")
 *     assert.strictEqual(yield* (yield* laptop.get("/")).text, "Visit number 1")
 *   }).pipe(Effect.provide(MemStore.layer))
 * )
 * ```
 */
export const browser = Effect.fnUntraced(function* <E, R>(
  routes: Layer.Layer<never, E, R>,
  options?: BrowserOptions
): Effect.fn.Return<Browser, HttpRouter.Request.Without<E>, Requires<R> | Scope.Scope> {
  const context = yield* Effect.context<Requires<R>>()
  const app = yield* HttpRouter.toHttpEffect(routes)
  // The compiler cannot see that everything a route requires is in the context or comes with the request.
  const handler = HttpEffect.toWebHandlerWith<never, OfRequest>(context)(app as unknown as AppOfRequests)
  return yield* makeBrowser(handler, options?.origin ?? "https://localhost")
})
