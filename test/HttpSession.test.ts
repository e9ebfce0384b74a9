import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Clock,
  type Context,
  DateTime,
  Deferred,
  Duration,
  Effect,
  Fiber,
  Layer,
  Logger,
  Option,
  Redacted,
  Ref,
  References,
  Schema,
  type Scope,
  Stream
} from "effect"
import { Cookies, HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import {
  HttpApi,
  HttpApiBuilder,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpApiMiddleware,
  HttpApiSecurity,
  OpenApi
} from "effect/http-api"
import { TestClock } from "effect/testing"
import { MemStore, Session, SessionStore, SessionStoreError } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"
import { opener } from "../src/internal/opening.ts"
import { activeFields } from "./session/fixtures.ts"
import { withLog } from "./telemetry.ts"

// Without cleanup: to adjust the clock by days is to wait for thousands of sweeps.
const memory = MemStore.layerWithCleanupInterval(0)

class UserSession extends Session.Service<UserSession>()("test/UserSession", {
  schema: Schema.Struct({
    userId: Schema.optionalKey(Schema.String),
    flash: Schema.optionalKey(Schema.String),
    visits: Schema.Int
  }),
  initial: () => ({ visits: 0 })
}) {}

class IdleSession extends Session.Service<IdleSession>()("test/IdleSession", {
  schema: Schema.Int,
  initial: () => 0,
  idleTimeout: "20 minutes"
}) {}

class CartSession extends Session.Service<CartSession>()("test/CartSession", {
  schema: Schema.Array(Schema.String),
  initial: () => []
}) {}

class NewerSession extends Session.Service<NewerSession>()("test/UserSession", {
  schema: Schema.Struct({ user: Schema.String }),
  initial: () => ({ user: "nobody" })
}) {}

const visit = Effect.gen(function* () {
  const session = yield* UserSession
  yield* session.update((user) => ({ ...user, visits: user.visits + 1 }))
  return HttpServerResponse.text(String((yield* session.get).visits))
})

const logOut = Effect.gen(function* () {
  yield* (yield* UserSession).destroy
  return HttpServerResponse.empty()
})

const read = Effect.gen(function* () {
  const session = yield* UserSession
  return yield* HttpServerResponse.json(yield* session.get)
})

/** A browser, as far as cookies go: keeps what it is sent, by name, and sends it back. */
const makeBrowser = (handler: (request: Request, context: Context.Context<never>) => Promise<Response>) => {
  let jar = Cookies.empty
  const send = Effect.fnUntraced(function* (path: string, init: RequestInit = {}) {
    const headers = new Headers(init.headers)
    if (!headers.has("cookie")) headers.set("cookie", Cookies.toCookieHeader(jar))
    const context = yield* Effect.context<never>()
    const now = yield* Clock.currentTimeMillis
    const response = yield* Effect.promise(() =>
      handler(new Request(new URL(path, "http://localhost"), { ...init, headers }), context)
    )
    const received = Cookies.fromSetCookie(response.headers.getSetCookie())
    for (const cookie of Object.values(received.cookies)) {
      const isOver = cookie.options?.expires !== undefined && cookie.options.expires.getTime() <= now
      jar = isOver ? Cookies.remove(jar, cookie.name) : Cookies.setCookie(jar, cookie)
    }
    return { response, received, text: yield* Effect.promise(() => response.text()) }
  })
  return {
    send,
    get cookies() {
      return Object.fromEntries(Object.values(jar.cookies).map(({ name, value }) => [name, value]))
    },
    set cookies(cookies: Record<string, string>) {
      jar = Cookies.fromIterable(Object.entries(cookies).map(([name, value]) => Cookies.makeCookieUnsafe(name, value)))
    }
  }
}

type Handler = Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  unknown,
  UserSession | SessionStore | HttpRouter.Provided
>

/** Routes by path, each with a session, for every method. */
const routes = (handlers: Record<`/${string}`, Handler>, options?: HttpSession.Options) =>
  Layer.mergeAll(
    Layer.empty,
    ...Object.entries(handlers).map(([path, handler]) => HttpRouter.add("*", path as `/${string}`, handler))
  ).pipe(Layer.provide(HttpSession.middleware(UserSession, options).layer))

/** Serves routes on the store of the test, or on another, and returns a first browser and a way to further ones. */
const serve = Effect.fnUntraced(function* <E>(
  layer: Layer.Layer<never, E, HttpRouter.HttpRouter | SessionStore | HttpRouter.Request<"Error", unknown>>,
  store?: SessionStore["Service"]
) {
  const provided = Layer.succeed(SessionStore, store ?? (yield* SessionStore))
  const { handler } = yield* Effect.acquireRelease(
    Effect.sync(() => HttpRouter.toWebHandler(Layer.provide(layer, provided), { disableLogger: true })),
    ({ dispose }) => Effect.promise(dispose)
  )
  return Object.assign(makeBrowser(handler), { another: () => makeBrowser(handler) })
})

const test =
  <A, E>(effect: () => Effect.Effect<A, E, SessionStore | MemStore | Scope.Scope>) =>
  () =>
    Effect.provide(effect(), memory)

const down = (operation: "find" | "create" | "replace") => () =>
  Effect.fail(new SessionStoreError({ operation, cause: new Error("the cable is out") }))

const silent = Effect.provide(Logger.layer([]))

const malformed = [
  "",
  "token",
  "a".repeat(10_000),
  "a\tb",
  "%00%01",
  "%ff",
  "%F0%9F%8E%88",
  '"',
  "=",
  "é".repeat(43),
  "__proto__"
]

describe("HttpSession", () => {
  describe("middleware", () => {
    it.effect(
      "gives routes a session that lasts from request to request",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* serve(routes({ "/visit": visit }))
          for (const count of ["1", "2", "3"]) assert.strictEqual((yield* browser.send("/visit")).text, count)
          assert.strictEqual((yield* browser.another().send("/visit")).text, "1")
        })
      )
    )

    it.effect(
      "leaves routes alone that it is not provided to",
      test(() =>
        Effect.gen(function* () {
          const plain = HttpRouter.add("GET", "/plain", HttpServerResponse.text("plain"))
          const browser = yield* serve(Layer.merge(plain, routes({ "/visit": visit })))
          const { response } = yield* browser.send("/plain")
          assert.strictEqual(response.headers.get("vary"), null)
        })
      )
    )

    it.effect(
      "ends a session with its lifetime",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* serve(routes({ "/visit": visit }))
          yield* browser.send("/visit")
          const { cookies } = browser
          yield* TestClock.adjust("24 hours")
          assert.strictEqual((yield* browser.send("/visit")).text, "2")
          yield* TestClock.adjust("1 millis")
          browser.cookies = cookies
          assert.strictEqual((yield* browser.send("/visit")).text, "1")
        })
      )
    )

    it.effect(
      "moves an idle timeout on with every request, and the cookie with it",
      test(() =>
        Effect.gen(function* () {
          const layer = HttpRouter.add(
            "GET",
            "/",
            Effect.gen(function* () {
              const session = yield* IdleSession
              if ((yield* session.get) === 0) yield* session.set(1)
              return HttpServerResponse.empty()
            })
          ).pipe(Layer.provide(HttpSession.middleware(IdleSession).layer))
          const browser = yield* serve(layer)
          for (let i = 0; i < 5; i++) {
            const { received } = yield* browser.send("/")
            assert.deepStrictEqual(received.cookies.session?.options?.maxAge, Duration.minutes(20))
            yield* TestClock.adjust("20 minutes")
          }
          assert.strictEqual(yield* (yield* MemStore).size, 1)
        })
      )
    )

    it.effect(
      "has two sessions with two cookies side by side",
      test(() =>
        Effect.gen(function* () {
          const layer = HttpRouter.add(
            "GET",
            "/",
            Effect.gen(function* () {
              const cart = yield* CartSession
              yield* cart.update((items) => [...items, "apple"])
              const visits = yield* visit
              return HttpServerResponse.setHeader(visits, "x-cart", String((yield* cart.get).length))
            })
          ).pipe(
            Layer.provide([
              HttpSession.middleware(UserSession).layer,
              HttpSession.middleware(CartSession, { cookie: { name: "cart" } }).layer
            ])
          )
          const browser = yield* serve(layer)
          const { headers } = (yield* browser.send("/")).response
          assert.strictEqual(headers.get("cache-control"), 'no-cache="Set-Cookie"')
          assert.strictEqual(headers.get("vary"), "Cookie")
          assert.sameMembers(Object.keys(browser.cookies), ["session", "cart"])
          const { response, text } = yield* browser.send("/")
          assert.strictEqual(text, "2")
          assert.strictEqual(response.headers.get("x-cart"), "2")
          browser.cookies = { session: browser.cookies.cart ?? "", cart: browser.cookies.session ?? "" }
          assert.strictEqual((yield* browser.send("/")).text, "1")
        })
      )
    )

    for (const [what, cookie, message] of [
      ["an empty name", { name: "" }, "no valid name"],
      ["a name with a space", { name: "my session" }, "no valid name"],
      ["a name with a separator", { name: "a;b" }, "no valid name"],
      ["a name with a control character", { name: "a\n" }, "no valid name"],
      ["a domain with a separator", { domain: "example.com; Secure" }, "no valid domain"],
      ["an empty domain", { domain: "" }, "no valid domain"],
      ["a domain that is a URL", { domain: "https://example.com" }, "no valid domain"],
      ["a path with a separator", { path: "/;" }, "no valid path"],
      ["a path that is not absolute", { path: "admin" }, "no valid path"],
      ["__Host- without secure", { name: "__Host-id", secure: false }, "demands secure: true"],
      ["__Host- with a path", { name: "__Host-id", path: "/admin" }, 'demands path: "/"'],
      ["__Host- with a domain", { name: "__Host-id", domain: "example.com" }, "demands no domain"],
      ["__host- with a domain", { name: "__host-id", domain: "example.com" }, "demands no domain"],
      ["__Secure- without secure", { name: "__Secure-id", secure: false }, "demands secure: true"],
      ["SameSite=None without secure", { sameSite: "none", secure: false }, "needs secure: true"],
      ["partitioned without secure", { partitioned: true, secure: false }, "needs secure: true"]
    ] as const) {
      it(`refuses ${what}, with a message that says why`, () => {
        assert.throws(() => HttpSession.middleware(UserSession, { cookie }), TypeError, message)
      })
    }

    for (const cookie of [
      { name: "__Host-id" },
      { name: "__Secure-id", domain: "example.com", path: "/admin" },
      { domain: ".example.com", secure: false },
      { domain: "shop.app.example.com" },
      { name: "my__Host-id", domain: "example.com", path: "/admin", secure: false },
      { sameSite: "none", partitioned: true },
      { name: undefined, path: undefined, secure: undefined, sameSite: undefined }
    ] as const) {
      it.effect(
        `takes ${JSON.stringify(cookie)}`,
        test(() => Layer.build(Layer.provide(HttpSession.middleware(UserSession, { cookie }).layer, memory)))
      )
    }
  })

  describe("the cookie", () => {
    it.effect(
      "is not set for a visitor who only reads, who costs the store nothing",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* serve(routes({ "/": read }))
          const { response } = yield* browser.send("/")
          assert.deepStrictEqual(response.headers.getSetCookie(), [])
          assert.strictEqual(response.headers.get("cache-control"), null)
          assert.strictEqual(response.headers.get("vary"), "Cookie")
          assert.strictEqual(yield* (yield* MemStore).size, 0)
        })
      )
    )

    it.effect(
      "is set with the first change, with secure defaults",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* serve(routes({ "/visit": visit }))
          const { response } = yield* browser.send("/visit")
          const [cookie, ...others] = response.headers.getSetCookie()
          assert.deepStrictEqual(others, [])
          assert.match(
            cookie ?? "",
            /^session=[\w-]{43}; Max-Age=86400; Path=\/; Expires=Fri, 02 Jan 1970 00:00:00 GMT; HttpOnly; Secure; SameSite=Lax$/
          )
          assert.strictEqual(response.headers.get("cache-control"), 'no-cache="Set-Cookie"')
          assert.strictEqual(response.headers.get("vary"), "Cookie")
        })
      )
    )

    it.effect(
      "is not set again where neither token nor expiry is new",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* serve(routes({ "/visit": visit, "/": read }))
          yield* browser.send("/visit")
          for (const path of ["/visit", "/", "/visit"]) {
            const { response } = yield* browser.send(path)
            assert.deepStrictEqual(response.headers.getSetCookie(), [])
            assert.strictEqual(response.headers.get("cache-control"), null)
          }
        })
      )
    )

    it.effect(
      "is set also where the handler has committed the session itself",
      test(() =>
        Effect.gen(function* () {
          const commit = Effect.tap(visit, () => UserSession.use((session) => session.commit))
          const browser = yield* serve(routes({ "/": commit }))
          yield* browser.send("/")
          assert.strictEqual((yield* browser.send("/")).text, "2")
        })
      )
    )

    it.effect(
      "has Max-Age and Expires rounded up to the second",
      test(() =>
        Effect.gen(function* () {
          const until = (millis: number) =>
            Effect.gen(function* () {
              const session = yield* UserSession
              yield* session.setDeadline(DateTime.makeUnsafe(millis))
              return HttpServerResponse.empty()
            })
          const browser = yield* serve(routes({ "/1": until(61_001), "/2": until(61_000), "/3": until(0) }))
          yield* TestClock.adjust("500 millis")
          const options = function* (path: string) {
            const { received } = yield* browser.send(path)
            return received.cookies.session?.options
          }
          const first = yield* Effect.gen(() => options("/1"))
          assert.deepStrictEqual(first?.maxAge, Duration.seconds(61))
          assert.deepStrictEqual(first?.expires, new Date(62_000))
          const second = yield* Effect.gen(() => options("/2"))
          assert.deepStrictEqual(second?.maxAge, Duration.seconds(61))
          assert.deepStrictEqual(second?.expires, new Date(61_000))
          const third = yield* Effect.gen(() => options("/3"))
          assert.deepStrictEqual(third?.maxAge, Duration.zero)
        })
      )
    )

    it.effect(
      "lasts as long as the browser where persist is off, but for a session that is remembered",
      test(() =>
        Effect.gen(function* () {
          const remember = (rememberMe: boolean) =>
            Effect.gen(function* () {
              yield* (yield* UserSession).setRememberMe(rememberMe)
              return HttpServerResponse.empty()
            })
          const browser = yield* serve(
            routes({ "/visit": visit, "/yes": remember(true), "/no": remember(false) }, { cookie: { persist: false } })
          )
          const lifetimeOf = Effect.fnUntraced(function* (path: string) {
            const cookie = (yield* browser.send(path)).received.cookies.session
            return cookie === undefined ? "no cookie" : (cookie.options?.maxAge ?? "browser session")
          })
          assert.strictEqual(yield* lifetimeOf("/visit"), "browser session")
          assert.strictEqual(yield* lifetimeOf("/visit"), "no cookie")
          assert.strictEqual(yield* lifetimeOf("/no"), "no cookie")
          assert.deepStrictEqual(yield* lifetimeOf("/yes"), Duration.hours(24))
          assert.strictEqual(yield* lifetimeOf("/visit"), "no cookie")
          assert.strictEqual(yield* lifetimeOf("/no"), "browser session")
        })
      )
    )

    it.effect(
      "is not set again for a browser session whose expiry alone is new",
      test(() =>
        Effect.gen(function* () {
          const touch = Effect.gen(function* () {
            yield* (yield* IdleSession).update((n) => n + 1)
            return HttpServerResponse.empty()
          })
          const middleware = HttpSession.middleware(IdleSession, { cookie: { persist: false } })
          const browser = yield* serve(HttpRouter.add("GET", "/", touch).pipe(Layer.provide(middleware.layer)))
          assert.lengthOf((yield* browser.send("/")).response.headers.getSetCookie(), 1)
          yield* TestClock.adjust("10 minutes")
          assert.lengthOf((yield* browser.send("/")).response.headers.getSetCookie(), 0)
        })
      )
    )

    it.effect(
      "has the options that it was given, also when it expires",
      test(() =>
        Effect.gen(function* () {
          const cookie = {
            name: "__Secure-id",
            domain: "example.com",
            path: "/app",
            httpOnly: false,
            sameSite: "strict",
            partitioned: true
          } as const
          const browser = yield* serve(routes({ "/app": visit, "/app/log-out": logOut }, { cookie }))
          const attributes = "Domain=example.com; Path=/app;"
          const flags = "Secure; Partitioned; SameSite=Strict"
          const [set] = (yield* browser.send("/app")).response.headers.getSetCookie()
          assert.match(set ?? "", new RegExp(`^__Secure-id=[\\w-]{43}; Max-Age=86400; ${attributes} .*${flags}$`))
          const { response } = yield* browser.send("/app/log-out")
          assert.deepStrictEqual(response.headers.getSetCookie(), [
            `__Secure-id=; Max-Age=0; ${attributes} Expires=Thu, 01 Jan 1970 00:00:00 GMT; ${flags}`
          ])
          assert.strictEqual(response.headers.get("cache-control"), 'no-cache="Set-Cookie"')
          assert.deepStrictEqual(browser.cookies, {})
        })
      )
    )

    it.effect(
      "is expired also where the handler then changed nothing in the new session",
      test(() =>
        Effect.gen(function* () {
          const logOut = Effect.gen(function* () {
            const session = yield* UserSession
            yield* session.destroy
            yield* session.modify(({ flash, ...user }) => [flash, user])
            return HttpServerResponse.empty()
          })
          const browser = yield* serve(routes({ "/visit": visit, "/log-out": logOut }))
          yield* browser.send("/visit")
          yield* browser.send("/log-out")
          assert.deepStrictEqual(browser.cookies, {})
        })
      )
    )

    it.effect(
      "is not expired for a visitor who sent none",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* serve(routes({ "/": logOut }))
          assert.deepStrictEqual((yield* browser.send("/")).response.headers.getSetCookie(), [])
          browser.cookies = { session: "unknown" }
          assert.lengthOf((yield* browser.send("/")).response.headers.getSetCookie(), 1)
        })
      )
    )

    it.effect(
      "keeps what the application says of caching",
      test(() =>
        Effect.gen(function* () {
          const withHeaders = (headers: Record<string, string>) =>
            Effect.map(visit, (response) => HttpServerResponse.setHeaders(response, headers))
          const browser = yield* serve(
            routes({
              "/1": withHeaders({ vary: "Accept-Encoding", "cache-control": "private" }),
              "/2": withHeaders({ vary: "Accept, cookie", "cache-control": "no-store" }),
              "/3": withHeaders({ vary: "*" }),
              "/4": withHeaders({ vary: "X-Cookie-Consent", "cache-control": "no-transform" }),
              "/5": withHeaders({ vary: "X-Cookie, Cookies", "cache-control": "x-no-store, no-stored" }),
              "/6": withHeaders({ "cache-control": 'x-no-cache="Set-Cookie", no-cache="Set-Cookie"x' })
            })
          )
          const headersOf = Effect.fnUntraced(function* (path: string) {
            const { headers } = (yield* browser.another().send(path)).response
            return [headers.get("vary"), headers.get("cache-control")]
          })
          assert.deepStrictEqual(yield* headersOf("/1"), ["Accept-Encoding, Cookie", 'private, no-cache="Set-Cookie"'])
          assert.deepStrictEqual(yield* headersOf("/2"), ["Accept, cookie", "no-store"])
          assert.deepStrictEqual(yield* headersOf("/3"), ["*", 'no-cache="Set-Cookie"'])
          assert.deepStrictEqual(yield* headersOf("/4"), [
            "X-Cookie-Consent, Cookie",
            'no-transform, no-cache="Set-Cookie"'
          ])
          assert.deepStrictEqual(yield* headersOf("/5"), [
            "X-Cookie, Cookies, Cookie",
            'x-no-store, no-stored, no-cache="Set-Cookie"'
          ])
          assert.deepStrictEqual(yield* headersOf("/6"), [
            "Cookie",
            'x-no-cache="Set-Cookie", no-cache="Set-Cookie"x, no-cache="Set-Cookie"'
          ])
        })
      )
    )

    it.effect(
      "that is secure is warned of, once, where it is set over plain HTTP and not on localhost",
      test(() =>
        withLog((logged) =>
          Effect.gen(function* () {
            const browser = yield* serve(routes({ "/visit": visit, "/": read }))
            const lenient = yield* serve(routes({ "/visit": visit }, { cookie: { secure: false } }))
            for (const origin of [
              "http://localhost",
              "http://app.localhost:3000",
              "http://127.0.0.1",
              "http://[::1]:80"
            ]) {
              yield* browser.another().send(`${origin}/visit`)
            }
            yield* browser.another().send("https://example.com/visit")
            yield* browser.another().send("http://example.com/")
            yield* browser.another().send("http://example.com/visit", { headers: { "x-forwarded-proto": "https" } })
            yield* browser
              .another()
              .send("http://example.com/visit", { headers: { forwarded: "for=1.2.3.4;proto=https" } })
            yield* lenient.send("http://example.com/visit")
            assert.deepStrictEqual(logged, [])
            for (let i = 0; i < 2; i++) yield* browser.another().send("http://localhost.example.com/visit")
            assert.lengthOf(logged, 1)
            assert.match(String(logged[0]), /^Warn: test\/UserSession: a secure cookie was set over plain HTTP/)
          })
        )
      )
    )

    for (const value of malformed) {
      it.effect(
        `opens a new session where it is ${JSON.stringify(value.slice(0, 20))}`,
        test(() =>
          Effect.gen(function* () {
            const browser = yield* serve(routes({ "/visit": visit }))
            const header = Buffer.from(`session=${value}`).toString("latin1")
            const { received, response, text } = yield* browser.send("/visit", { headers: { cookie: header } })
            assert.strictEqual(response.status, 200)
            assert.strictEqual(text, "1")
            assert.match(received.cookies.session?.value ?? "", /^[\w-]{43}$/)
          })
        )
      )
    }

    it.effect(
      "is found among others, with spaces, tabs and quotes around it, and under no other name",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* serve(routes({ "/": read, "/visit": visit }))
          yield* browser.send("/visit")
          const token = browser.cookies.session ?? ""
          const encoded = `%${token.charCodeAt(0).toString(16)}${token.slice(1)}`
          for (const [cookie, visits] of [
            [`a=b;session=${token};c`, 1],
            [`session=${token}`, 1],
            [`; ;session=${token};`, 1],
            [`a; \t session \t = \t ${token} \t ; b=c`, 1],
            [`xsession=a; session=${token}`, 1],
            [`a=session; session=${token}`, 1],
            [`session; session=${token}`, 1],
            [`session="${token}"`, 1],
            [`session="${token}`, 0],
            [`session=""${token}""`, 0],
            [`session=${encoded}`, 0],
            [`session=${token}x`, 0],
            [`session=x${token}`, 0],
            [`session=${token} x`, 0],
            [`session==${token}`, 0],
            [`=session=${token}`, 0],
            [`Session=${token}`, 0],
            [`xsession=${token}`, 0],
            [`sessionx=${token}`, 0],
            [`x session=${token}`, 0],
            [`session x=${token}`, 0],
            [`a=b, session=${token}`, 0],
            [`\xa0session=${token}`, 0],
            [`a=b;\xa0session=${token}`, 0],
            [`session\xa0=${token}`, 0],
            [`session=\xa0${token}`, 0],
            [`session=${token}\xa0`, 0],
            [`\fsession=${token}`, 0]
          ] as const) {
            const { text } = yield* browser.send("/", { headers: { cookie } })
            assert.deepStrictEqual(JSON.parse(text), { visits }, cookie)
          }
        })
      )
    )

    it.effect(
      "is read without a look at the rest of the header, which may be hostile",
      test(() =>
        Effect.gen(function* () {
          const unread = HttpRouter.middleware(
            (route) =>
              Effect.tap(HttpServerRequest.HttpServerRequest, (request) =>
                Effect.sync(() =>
                  Object.defineProperty(request, "cookies", { get: () => assert.fail("all cookies were decoded") })
                )
              ).pipe(Effect.andThen(route)),
            { global: true }
          )
          const layer = Layer.provide(routes({ "/": read, "/visit": visit, "/log-out": logOut }), unread)
          const browser = yield* serve(layer)
          yield* browser.send("/visit")
          const cookie = `${"a=%;".repeat(3400)}session=${browser.cookies.session}`
          assert.deepStrictEqual(JSON.parse((yield* browser.send("/", { headers: { cookie } })).text), { visits: 1 })
          const { response } = yield* browser.send("/log-out", { headers: { cookie } })
          assert.lengthOf(response.headers.getSetCookie(), 1)
        })
      )
    )

    it.effect(
      "that is there several times counts by the first that opens a session",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* serve(routes({ "/": read, "/visit": visit }))
          yield* browser.send("/visit")
          const token = browser.cookies.session ?? ""
          const other = browser.another()
          yield* Effect.replicateEffect(other.send("/visit"), 2)
          const another = other.cookies.session ?? ""
          const unknown = (letter: string) => `session=${letter.repeat(43)}`
          for (const [cookies, visits] of [
            [[`session=${token}`, "session=garbage"], 1],
            [["session=garbage", `session=${token}`], 1],
            [[unknown("a"), `session=${token}`], 1],
            [[`session=${token}`, `session=${another}`], 1],
            [[`session=${another}`, `session=${token}`], 2],
            [[...Array(100).fill("session=garbage"), `session=${token}`], 1],
            [[...Array(100).fill(unknown("a")), `session=${token}`], 1],
            [[unknown("a"), unknown("b"), unknown("c"), `session=${token}`], 1],
            // Each may cost a look-up, hence the bound.
            [[unknown("a"), unknown("b"), unknown("c"), unknown("d"), `session=${token}`], 0]
          ] as const) {
            const { response, text } = yield* browser.send("/", { headers: { cookie: cookies.join("; ") } })
            assert.deepStrictEqual(JSON.parse(text), { visits })
            assert.deepStrictEqual(response.headers.getSetCookie(), [])
          }
        })
      )
    )

    it.effect(
      "that is there several times is looked up no more often than it takes",
      test(() =>
        Effect.gen(function* () {
          const store = yield* SessionStore
          let finds = 0
          const find = (token: string) =>
            Effect.suspend(() => {
              finds++
              return store.find(token)
            })
          const counting = { ...store, find }
          const browser = yield* serve(routes({ "/": read, "/visit": visit }), counting)
          yield* browser.send("/visit")
          const { session = "" } = browser.cookies
          for (const [tokens, expected] of [
            [["garbage"], 0],
            [[session], 1],
            [[session, "a".repeat(43)], 1],
            [["a".repeat(43), "a".repeat(43)], 1],
            [["a".repeat(43), session, "b".repeat(43)], 2],
            [["a", "b", "c", "d", "e", "f"].map((letter) => letter.repeat(43)), 4]
          ] as const) {
            finds = 0
            yield* browser.send("/", { headers: { cookie: tokens.map((token) => `session=${token}`).join("; ") } })
            assert.strictEqual(finds, expected)
          }
        })
      )
    )

    it.effect(
      "that is there several times: a change goes to the session that opened, and a log-out ends every one",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* serve(routes({ "/": read, "/visit": visit, "/log-out": logOut }))
          const [first, second, apart] = [browser.another(), browser.another(), browser.another()]
          for (const each of [first, second, apart]) yield* each.send("/visit")
          const cookie = [first, second].map(({ cookies }) => `session=${cookies.session}`).join("; ")
          const { response, text } = yield* browser.send("/visit", {
            headers: { cookie: `session=garbage; ${cookie}` }
          })
          assert.strictEqual(text, "2")
          assert.deepStrictEqual(response.headers.getSetCookie(), [])
          assert.deepStrictEqual(JSON.parse((yield* second.send("/")).text), { visits: 1 })

          const { received } = yield* browser.send("/log-out", { headers: { cookie: `session=garbage; ${cookie}` } })
          assert.deepStrictEqual(received.cookies.session?.options?.maxAge, Duration.zero)
          for (const each of [first, second]) {
            assert.deepStrictEqual(JSON.parse((yield* each.send("/")).text), { visits: 0 })
          }
          assert.deepStrictEqual(JSON.parse((yield* apart.send("/")).text), { visits: 1 })
          assert.strictEqual((yield* activeFields).length, 1)
        })
      )
    )

    it.effect(
      "that is there several times: a log-out that cannot end one of them fails, and can be tried again",
      test(() =>
        Effect.gen(function* () {
          const store = yield* SessionStore
          // The key whose session cannot be ended.
          let stuck = ""
          const replace: typeof store.replace = (token, ...all) =>
            token === stuck ? down("replace")() : store.replace(token, ...all)
          const failing = { ...store, replace }
          const browser = yield* serve(routes({ "/": read, "/visit": visit, "/log-out": logOut }), failing)
          const other = browser.another()
          for (const each of [browser, other]) yield* each.send("/visit")
          const cookie = [browser, other].map(({ cookies }) => `session=${cookies.session}`).join("; ")
          const opened = yield* UserSession.open(Redacted.make(other.cookies.session ?? ""))
          stuck = Option.getOrThrow(yield* opened.id)
          const { response } = yield* browser.send("/log-out", { headers: { cookie } })
          assert.strictEqual(response.status, 500)
          assert.deepStrictEqual(response.headers.getSetCookie(), [])
          assert.deepStrictEqual(JSON.parse((yield* browser.send("/")).text), { visits: 1 })
          stuck = ""
          yield* browser.send("/log-out", { headers: { cookie } })
          assert.strictEqual((yield* activeFields).length, 0)
        }).pipe(silent)
      )
    )

    it.effect(
      "has the priority that it was given",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* serve(routes({ "/": visit }, { cookie: { priority: "high" } }))
          assert.include((yield* browser.send("/")).response.headers.getSetCookie()[0], "; Priority=High;")
        })
      )
    )

    it.effect(
      "is removed with all else that the browser keeps, if the application says so",
      test(() =>
        Effect.gen(function* () {
          const farewell = Effect.tap(logOut, () => visit)
          const handlers = { "/": read, "/visit": visit, "/log-out": logOut, "/farewell": farewell }
          const browser = yield* serve(routes(handlers, { clearSiteData: true }))
          const cleared = Effect.fnUntraced(function* (path: string) {
            return (yield* browser.send(path)).response.headers.get("clear-site-data")
          })
          // Not without a cookie to remove, nor with another one to set.
          for (const path of ["/log-out", "/", "/visit", "/visit", "/farewell"]) {
            assert.isNull(yield* cleared(path), path)
          }
          assert.strictEqual(yield* cleared("/log-out"), '"cache", "cookies", "storage"')
          const plain = yield* serve(routes({ "/visit": visit, "/log-out": logOut }))
          yield* plain.send("/visit")
          assert.isNull((yield* plain.send("/log-out")).response.headers.get("clear-site-data"))
        })
      )
    )

    it.effect(
      "is not set again for a session that is remembered, where it lasts as long either way",
      test(() =>
        Effect.gen(function* () {
          const remember = Effect.gen(function* () {
            yield* (yield* UserSession).setRememberMe(true)
            return HttpServerResponse.empty()
          })
          const browser = yield* serve(routes({ "/visit": visit, "/remember": remember }))
          yield* browser.send("/visit")
          assert.deepStrictEqual((yield* browser.send("/remember")).response.headers.getSetCookie(), [])
        })
      )
    )

    it.effect(
      "is redacted where a handler prints what it opened",
      test(() =>
        Effect.gen(function* () {
          const print = Effect.gen(function* () {
            return HttpServerResponse.text(String(yield* (yield* UserSession).token))
          })
          const browser = yield* serve(routes({ "/visit": visit, "/print": print }))
          yield* browser.send("/visit")
          assert.strictEqual((yield* browser.send("/print")).text, "some(<redacted:session token>)")
        })
      )
    )

    for (const [origin, warnings] of [
      ["http://127.10.200.30:3000", 0],
      ["https://example.com/?from=http://example.com", 0],
      ["http://mylocalhost", 1],
      ["http://localhost.example.com", 1],
      ["http://127.0.0.1.example.com", 1],
      ["http://[::2]", 1]
    ] as const) {
      it.effect(
        `that is secure is ${warnings === 0 ? "not " : ""}warned of on ${origin}`,
        test(() => {
          const logged: Array<string> = []
          const logger = Logger.make(({ message }) => void logged.push(String(message)))
          return Effect.gen(function* () {
            yield* (yield* serve(routes({ "/": visit }))).send(origin)
            assert.lengthOf(logged, warnings)
            // What there is to do about it.
            for (const message of logged) {
              for (const way of ["HTTPS", "http://localhost", "secure: false", "X-Forwarded-Proto"]) {
                assert.include(message, way)
              }
            }
          }).pipe(Effect.provide(Logger.layer([logger])))
        })
      )
    }
  })

  describe("a log-in", () => {
    const logIn = Effect.gen(function* () {
      const session = yield* UserSession
      yield* session.renewToken
      yield* session.update((user) => ({ ...user, userId: "ada" }))
      return HttpServerResponse.redirect("/", { status: 303 })
    })

    it.effect(
      "renews the token, so that one planted before it is worth nothing after it",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* serve(routes({ "/": read, "/visit": visit, "/log-in": logIn }))
          const attacker = browser.another()
          yield* attacker.send("/visit")
          browser.cookies = attacker.cookies
          yield* browser.send("/log-in")
          assert.notStrictEqual(browser.cookies.session, attacker.cookies.session)
          assert.deepStrictEqual(JSON.parse((yield* browser.send("/")).text), { userId: "ada", visits: 1 })
          assert.deepStrictEqual(JSON.parse((yield* attacker.send("/")).text), { visits: 0 })
        })
      )
    )

    it.effect(
      "never adopts a token of the client's choosing",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* serve(routes({ "/": read, "/log-in": logIn }))
          const chosen = { session: "a".repeat(43) }
          browser.cookies = chosen
          yield* browser.send("/log-in")
          assert.notStrictEqual(browser.cookies.session, chosen.session)
          browser.cookies = chosen
          assert.deepStrictEqual(JSON.parse((yield* browser.send("/")).text), { visits: 0 })
        })
      )
    )
  })

  describe("a flash message", () => {
    it.effect(
      "is shown once",
      test(() =>
        Effect.gen(function* () {
          const set = Effect.gen(function* () {
            yield* (yield* UserSession).update((user) => ({ ...user, flash: "saved" }))
            return HttpServerResponse.empty()
          })
          const show = Effect.gen(function* () {
            const flash = yield* (yield* UserSession).modify(({ flash, ...user }) => [flash, user])
            return HttpServerResponse.text(flash ?? "nothing")
          })
          const browser = yield* serve(routes({ "/set": set, "/show": show }))
          yield* browser.send("/set")
          assert.strictEqual((yield* browser.send("/show")).text, "saved")
          assert.strictEqual((yield* browser.send("/show")).text, "nothing")
        })
      )
    )
  })

  describe("a lost cookie", () => {
    it.effect(
      "is made good by merging the session that it named",
      test(() =>
        Effect.gen(function* () {
          const merge = Effect.gen(function* () {
            const session = yield* UserSession
            const { headers } = yield* HttpServerRequest.HttpServerRequest
            yield* session.merge(Redacted.make(headers["x-token"] ?? ""), (mine, other) => ({
              ...other,
              visits: mine.visits + other.visits
            }))
            return HttpServerResponse.empty()
          })
          const browser = yield* serve(routes({ "/": read, "/visit": visit, "/merge": merge }))
          const before = browser.another()
          yield* before.send("/visit")
          yield* browser.send("/visit")
          yield* browser.send("/merge", { headers: { "x-token": before.cookies.session ?? "" } })
          assert.deepStrictEqual(JSON.parse((yield* browser.send("/")).text), { visits: 2 })
          assert.deepStrictEqual(JSON.parse((yield* before.send("/")).text), { visits: 0 })
        })
      )
    )
  })

  describe("logging out everywhere", () => {
    it.effect(
      "ends every session of a user and no other",
      test(() =>
        Effect.gen(function* () {
          const logIn = Effect.gen(function* () {
            const { headers } = yield* HttpServerRequest.HttpServerRequest
            yield* (yield* UserSession).set({ userId: headers["x-user"] ?? "", visits: 0 })
            return HttpServerResponse.empty()
          })
          const logOut = Effect.gen(function* () {
            const session = yield* UserSession
            const { userId } = yield* session.get
            yield* Stream.runForEach(UserSession.sessions, (other) =>
              Effect.flatMap(other.get, (user) => (user.userId === userId ? other.destroy : Effect.void))
            )
            yield* session.destroy
            return HttpServerResponse.empty()
          })
          const browser = yield* serve(routes({ "/": read, "/log-in": logIn, "/log-out": logOut }))
          const [phone, other] = [browser.another(), browser.another()]
          for (const it of [browser, phone]) yield* it.send("/log-in", { headers: { "x-user": "ada" } })
          yield* other.send("/log-in", { headers: { "x-user": "grace" } })
          yield* browser.send("/log-out")
          assert.deepStrictEqual(browser.cookies, {})
          assert.deepStrictEqual(JSON.parse((yield* phone.send("/")).text), { visits: 0 })
          assert.deepStrictEqual(JSON.parse((yield* other.send("/")).text), { userId: "grace", visits: 0 })
        })
      )
    )
  })

  describe("a response", () => {
    for (const [what, handler, status] of [
      ["a redirect", Effect.as(visit, HttpServerResponse.redirect("/", { status: 303 })), 303],
      ["an error of the handler's", Effect.andThen(visit, Effect.fail("wrong password")), 500],
      [
        "an error that is a response",
        Effect.andThen(visit, Effect.fail(HttpServerResponse.empty({ status: 401 }))),
        401
      ],
      [
        "a response that was died with",
        Effect.andThen(visit, Effect.die(HttpServerResponse.empty({ status: 403 }))),
        403
      ]
    ] as const) {
      it.effect(
        `that is ${what} commits the session and sets the cookie`,
        test(() =>
          Effect.gen(function* () {
            const browser = yield* serve(routes({ "/": read, "/visit": handler }))
            const { response } = yield* browser.send("/visit")
            assert.strictEqual(response.status, status)
            assert.strictEqual(response.headers.get("vary"), "Cookie")
            assert.deepStrictEqual(JSON.parse((yield* browser.send("/")).text), { visits: 1 })
          }).pipe(silent)
        )
      )
    }

    it.effect(
      "to HEAD, and one without a body, sets the cookie too",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* serve(routes({ "/": visit, "/empty": Effect.as(visit, HttpServerResponse.empty()) }))
          assert.lengthOf((yield* browser.send("/", { method: "HEAD" })).response.headers.getSetCookie(), 1)
          assert.lengthOf((yield* browser.another().send("/empty")).response.headers.getSetCookie(), 1)
        })
      )
    )

    it.effect(
      "that streams sets the cookie before its body, whose later changes have to be committed by hand",
      test(() =>
        Effect.gen(function* () {
          const stream = (isCommitted: boolean) =>
            Effect.gen(function* () {
              const session = yield* UserSession
              yield* session.update((user) => ({ ...user, visits: 1 }))
              // A Fetch handler runs the body without the context of the request, so that the clock has to be handed on.
              const late = Effect.gen(function* () {
                yield* session.update((user) => ({ ...user, visits: user.visits + 10 }))
                if (isCommitted) yield* session.commit
                return new TextEncoder().encode("late")
              }).pipe(Effect.provideService(Clock.Clock, yield* Clock.Clock))
              return HttpServerResponse.stream(
                Stream.concat(Stream.make(new TextEncoder().encode("early ")), Stream.fromEffect(Effect.orDie(late)))
              )
            })
          const browser = yield* serve(routes({ "/": read, "/lost": stream(false), "/saved": stream(true) }))
          assert.strictEqual((yield* browser.send("/lost")).text, "early late")
          assert.deepStrictEqual(JSON.parse((yield* browser.send("/")).text), { visits: 1 })
          assert.strictEqual((yield* browser.send("/saved")).text, "early late")
          assert.deepStrictEqual(JSON.parse((yield* browser.send("/")).text), { visits: 11 })
        })
      )
    )

    it.effect(
      "to a defect commits nothing and sets no cookie",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* serve(
            routes({ "/": read, "/visit": visit, "/die": Effect.andThen(visit, Effect.die("bug")) })
          )
          const { response } = yield* browser.send("/die")
          assert.strictEqual(response.status, 500)
          assert.strictEqual(response.headers.get("vary"), "Cookie")
          assert.deepStrictEqual(browser.cookies, {})
          yield* browser.send("/visit")
          yield* browser.send("/die")
          assert.deepStrictEqual(JSON.parse((yield* browser.send("/")).text), { visits: 1 })
        }).pipe(silent)
      )
    )

    it.effect(
      "that the client did not wait for commits nothing",
      test(() =>
        Effect.gen(function* () {
          const started = yield* Deferred.make<void>()
          const hang = visit.pipe(Effect.andThen(Deferred.succeed(started, undefined)), Effect.andThen(Effect.never))
          const browser = yield* serve(routes({ "/": hang }))
          const fiber = yield* Effect.abortSignal.pipe(
            Effect.flatMap((signal) => Effect.forkChild(browser.send("/", { signal }))),
            Effect.tap(() => Deferred.await(started)),
            Effect.scoped
          )
          const { response } = yield* Fiber.join(fiber)
          assert.strictEqual(response.status, 499)
          assert.deepStrictEqual(response.headers.getSetCookie(), [])
          assert.strictEqual(yield* (yield* MemStore).size, 0)
        }).pipe(silent)
      )
    )

    it.effect(
      "of a route that a middleware runs again commits what the last run did, and nothing of those that failed",
      test(() =>
        Effect.gen(function* () {
          let runs = 0
          const flaky = Effect.filterOrFail(
            visit,
            () => ++runs % 3 === 0,
            () => "busy"
          )
          const retry = HttpRouter.middleware((route) => Effect.retry(route, { times: 2 }), { global: true })
          const browser = yield* serve(Layer.provide(routes({ "/": flaky }), retry))
          assert.strictEqual((yield* browser.send("/")).text, "1")
          assert.strictEqual((yield* browser.send("/")).text, "2")
          assert.strictEqual((yield* browser.send("/")).text, "3")
          assert.strictEqual(yield* (yield* MemStore).size, 1)
        })
      )
    )

    it.effect(
      "of a route that a middleware runs again after it succeeded commits both runs",
      test(() =>
        Effect.gen(function* () {
          const twice = HttpRouter.middleware((route) => Effect.andThen(route, route), { global: true })
          const store = yield* SessionStore
          const browser = yield* serve(routes({ "/": visit }), store)
          yield* browser.send("/")
          const again = yield* serve(Layer.provide(routes({ "/": visit, "/read": read }), twice), store)
          again.cookies = browser.cookies
          yield* again.send("/")
          assert.deepStrictEqual(JSON.parse((yield* again.send("/read")).text), { visits: 3 })
        })
      )
    )

    it.effect(
      "of a route that a middleware runs again and that fails again commits the last run",
      test(() =>
        Effect.gen(function* () {
          const failing = Effect.andThen(visit, Effect.fail(HttpServerResponse.empty({ status: 409 })))
          const retry = HttpRouter.middleware((route) => Effect.retry(route, { times: 2 }), { global: true })
          const browser = yield* serve(Layer.provide(routes({ "/": failing, "/read": read }), retry))
          for (let i = 0; i < 2; i++) yield* browser.send("/")
          assert.deepStrictEqual(JSON.parse((yield* browser.send("/read")).text), { visits: 2 })
          assert.strictEqual(yield* (yield* MemStore).size, 1)
        }).pipe(silent)
      )
    )

    it.effect(
      "to an error and a defect at once commits nothing",
      test(() =>
        Effect.gen(function* () {
          const both = Effect.failCause(Cause.combine(Cause.fail("wrong password"), Cause.die("bug")))
          const browser = yield* serve(routes({ "/": Effect.andThen(visit, both) }))
          const { response } = yield* browser.send("/")
          assert.deepStrictEqual(response.headers.getSetCookie(), [])
          assert.strictEqual(yield* (yield* MemStore).size, 0)
        }).pipe(silent)
      )
    )
  })

  describe("a store that fails", () => {
    it.effect(
      "when a session is opened gives a 500, and the handler is not run",
      test(() =>
        Effect.gen(function* () {
          const store = yield* SessionStore
          const runs = yield* Ref.make(0)
          const counted = Effect.andThen(
            Ref.update(runs, (n) => n + 1),
            visit
          )
          const browser = yield* serve(routes({ "/": counted }), { ...store, find: down("find") })
          browser.cookies = { session: "a".repeat(43) }
          const { response, text } = yield* browser.send("/")
          assert.strictEqual(response.status, 500)
          assert.strictEqual(text, "")
          assert.strictEqual(response.headers.get("vary"), "Cookie")
          assert.strictEqual(yield* Ref.get(runs), 0)
        }).pipe(silent)
      )
    )

    it.effect(
      "when a session is committed gives a 500 in place of the response that was produced, and no cookie",
      test(() => {
        const logged: Array<unknown> = []
        return Effect.gen(function* () {
          const store = yield* SessionStore
          const browser = yield* serve(routes({ "/": visit }), { ...store, create: down("create") })
          const { response, text } = yield* browser.send("/")
          assert.strictEqual(response.status, 500)
          assert.strictEqual(text, "")
          assert.deepStrictEqual(response.headers.getSetCookie(), [])
          assert.lengthOf(logged, 1)
          assert.include(String(logged[0]), "test/UserSession: the session could not be kept")
        }).pipe(Effect.provide(Logger.layer([Logger.make(({ message }) => void logged.push(message))])))
      })
    )

    it.effect(
      "gives what the application makes of it",
      test(() =>
        Effect.gen(function* () {
          const store = yield* SessionStore
          const onError = (error: Session.SessionError) =>
            Effect.succeed(HttpServerResponse.text(`try later: ${error._tag}`, { status: 503 }))
          const failing = { ...store, find: down("find"), create: down("create") }
          const browser = yield* serve(routes({ "/": visit }, { onError }), failing)
          for (const cookie of [undefined, "a".repeat(43)]) {
            if (cookie !== undefined) browser.cookies = { session: cookie }
            const { response, text } = yield* browser.send("/")
            assert.strictEqual(response.status, 503)
            assert.strictEqual(text, "try later: SessionStoreError")
            assert.strictEqual(response.headers.get("vary"), "Cookie")
          }
        })
      )
    )

    it.effect(
      "gives a 500 also where the application dies of it",
      test(() =>
        Effect.gen(function* () {
          const store = yield* SessionStore
          const failing = { ...store, find: down("find"), create: down("create") }
          const browser = yield* serve(routes({ "/": visit }, { onError: () => Effect.die("bug") }), failing)
          for (const cookies of [{}, { session: "a".repeat(43) }]) {
            browser.cookies = cookies
            assert.strictEqual((yield* browser.send("/")).response.status, 500)
          }
        }).pipe(silent)
      )
    )

    it.effect(
      "gives a 500 also where the logger throws, and where the store dies",
      test(() =>
        Effect.gen(function* () {
          const store = yield* SessionStore
          const throwing = Logger.make(() => {
            throw new Error("no disk")
          })
          const dying = { ...store, find: () => Effect.die("bug"), create: down("create") }
          const browser = yield* serve(routes({ "/": visit }), dying)
          for (const cookies of [{}, { session: "a".repeat(43) }]) {
            browser.cookies = cookies
            const { response } = yield* Effect.provide(browser.send("/"), Logger.layer([throwing]))
            assert.strictEqual(response.status, 500)
            assert.strictEqual(response.headers.get("vary"), "Cookie")
          }
        })
      )
    )

    it.effect(
      "by never answering can be given a time limit by the application",
      test(() =>
        Effect.gen(function* () {
          const store = yield* SessionStore
          const hanging: SessionStore["Service"]["create"] = () =>
            Effect.never.pipe(
              Effect.timeout("5 seconds"),
              Effect.mapError((cause) => new SessionStoreError({ operation: "create", cause }))
            )
          const browser = yield* serve(routes({ "/": visit }), { ...store, create: hanging })
          const fiber = yield* Effect.forkChild(browser.send("/"), { startImmediately: true })
          yield* TestClock.adjust("5 seconds")
          assert.strictEqual((yield* Fiber.join(fiber)).response.status, 500)
        }).pipe(silent)
      )
    )

    it.effect(
      "in a destroy is an error of the handler's, and the session lives",
      test(() =>
        Effect.gen(function* () {
          const store = yield* SessionStore
          const layer = routes({ "/": read, "/visit": visit, "/log-out": logOut })
          const browser = yield* serve(layer, { ...store, replace: down("replace") })
          yield* browser.send("/visit")
          assert.strictEqual((yield* browser.send("/log-out")).response.status, 500)
          assert.deepStrictEqual(JSON.parse((yield* browser.send("/")).text), { visits: 1 })
        }).pipe(silent)
      )
    )
  })

  describe("a value that does not fit its schema", () => {
    it.effect(
      "gives a 500 and commits nothing",
      test(() =>
        Effect.gen(function* () {
          const broken = Effect.gen(function* () {
            yield* (yield* UserSession).set({ visits: 1.5 })
            return HttpServerResponse.empty()
          })
          const browser = yield* serve(routes({ "/": broken }))
          assert.strictEqual((yield* browser.send("/")).response.status, 500)
          assert.strictEqual(yield* (yield* MemStore).size, 0)
        }).pipe(silent)
      )
    )
  })

  describe("data that does not decode", () => {
    it.effect(
      "gives a new session, and not a 500 on every request",
      test(() =>
        Effect.gen(function* () {
          const newer = HttpRouter.add(
            "GET",
            "/newer",
            Effect.gen(function* () {
              const session = yield* NewerSession
              return HttpServerResponse.text((yield* session.get).user)
            })
          ).pipe(Layer.provide(HttpSession.middleware(NewerSession).layer))
          const browser = yield* serve(Layer.merge(newer, routes({ "/visit": visit })))
          yield* browser.send("/visit")
          const { response, text } = yield* browser.send("/newer")
          assert.strictEqual(response.status, 200)
          assert.strictEqual(text, "nobody")
        }).pipe(silent)
      )
    )
  })

  describe("too many commits at once", () => {
    it.effect(
      "are answered with a 503",
      test(() =>
        Effect.gen(function* () {
          const open = () => Effect.fail(new Session.SessionBusyError({ session: UserSession.key }))
          const busy: typeof UserSession = Object.assign(Object.create(UserSession), { [opener]: open })
          const layer = HttpRouter.add("GET", "/", visit).pipe(Layer.provide(HttpSession.middleware(busy).layer))
          const { response, text } = yield* (yield* serve(layer)).send("/")
          assert.strictEqual(response.status, 503)
          assert.strictEqual(text, "")
        }).pipe(silent)
      )
    )
  })

  describe("a route that does not count as use", () => {
    it.effect(
      "keeps no session from going idle, and still saves what it changes",
      test(() =>
        Effect.gen(function* () {
          const idle = HttpSession.middleware(IdleSession)
          const on = (path: `/${string}`, f: (n: number) => number) =>
            HttpRouter.add(
              "GET",
              path,
              Effect.gen(function* () {
                const session = yield* IdleSession
                yield* session.update(f)
                return HttpServerResponse.text(String(yield* session.get))
              })
            )
          const polls = Layer.merge(
            on("/poll", (n) => n),
            on("/poll-and-count", (n) => n + 1)
          )
          const browser = yield* serve(
            Layer.merge(
              Layer.provide(
                on("/use", (n) => n + 1),
                idle.layer
              ),
              Layer.provide(polls, idle.with({ touch: false }).layer)
            )
          )
          yield* browser.send("/use")
          yield* TestClock.adjust("15 minutes")
          for (const [path, text] of [
            ["/poll", "1"],
            ["/poll-and-count", "2"]
          ] as const) {
            const answer = yield* browser.send(path)
            assert.strictEqual(answer.text, text)
            assert.deepStrictEqual(answer.response.headers.getSetCookie(), [])
          }
          const { cookies } = browser
          yield* TestClock.adjust("6 minutes")
          browser.cookies = cookies
          assert.strictEqual((yield* browser.send("/poll")).text, "0")
        })
      )
    )
  })

  describe("a request of another origin", () => {
    for (const origin of [
      "",
      "null",
      "*",
      "app.example.com",
      "https://",
      "https://app.example.com/",
      "https://app.example.com/path",
      "https://app.example.com?a",
      "https://app.example.com#a",
      "https://user@app.example.com",
      "https://App.example.com",
      "HTTPS://app.example.com",
      "https://app.example.com:443",
      "http://app.example.com:80",
      "https://app.example.com:99999",
      "https://*.example.com",
      " https://app.example.com",
      "https://app.example.com https://other.example.com"
    ]) {
      it(`cannot be trusted as ${JSON.stringify(origin)}, which no browser sends`, () => {
        assert.throws(
          () => HttpSession.middleware(UserSession, { crossOrigin: { trusted: ["https://example.com", origin] } }),
          TypeError,
          "the trusted origin"
        )
      })
    }

    it("can be trusted as any that browsers send", () => {
      const trusted = ["https://example.com", "http://localhost:3000", "http://[::1]:3000", "app://mobile"]
      HttpSession.middleware(UserSession, { crossOrigin: { trusted } })
    })

    it.effect(
      "is refused with a log at debug level that says why",
      test(() =>
        withLog((logged) =>
          Effect.gen(function* () {
            const browser = yield* serve(routes({ "/": visit }))
            for (const headers of [
              { "sec-fetch-site": "cross-site" },
              { origin: "https://evil.example" },
              { origin: "x".repeat(1000) }
            ]) {
              const { response, text } = yield* browser.send("/", { method: "POST", headers })
              assert.strictEqual(response.status, 403)
              assert.strictEqual(text, "Refused: a page of another origin made this request")
            }
            const refused = "Debug: test/UserSession: a POST request of another origin was refused:"
            assert.deepStrictEqual(logged, [
              `${refused} Sec-Fetch-Site is "cross-site"`,
              `${refused} Origin is "https://evil.example", and the host "localhost"`,
              `${refused} Origin is "${"x".repeat(200)}", and the host "localhost"`
            ])
          }).pipe(Effect.provideService(References.MinimumLogLevel, "Debug"))
        )
      )
    )

    it.effect(
      "is refused also if the logger throws",
      test(() =>
        Effect.gen(function* () {
          const throwing = Logger.make(() => {
            throw new Error("no disk")
          })
          const browser = yield* serve(routes({ "/": visit }))
          const { response } = yield* browser
            .send("/", { method: "POST", headers: { "sec-fetch-site": "cross-site" } })
            .pipe(Effect.provide(Logger.layer([throwing])), Effect.provideService(References.MinimumLogLevel, "Debug"))
          assert.strictEqual(response.status, 403)
        })
      )
    )

    it.effect(
      "starts no session that would push another out, and says so at debug level",
      test(() =>
        withLog((logged) =>
          Effect.gen(function* () {
            const browser = yield* serve(routes({ "/": read, "/visit": visit }, { cookie: { sameSite: "strict" } }))
            const headers = { "sec-fetch-site": "cross-site", "sec-fetch-dest": "document" }
            yield* browser.send("/", { headers })
            assert.deepStrictEqual(logged, [])
            const { received } = yield* browser.send("/visit", { headers })
            assert.deepStrictEqual(received.cookies, {})
            assert.match(logged.join(), /^Debug: test\/UserSession: a new session was not saved/)
          }).pipe(Effect.provideService(References.MinimumLogLevel, "Debug"))
        )
      )
    )
  })

  describe("the carrier", () => {
    for (const options of [
      { carrier: "bearer", cookie: {} },
      { carrier: "bearer", clearSiteData: true }
    ] as const) {
      it(`contradicts what is of the cookie: ${JSON.stringify(options)}`, () => {
        assert.throws(() => HttpSession.middleware(UserSession, options), TypeError, "has no cookie")
      })
    }

    it("is described to OpenAPI as a bearer token, if it is one", () => {
      assert.strictEqual(HttpSession.middleware(UserSession, { carrier: "bearer" }).security, HttpApiSecurity.bearer)
    })
  })

  describe("requests at once", () => {
    it.effect(
      "lose no update",
      test(() =>
        Effect.gen(function* () {
          const slow = Effect.tap(visit, () => Effect.yieldNow)
          const browser = yield* serve(routes({ "/": read, "/visit": slow }))
          yield* browser.send("/visit")
          yield* Effect.replicateEffect(browser.send("/visit"), 100, { concurrency: "unbounded" })
          assert.deepStrictEqual(JSON.parse((yield* browser.send("/")).text), { visits: 101 })
        })
      )
    )

    it.effect(
      "bring no session back that one of them destroyed, and leave the cookie alone",
      test(() =>
        Effect.gen(function* () {
          const [started, done] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
          const slow = visit.pipe(
            Effect.tap(() => Deferred.succeed(started, undefined)),
            Effect.tap(() => Deferred.await(done))
          )
          const browser = yield* serve(routes({ "/": read, "/visit": visit, "/slow": slow, "/log-out": logOut }))
          yield* browser.send("/visit")
          const { cookies } = browser
          const fiber = yield* Effect.forkChild(browser.send("/slow"))
          yield* Deferred.await(started)
          yield* browser.send("/log-out")
          yield* Deferred.succeed(done, undefined)
          const { response, text } = yield* Fiber.join(fiber)
          assert.strictEqual(text, "2")
          assert.deepStrictEqual(response.headers.getSetCookie(), [])
          assert.strictEqual((yield* activeFields).length, 0)
          browser.cookies = cookies
          assert.deepStrictEqual(JSON.parse((yield* browser.send("/")).text), { visits: 0 })
        })
      )
    )
  })

  describe("api", () => {
    class Denied extends Schema.TaggedError<Denied>()("Denied", {}, { httpApiStatus: 403 }) {}

    const Sessions = HttpSession.middleware(UserSession)
    const Named = HttpSession.middleware(UserSession, { cookie: { name: "id" } })

    class Plain extends HttpApiMiddleware.Service<Plain, { provides: UserSession }>()("test/Plain") {}

    class Secured extends HttpApiMiddleware.Service<Secured, { provides: UserSession }>()("test/Secured", {
      security: { session: Named.security }
    }) {}

    const visitOf = (path: `/${string}`) => HttpApiEndpoint.post("visit", path, { success: Schema.Int })
    const denyOf = (path: `/${string}`) => HttpApiEndpoint.post("deny", path, { success: Schema.Int, error: Denied })
    const Api = HttpApi.make("test")
      .add(HttpApiGroup.make("plain").add(visitOf("/plain/visit"), denyOf("/plain/deny")).middleware(Plain))
      .add(HttpApiGroup.make("secured").add(visitOf("/secured/visit"), denyOf("/secured/deny")).middleware(Secured))

    const count = UserSession.use((session) =>
      session.modify((user) => [user.visits + 1, { ...user, visits: user.visits + 1 }])
    )
    const deny = Effect.andThen(count, Effect.fail(new Denied()))

    const layer = HttpApiBuilder.layer(Api).pipe(
      Layer.provide([
        HttpApiBuilder.group(Api, "plain", (handlers) =>
          handlers.handle("visit", () => count).handle("deny", () => deny)
        ),
        HttpApiBuilder.group(Api, "secured", (handlers) =>
          handlers.handle("visit", () => count).handle("deny", () => deny)
        )
      ]),
      Layer.provide([
        Layer.effect(Plain, Sessions.api),
        Layer.effect(
          Secured,
          Effect.map(Named.api, (session) => ({ session }))
        )
      ]),
      Layer.provide(HttpServer.layerServices)
    )

    for (const [name, cookie] of [
      ["plain", "session"],
      ["secured", "id"]
    ] as const) {
      it.effect(
        `gives the endpoints of an HttpApi a session, where it is ${name}`,
        test(() =>
          Effect.gen(function* () {
            const browser = yield* serve(layer)
            const { response } = yield* browser.send(`/${name}/visit`, { method: "POST" })
            assert.strictEqual(response.headers.get("vary"), "Cookie")
            assert.deepStrictEqual(Object.keys(browser.cookies), [cookie])
            assert.strictEqual((yield* browser.send(`/${name}/deny`, { method: "POST" })).response.status, 403)
            assert.strictEqual((yield* browser.send(`/${name}/visit`, { method: "POST" })).text, "3")
          })
        )
      )
    }

    it("declares the cookie to OpenAPI", () => {
      assert.include(Sessions.security, { _tag: "ApiKey", in: "cookie", key: "session" })
      const { components, paths } = OpenApi.fromApi(Api)
      assert.deepStrictEqual(components.securitySchemes.session, { type: "apiKey", name: "id", in: "cookie" })
      assert.deepStrictEqual(paths["/secured/visit"]?.post?.security, [{ session: [] }])
      assert.deepStrictEqual(paths["/plain/visit"]?.post?.security ?? [], [])
    })
  })
})
