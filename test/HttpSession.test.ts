import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
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
import { HttpClientResponse, HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
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
import { SessionTest } from "effect-sessions/testing"
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

type Responding<E, R> = Effect.Effect<HttpClientResponse.HttpClientResponse, E, R>

const textOf = <E, R>(response: Responding<E, R>) => Effect.flatMap(response, ({ text }) => text)

const jsonOf = <E, R>(response: Responding<E, R>) => Effect.flatMap(response, ({ json }) => json)

/** Each `Set-Cookie`, as it stands. */
const setCookiesOf = (response: HttpClientResponse.HttpClientResponse) =>
  Option.getOrThrow(HttpClientResponse.toWeb(response)).headers.getSetCookie()

/** The token in the cookie of a browser. */
const tokenOf = Effect.fnUntraced(function* (browser: SessionTest.Browser, name = "session") {
  return (yield* browser.cookies).find((cookie) => cookie.name === name)?.value ?? assert.fail(`no cookie ${name}`)
})

/** What a request has to bring to send a token of the test in place of the jar. */
const carrying = (token: string) => ({ headers: { cookie: `session=${token}` } })

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
          const browser = yield* SessionTest.browser(routes({ "/visit": visit }))
          for (const count of ["1", "2", "3"]) assert.strictEqual(yield* textOf(browser.get("/visit")), count)
          assert.strictEqual(yield* textOf((yield* browser.another).get("/visit")), "1")
        })
      )
    )

    it.effect(
      "leaves routes alone that it is not provided to",
      test(() =>
        Effect.gen(function* () {
          const plain = HttpRouter.add("GET", "/plain", HttpServerResponse.text("plain"))
          const browser = yield* SessionTest.browser(Layer.merge(plain, routes({ "/visit": visit })))
          const response = yield* browser.get("/plain")
          assert.isUndefined(response.headers.vary)
        })
      )
    )

    it.effect(
      "ends a session with its lifetime",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* SessionTest.browser(routes({ "/visit": visit }))
          yield* browser.get("/visit")
          // The browser would drop the cookie by itself.
          const kept = carrying(yield* tokenOf(browser))
          yield* TestClock.adjust("24 hours")
          assert.strictEqual(yield* textOf(browser.get("/visit", kept)), "2")
          yield* TestClock.adjust("1 millis")
          assert.strictEqual(yield* textOf(browser.get("/visit", kept)), "1")
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
          const browser = yield* SessionTest.browser(layer)
          for (let i = 0; i < 5; i++) {
            const { cookies } = yield* browser.get("/")
            assert.deepStrictEqual(cookies.cookies.session?.options?.maxAge, Duration.minutes(20))
            yield* TestClock.adjust("19 minutes")
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
          const browser = yield* SessionTest.browser(layer)
          const { headers } = yield* browser.get("/")
          assert.strictEqual(headers["cache-control"], 'no-cache="Set-Cookie"')
          assert.strictEqual(headers.vary, "Cookie")
          assert.sameMembers(
            (yield* browser.cookies).map(({ name }) => name),
            ["session", "cart"]
          )
          const response = yield* browser.get("/")
          assert.strictEqual(yield* response.text, "2")
          assert.strictEqual(response.headers["x-cart"], "2")
          const cookie = `session=${yield* tokenOf(browser, "cart")}; cart=${yield* tokenOf(browser)}`
          assert.strictEqual(yield* textOf(browser.get("/", { headers: { cookie } })), "1")
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
          const browser = yield* SessionTest.browser(routes({ "/": read }))
          const response = yield* browser.get("/")
          assert.deepStrictEqual(setCookiesOf(response), [])
          assert.isUndefined(response.headers["cache-control"])
          assert.strictEqual(response.headers.vary, "Cookie")
          assert.strictEqual(yield* (yield* MemStore).size, 0)
        })
      )
    )

    it.effect(
      "is set with the first change, with secure defaults",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* SessionTest.browser(routes({ "/visit": visit }))
          const response = yield* browser.get("/visit")
          const [cookie, ...others] = setCookiesOf(response)
          assert.deepStrictEqual(others, [])
          assert.match(
            cookie ?? "",
            /^session=[\w-]{43}; Max-Age=86400; Path=\/; Expires=Fri, 02 Jan 1970 00:00:00 GMT; HttpOnly; Secure; SameSite=Lax$/
          )
          assert.strictEqual(response.headers["cache-control"], 'no-cache="Set-Cookie"')
          assert.strictEqual(response.headers.vary, "Cookie")
        })
      )
    )

    it.effect(
      "is not set again where neither token nor expiry is new",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* SessionTest.browser(routes({ "/visit": visit, "/": read }))
          yield* browser.get("/visit")
          for (const path of ["/visit", "/", "/visit"]) {
            const response = yield* browser.get(path)
            assert.deepStrictEqual(setCookiesOf(response), [])
            assert.isUndefined(response.headers["cache-control"])
          }
        })
      )
    )

    it.effect(
      "is set also where the handler has committed the session itself",
      test(() =>
        Effect.gen(function* () {
          const commit = Effect.tap(visit, () => UserSession.use((session) => session.commit))
          const browser = yield* SessionTest.browser(routes({ "/": commit }))
          yield* browser.get("/")
          assert.strictEqual(yield* textOf(browser.get("/")), "2")
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
          const browser = yield* SessionTest.browser(
            routes({ "/1": until(61_001), "/2": until(61_000), "/3": until(0) })
          )
          yield* TestClock.adjust("500 millis")
          const options = (path: string) =>
            Effect.map(browser.get(path), ({ cookies }) => cookies.cookies.session?.options)
          const first = yield* options("/1")
          assert.deepStrictEqual(first?.maxAge, Duration.seconds(61))
          assert.deepStrictEqual(first?.expires, new Date(62_000))
          const second = yield* options("/2")
          assert.deepStrictEqual(second?.maxAge, Duration.seconds(61))
          assert.deepStrictEqual(second?.expires, new Date(61_000))
          const third = yield* options("/3")
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
          const browser = yield* SessionTest.browser(
            routes({ "/visit": visit, "/yes": remember(true), "/no": remember(false) }, { cookie: { persist: false } })
          )
          const lifetimeOf = Effect.fnUntraced(function* (path: string) {
            const cookie = (yield* browser.get(path)).cookies.cookies.session
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
          const browser = yield* SessionTest.browser(
            HttpRouter.add("GET", "/", touch).pipe(Layer.provide(middleware.layer))
          )
          assert.lengthOf(setCookiesOf(yield* browser.get("/")), 1)
          yield* TestClock.adjust("10 minutes")
          assert.lengthOf(setCookiesOf(yield* browser.get("/")), 0)
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
          const browser = yield* SessionTest.browser(routes({ "/app": visit, "/app/log-out": logOut }, { cookie }), {
            origin: "https://example.com"
          })
          const attributes = "Domain=example.com; Path=/app;"
          const flags = "Secure; Partitioned; SameSite=Strict"
          const [set] = setCookiesOf(yield* browser.get("/app"))
          assert.match(set ?? "", new RegExp(`^__Secure-id=[\\w-]{43}; Max-Age=86400; ${attributes} .*${flags}$`))
          const response = yield* browser.get("/app/log-out")
          assert.deepStrictEqual(setCookiesOf(response), [
            `__Secure-id=; Max-Age=0; ${attributes} Expires=Thu, 01 Jan 1970 00:00:00 GMT; ${flags}`
          ])
          assert.strictEqual(response.headers["cache-control"], 'no-cache="Set-Cookie"')
          assert.deepStrictEqual(yield* browser.cookies, [])
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
          const browser = yield* SessionTest.browser(routes({ "/visit": visit, "/log-out": logOut }))
          yield* browser.get("/visit")
          yield* browser.get("/log-out")
          assert.deepStrictEqual(yield* browser.cookies, [])
        })
      )
    )

    it.effect(
      "is not expired for a visitor who sent none",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* SessionTest.browser(routes({ "/": logOut }))
          assert.deepStrictEqual(setCookiesOf(yield* browser.get("/")), [])
          assert.lengthOf(setCookiesOf(yield* browser.get("/", carrying("unknown"))), 1)
        })
      )
    )

    it.effect(
      "keeps what the application says of caching",
      test(() =>
        Effect.gen(function* () {
          const withHeaders = (headers: Record<string, string>) =>
            Effect.map(visit, (response) => HttpServerResponse.setHeaders(response, headers))
          const browser = yield* SessionTest.browser(
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
            const { headers } = yield* (yield* browser.another).get(path)
            return [headers.vary, headers["cache-control"]]
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
            const browser = yield* SessionTest.browser(routes({ "/visit": visit, "/": read }))
            const lenient = yield* SessionTest.browser(routes({ "/visit": visit }, { cookie: { secure: false } }))
            for (const origin of [
              "http://localhost",
              "http://app.localhost:3000",
              "http://127.0.0.1",
              "http://[::1]:80"
            ]) {
              yield* (yield* browser.another).get(`${origin}/visit`)
            }
            yield* (yield* browser.another).get("https://example.com/visit")
            yield* (yield* browser.another).get("http://example.com/")
            for (const headers of [{ "x-forwarded-proto": "https" }, { forwarded: "for=1.2.3.4;proto=https" }]) {
              yield* (yield* browser.another).get("http://example.com/visit", { headers })
            }
            yield* lenient.get("http://example.com/visit")
            assert.deepStrictEqual(logged, [])
            for (let i = 0; i < 2; i++) yield* (yield* browser.another).get("http://localhost.example.com/visit")
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
            const browser = yield* SessionTest.browser(routes({ "/visit": visit }))
            const header = Buffer.from(`session=${value}`).toString("latin1")
            const response = yield* browser.get("/visit", { headers: { cookie: header } })
            assert.strictEqual(response.status, 200)
            assert.strictEqual(yield* response.text, "1")
            assert.match(response.cookies.cookies.session?.value ?? "", /^[\w-]{43}$/)
          })
        )
      )
    }

    it.effect(
      "is found among others, with spaces, tabs and quotes around it, and under no other name",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* SessionTest.browser(routes({ "/": read, "/visit": visit }))
          yield* browser.get("/visit")
          const token = yield* tokenOf(browser)
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
            assert.deepStrictEqual(yield* jsonOf(browser.get("/", { headers: { cookie } })), { visits }, cookie)
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
          const browser = yield* SessionTest.browser(layer)
          yield* browser.get("/visit")
          const cookie = `${"a=%;".repeat(3400)}session=${yield* tokenOf(browser)}`
          assert.deepStrictEqual(yield* jsonOf(browser.get("/", { headers: { cookie } })), { visits: 1 })
          const response = yield* browser.get("/log-out", { headers: { cookie } })
          assert.lengthOf(setCookiesOf(response), 1)
        })
      )
    )

    it.effect(
      "that is there several times counts by the first that opens a session",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* SessionTest.browser(routes({ "/": read, "/visit": visit }))
          yield* browser.get("/visit")
          const token = yield* tokenOf(browser)
          const other = yield* browser.another
          yield* Effect.replicateEffect(other.get("/visit"), 2)
          const another = yield* tokenOf(other)
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
            const response = yield* browser.get("/", { headers: { cookie: cookies.join("; ") } })
            assert.deepStrictEqual(yield* response.json, { visits })
            assert.deepStrictEqual(setCookiesOf(response), [])
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
          const browser = yield* SessionTest.browser(routes({ "/": read, "/visit": visit })).pipe(
            Effect.provideService(SessionStore, counting)
          )
          yield* browser.get("/visit")
          const session = yield* tokenOf(browser)
          for (const [tokens, expected] of [
            [["garbage"], 0],
            [[session], 1],
            [[session, "a".repeat(43)], 1],
            [["a".repeat(43), "a".repeat(43)], 1],
            [["a".repeat(43), session, "b".repeat(43)], 2],
            [["a", "b", "c", "d", "e", "f"].map((letter) => letter.repeat(43)), 4]
          ] as const) {
            finds = 0
            yield* browser.get("/", { headers: { cookie: tokens.map((token) => `session=${token}`).join("; ") } })
            assert.strictEqual(finds, expected)
          }
        })
      )
    )

    it.effect(
      "that is there several times: a change goes to the session that opened, and a log-out ends every one",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* SessionTest.browser(routes({ "/": read, "/visit": visit, "/log-out": logOut }))
          const [first, second, apart] = [yield* browser.another, yield* browser.another, yield* browser.another]
          for (const each of [first, second, apart]) yield* each.get("/visit")
          const cookie = `session=${yield* tokenOf(first)}; session=${yield* tokenOf(second)}`
          const headers = { cookie: `session=garbage; ${cookie}` }
          const visited = yield* browser.get("/visit", { headers })
          assert.strictEqual(yield* visited.text, "2")
          assert.deepStrictEqual(setCookiesOf(visited), [])
          assert.deepStrictEqual(yield* jsonOf(second.get("/")), { visits: 1 })

          const { cookies } = yield* browser.get("/log-out", { headers })
          assert.deepStrictEqual(cookies.cookies.session?.options?.maxAge, Duration.zero)
          for (const each of [first, second]) {
            assert.deepStrictEqual(yield* jsonOf(each.get("/")), { visits: 0 })
          }
          assert.deepStrictEqual(yield* jsonOf(apart.get("/")), { visits: 1 })
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
          const browser = yield* SessionTest.browser(routes({ "/": read, "/visit": visit, "/log-out": logOut })).pipe(
            Effect.provideService(SessionStore, failing)
          )
          const other = yield* browser.another
          for (const each of [browser, other]) yield* each.get("/visit")
          const cookie = `session=${yield* tokenOf(browser)}; session=${yield* tokenOf(other)}`
          const opened = yield* UserSession.open(Redacted.make(yield* tokenOf(other)))
          stuck = Option.getOrThrow(yield* opened.id)
          const response = yield* browser.get("/log-out", { headers: { cookie } })
          assert.strictEqual(response.status, 500)
          assert.deepStrictEqual(setCookiesOf(response), [])
          assert.deepStrictEqual(yield* jsonOf(browser.get("/")), { visits: 1 })
          stuck = ""
          yield* browser.get("/log-out", { headers: { cookie } })
          assert.strictEqual((yield* activeFields).length, 0)
        }).pipe(silent)
      )
    )

    it.effect(
      "has the priority that it was given",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* SessionTest.browser(routes({ "/": visit }, { cookie: { priority: "high" } }))
          assert.include(setCookiesOf(yield* browser.get("/"))[0], "; Priority=High;")
        })
      )
    )

    it.effect(
      "is removed with all else that the browser keeps, if the application says so",
      test(() =>
        Effect.gen(function* () {
          const farewell = Effect.tap(logOut, () => visit)
          const handlers = { "/": read, "/visit": visit, "/log-out": logOut, "/farewell": farewell }
          const browser = yield* SessionTest.browser(routes(handlers, { clearSiteData: true }))
          const cleared = Effect.fnUntraced(function* (path: string) {
            return (yield* browser.get(path)).headers["clear-site-data"]
          })
          // Not without a cookie to remove, nor with another one to set.
          for (const path of ["/log-out", "/", "/visit", "/visit", "/farewell"]) {
            assert.isUndefined(yield* cleared(path), path)
          }
          assert.strictEqual(yield* cleared("/log-out"), '"cache", "cookies", "storage"')
          const plain = yield* SessionTest.browser(routes({ "/visit": visit, "/log-out": logOut }))
          yield* plain.get("/visit")
          assert.isUndefined((yield* plain.get("/log-out")).headers["clear-site-data"])
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
          const browser = yield* SessionTest.browser(routes({ "/visit": visit, "/remember": remember }))
          yield* browser.get("/visit")
          assert.deepStrictEqual(setCookiesOf(yield* browser.get("/remember")), [])
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
          const browser = yield* SessionTest.browser(routes({ "/visit": visit, "/print": print }))
          yield* browser.get("/visit")
          assert.strictEqual(yield* textOf(browser.get("/print")), "some(<redacted:session token>)")
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
            yield* (yield* SessionTest.browser(routes({ "/": visit }))).get(origin)
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
          const browser = yield* SessionTest.browser(routes({ "/": read, "/visit": visit, "/log-in": logIn }))
          const attacker = yield* browser.another
          yield* attacker.get("/visit")
          yield* Ref.set(browser.jar, yield* Ref.get(attacker.jar))
          yield* browser.get("/log-in")
          assert.notStrictEqual(yield* tokenOf(browser), yield* tokenOf(attacker))
          assert.deepStrictEqual(yield* jsonOf(browser.get("/")), { userId: "ada", visits: 1 })
          assert.deepStrictEqual(yield* jsonOf(attacker.get("/")), { visits: 0 })
        })
      )
    )

    it.effect(
      "never adopts a token of the client's choosing",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* SessionTest.browser(routes({ "/": read, "/log-in": logIn }))
          const chosen = "a".repeat(43)
          yield* browser.get("/log-in", carrying(chosen))
          assert.notStrictEqual(yield* tokenOf(browser), chosen)
          assert.deepStrictEqual(yield* jsonOf(browser.get("/", carrying(chosen))), { visits: 0 })
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
          const browser = yield* SessionTest.browser(routes({ "/set": set, "/show": show }))
          yield* browser.get("/set")
          assert.strictEqual(yield* textOf(browser.get("/show")), "saved")
          assert.strictEqual(yield* textOf(browser.get("/show")), "nothing")
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
            yield* session.merge(Redacted.make(headers.authorization ?? ""), (mine, other) => ({
              ...other,
              visits: mine.visits + other.visits
            }))
            return HttpServerResponse.empty()
          })
          const browser = yield* SessionTest.browser(routes({ "/": read, "/visit": visit, "/merge": merge }))
          const before = yield* browser.another
          yield* before.get("/visit")
          yield* browser.get("/visit")
          yield* browser.get("/merge", { headers: { authorization: yield* tokenOf(before) } })
          assert.deepStrictEqual(yield* jsonOf(browser.get("/")), { visits: 2 })
          assert.deepStrictEqual(yield* jsonOf(before.get("/")), { visits: 0 })
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
          const browser = yield* SessionTest.browser(routes({ "/": read, "/log-in": logIn, "/log-out": logOut }))
          const [phone, other] = [yield* browser.another, yield* browser.another]
          for (const it of [browser, phone]) yield* it.get("/log-in", { headers: { "x-user": "ada" } })
          yield* other.get("/log-in", { headers: { "x-user": "grace" } })
          yield* browser.get("/log-out")
          assert.deepStrictEqual(yield* browser.cookies, [])
          assert.deepStrictEqual(yield* jsonOf(phone.get("/")), { visits: 0 })
          assert.deepStrictEqual(yield* jsonOf(other.get("/")), { userId: "grace", visits: 0 })
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
            const browser = yield* SessionTest.browser(routes({ "/": read, "/visit": handler }))
            const response = yield* browser.get("/visit")
            assert.strictEqual(response.status, status)
            assert.strictEqual(response.headers.vary, "Cookie")
            assert.deepStrictEqual(yield* jsonOf(browser.get("/")), { visits: 1 })
          }).pipe(silent)
        )
      )
    }

    it.effect(
      "to HEAD, and one without a body, sets the cookie too",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* SessionTest.browser(
            routes({ "/": visit, "/empty": Effect.as(visit, HttpServerResponse.empty()) })
          )
          assert.lengthOf(setCookiesOf(yield* browser.head("/")), 1)
          assert.lengthOf(setCookiesOf(yield* (yield* browser.another).get("/empty")), 1)
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
              const late = Effect.gen(function* () {
                yield* session.update((user) => ({ ...user, visits: user.visits + 10 }))
                if (isCommitted) yield* session.commit
                return new TextEncoder().encode("late")
              })
              return HttpServerResponse.stream(
                Stream.concat(Stream.make(new TextEncoder().encode("early ")), Stream.fromEffect(Effect.orDie(late)))
              )
            })
          const browser = yield* SessionTest.browser(
            routes({ "/": read, "/lost": stream(false), "/saved": stream(true) })
          )
          assert.strictEqual(yield* textOf(browser.get("/lost")), "early late")
          assert.deepStrictEqual(yield* jsonOf(browser.get("/")), { visits: 1 })
          assert.strictEqual(yield* textOf(browser.get("/saved")), "early late")
          assert.deepStrictEqual(yield* jsonOf(browser.get("/")), { visits: 11 })
        })
      )
    )

    it.effect(
      "to a defect commits nothing and sets no cookie",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* SessionTest.browser(
            routes({ "/": read, "/visit": visit, "/die": Effect.andThen(visit, Effect.die("bug")) })
          )
          const response = yield* browser.get("/die")
          assert.strictEqual(response.status, 500)
          assert.strictEqual(response.headers.vary, "Cookie")
          assert.deepStrictEqual(yield* browser.cookies, [])
          yield* browser.get("/visit")
          yield* browser.get("/die")
          assert.deepStrictEqual(yield* jsonOf(browser.get("/")), { visits: 1 })
        }).pipe(silent)
      )
    )

    it.effect(
      "that the client did not wait for commits nothing",
      test(() =>
        Effect.gen(function* () {
          const started = yield* Deferred.make<void>()
          const hang = visit.pipe(Effect.andThen(Deferred.succeed(started, undefined)), Effect.andThen(Effect.never))
          // By hand, to see the response: a browser that is interrupted throws it away.
          const { handler } = yield* Effect.acquireRelease(
            Effect.map(SessionStore, (store) =>
              HttpRouter.toWebHandler(Layer.provide(routes({ "/": hang }), Layer.succeed(SessionStore, store)), {
                disableLogger: true
              })
            ),
            ({ dispose }) => Effect.promise(dispose)
          )
          const send = (signal: AbortSignal) =>
            Effect.promise(() => handler(new Request("http://localhost/", { signal })))
          const fiber = yield* Effect.abortSignal.pipe(
            Effect.flatMap((signal) => Effect.forkChild(send(signal))),
            Effect.tap(() => Deferred.await(started)),
            Effect.scoped
          )
          const response = yield* Fiber.join(fiber)
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
          const browser = yield* SessionTest.browser(Layer.provide(routes({ "/": flaky }), retry))
          assert.strictEqual(yield* textOf(browser.get("/")), "1")
          assert.strictEqual(yield* textOf(browser.get("/")), "2")
          assert.strictEqual(yield* textOf(browser.get("/")), "3")
          assert.strictEqual(yield* (yield* MemStore).size, 1)
        })
      )
    )

    it.effect(
      "of a route that a middleware runs again after it succeeded commits both runs",
      test(() =>
        Effect.gen(function* () {
          const twice = HttpRouter.middleware((route) => Effect.andThen(route, route), { global: true })
          const browser = yield* SessionTest.browser(routes({ "/": visit }))
          yield* browser.get("/")
          const again = yield* SessionTest.browser(Layer.provide(routes({ "/": visit, "/read": read }), twice))
          yield* Ref.set(again.jar, yield* Ref.get(browser.jar))
          yield* again.get("/")
          assert.deepStrictEqual(yield* jsonOf(again.get("/read")), { visits: 3 })
        })
      )
    )

    it.effect(
      "of a route that a middleware runs again and that fails again commits the last run",
      test(() =>
        Effect.gen(function* () {
          const failing = Effect.andThen(visit, Effect.fail(HttpServerResponse.empty({ status: 409 })))
          const retry = HttpRouter.middleware((route) => Effect.retry(route, { times: 2 }), { global: true })
          const browser = yield* SessionTest.browser(Layer.provide(routes({ "/": failing, "/read": read }), retry))
          for (let i = 0; i < 2; i++) yield* browser.get("/")
          assert.deepStrictEqual(yield* jsonOf(browser.get("/read")), { visits: 2 })
          assert.strictEqual(yield* (yield* MemStore).size, 1)
        }).pipe(silent)
      )
    )

    it.effect(
      "to an error and a defect at once commits nothing",
      test(() =>
        Effect.gen(function* () {
          const both = Effect.failCause(Cause.combine(Cause.fail("wrong password"), Cause.die("bug")))
          const browser = yield* SessionTest.browser(routes({ "/": Effect.andThen(visit, both) }))
          const response = yield* browser.get("/")
          assert.deepStrictEqual(setCookiesOf(response), [])
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
          const browser = yield* SessionTest.browser(routes({ "/": counted })).pipe(
            Effect.provideService(SessionStore, { ...store, find: down("find") })
          )
          const response = yield* browser.get("/", carrying("a".repeat(43)))
          assert.strictEqual(response.status, 500)
          assert.strictEqual(yield* response.text, "")
          assert.strictEqual(response.headers.vary, "Cookie")
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
          const browser = yield* SessionTest.browser(routes({ "/": visit })).pipe(
            Effect.provideService(SessionStore, { ...store, create: down("create") })
          )
          const response = yield* browser.get("/")
          assert.strictEqual(response.status, 500)
          assert.strictEqual(yield* response.text, "")
          assert.deepStrictEqual(setCookiesOf(response), [])
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
          const browser = yield* SessionTest.browser(routes({ "/": visit }, { onError })).pipe(
            Effect.provideService(SessionStore, failing)
          )
          for (const options of [{}, carrying("a".repeat(43))]) {
            const response = yield* browser.get("/", options)
            assert.strictEqual(response.status, 503)
            assert.strictEqual(yield* response.text, "try later: SessionStoreError")
            assert.strictEqual(response.headers.vary, "Cookie")
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
          const browser = yield* SessionTest.browser(routes({ "/": visit }, { onError: () => Effect.die("bug") })).pipe(
            Effect.provideService(SessionStore, failing)
          )
          for (const options of [{}, carrying("a".repeat(43))]) {
            assert.strictEqual((yield* browser.get("/", options)).status, 500)
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
          const browser = yield* SessionTest.browser(routes({ "/": visit })).pipe(
            Effect.provideService(SessionStore, dying)
          )
          for (const options of [{}, carrying("a".repeat(43))]) {
            const response = yield* Effect.provide(browser.get("/", options), Logger.layer([throwing]))
            assert.strictEqual(response.status, 500)
            assert.strictEqual(response.headers.vary, "Cookie")
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
          const browser = yield* SessionTest.browser(routes({ "/": visit })).pipe(
            Effect.provideService(SessionStore, { ...store, create: hanging })
          )
          const fiber = yield* Effect.forkChild(browser.get("/"), { startImmediately: true })
          yield* TestClock.adjust("5 seconds")
          assert.strictEqual((yield* Fiber.join(fiber)).status, 500)
        }).pipe(silent)
      )
    )

    it.effect(
      "in a destroy is an error of the handler's, and the session lives",
      test(() =>
        Effect.gen(function* () {
          const store = yield* SessionStore
          const layer = routes({ "/": read, "/visit": visit, "/log-out": logOut })
          const browser = yield* SessionTest.browser(layer).pipe(
            Effect.provideService(SessionStore, { ...store, replace: down("replace") })
          )
          yield* browser.get("/visit")
          assert.strictEqual((yield* browser.get("/log-out")).status, 500)
          assert.deepStrictEqual(yield* jsonOf(browser.get("/")), { visits: 1 })
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
          const browser = yield* SessionTest.browser(routes({ "/": broken }))
          assert.strictEqual((yield* browser.get("/")).status, 500)
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
          const browser = yield* SessionTest.browser(Layer.merge(newer, routes({ "/visit": visit })))
          yield* browser.get("/visit")
          const response = yield* browser.get("/newer")
          assert.strictEqual(response.status, 200)
          assert.strictEqual(yield* response.text, "nobody")
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
          const response = yield* (yield* SessionTest.browser(layer)).get("/")
          assert.strictEqual(response.status, 503)
          assert.strictEqual(yield* response.text, "")
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
          const browser = yield* SessionTest.browser(
            Layer.merge(
              Layer.provide(
                on("/use", (n) => n + 1),
                idle.layer
              ),
              Layer.provide(polls, idle.with({ touch: false }).layer)
            )
          )
          yield* browser.get("/use")
          yield* TestClock.adjust("15 minutes")
          for (const [path, text] of [
            ["/poll", "1"],
            ["/poll-and-count", "2"]
          ] as const) {
            const answer = yield* browser.get(path)
            assert.strictEqual(yield* answer.text, text)
            assert.deepStrictEqual(setCookiesOf(answer), [])
          }
          // The browser would drop the cookie by itself.
          const kept = carrying(yield* tokenOf(browser))
          yield* TestClock.adjust("6 minutes")
          assert.strictEqual(yield* textOf(browser.get("/poll", kept)), "0")
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
          /the trusted origin .+ is none; write it as browsers do, .+ such as "https:\/\/app\.example\.com"$/
        )
      })
    }

    it("can be trusted as any that browsers send", () => {
      const trusted = [
        "https://example.com",
        "http://localhost:3000",
        "http://[::1]:3000",
        "app://mobile",
        "x-https://a"
      ]
      HttpSession.middleware(UserSession, { crossOrigin: { trusted } })
    })

    it.effect(
      "is refused with a log at debug level that says why",
      test(() =>
        withLog((logged) =>
          Effect.gen(function* () {
            // Over plain HTTP it says no Sec-Fetch-Site.
            const browser = yield* SessionTest.browser(routes({ "/": visit }), { origin: "http://example.com" })
            for (const headers of [
              { "sec-fetch-site": "cross-site" },
              { origin: "https://evil.example" },
              { origin: "x".repeat(1000) }
            ]) {
              const response = yield* browser.post("/", { headers })
              assert.strictEqual(response.status, 403)
              assert.strictEqual(yield* response.text, "Refused: a page of another origin made this request")
            }
            const refused = "Debug: test/UserSession: a POST request of another origin was refused:"
            assert.deepStrictEqual(logged, [
              `${refused} Sec-Fetch-Site is "cross-site"`,
              `${refused} Origin is "https://evil.example", and the host "example.com"`,
              `${refused} Origin is "${"x".repeat(200)}", and the host "example.com"`
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
          const browser = yield* SessionTest.browser(routes({ "/": visit }))
          const response = yield* browser
            .post("/", { headers: { "sec-fetch-site": "cross-site" } })
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
            const browser = yield* SessionTest.browser(
              routes({ "/": read, "/visit": visit }, { cookie: { sameSite: "strict" } })
            )
            const headers = { "sec-fetch-site": "cross-site", "sec-fetch-dest": "document" }
            yield* browser.get("/", { headers })
            assert.deepStrictEqual(logged, [])
            const response = yield* browser.get("/visit", { headers })
            assert.deepStrictEqual(response.cookies.cookies, {})
            assert.deepStrictEqual(logged, [
              "Debug: test/UserSession: a new session was not saved, since a page of another site made the request, and " +
                "the browser may have kept back the cookie of another session"
            ])
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

  describe("open, without a middleware", () => {
    const logIn = (carrier: "cookie" | "bearer") => {
      const sessions = HttpSession.middleware(UserSession, { carrier })
      return HttpRouter.add(
        "POST",
        "/",
        Effect.gen(function* () {
          const session = yield* sessions.open
          yield* session.update((user) => ({ ...user, userId: "ada" }))
          return HttpServerResponse.text(String(Option.isSome(yield* session.commit)))
        })
      )
    }

    it.effect(
      "fails for a request of another origin, with an error that says so",
      test(() =>
        Effect.gen(function* () {
          const route = HttpRouter.add(
            "POST",
            "/",
            Effect.match(HttpSession.middleware(UserSession).open, {
              onFailure: (error) => HttpServerResponse.text(`${error._tag}: ${error.message}`),
              onSuccess: () => HttpServerResponse.empty()
            })
          )
          const browser = yield* SessionTest.browser(route)
          assert.strictEqual(
            yield* textOf(browser.post("/", { headers: { "sec-fetch-site": "cross-site" } })),
            'CrossOriginError: A page of another origin made this request: Sec-Fetch-Site is "cross-site"'
          )
        })
      )
    )

    it.effect(
      "saves no new session whose cookie could not be set, and warns",
      test(() =>
        withLog((logged) =>
          Effect.gen(function* () {
            const browser = yield* SessionTest.browser(logIn("cookie"))
            assert.strictEqual(yield* textOf(browser.post("/")), "false")
            assert.match(logged.join(), /^Warn: test\/UserSession: a new token was not saved/)
            assert.deepStrictEqual(yield* activeFields, [])
          })
        )
      )
    )

    it.effect(
      "saves a new session whose bearer token the handler hands out",
      test(() =>
        Effect.gen(function* () {
          const browser = yield* SessionTest.browser(logIn("bearer"))
          assert.strictEqual(yield* textOf(browser.post("/")), "true")
          assert.lengthOf(yield* activeFields, 1)
        })
      )
    )
  })

  describe("requests at once", () => {
    it.effect(
      "lose no update",
      test(() =>
        Effect.gen(function* () {
          const slow = Effect.tap(visit, () => Effect.yieldNow)
          const browser = yield* SessionTest.browser(routes({ "/": read, "/visit": slow }))
          yield* browser.get("/visit")
          yield* Effect.replicateEffect(browser.get("/visit"), 100, { concurrency: "unbounded" })
          assert.deepStrictEqual(yield* jsonOf(browser.get("/")), { visits: 101 })
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
          const browser = yield* SessionTest.browser(
            routes({ "/": read, "/visit": visit, "/slow": slow, "/log-out": logOut })
          )
          yield* browser.get("/visit")
          const cookies = yield* Ref.get(browser.jar)
          const fiber = yield* Effect.forkChild(browser.get("/slow"))
          yield* Deferred.await(started)
          yield* browser.get("/log-out")
          yield* Deferred.succeed(done, undefined)
          const response = yield* Fiber.join(fiber)
          assert.strictEqual(yield* response.text, "2")
          assert.deepStrictEqual(setCookiesOf(response), [])
          assert.strictEqual((yield* activeFields).length, 0)
          yield* Ref.set(browser.jar, cookies)
          assert.deepStrictEqual(yield* jsonOf(browser.get("/")), { visits: 0 })
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
            const browser = yield* SessionTest.browser(layer)
            const response = yield* browser.post(`/${name}/visit`)
            assert.strictEqual(response.headers.vary, "Cookie")
            assert.deepStrictEqual(
              (yield* browser.cookies).map(({ name }) => name),
              [cookie]
            )
            assert.strictEqual((yield* browser.post(`/${name}/deny`)).status, 403)
            assert.strictEqual(yield* textOf(browser.post(`/${name}/visit`)), "3")
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
