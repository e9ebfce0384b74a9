import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer, Option, Ref, Schema, Stream } from "effect"
import { Cookies, HttpClient, HttpClientResponse, HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { TestClock } from "effect/testing"
import { MemStore, Session } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"
import { SessionTest } from "effect-sessions/testing"

class Visits extends Session.Service<Visits>()("test/Visits", { schema: Schema.Int, initial: () => 0 }) {}

// Without cleanup: to adjust the clock by hours would be to wait for the sweeps.
const memory = MemStore.layerWithCleanupInterval(0)

const Counter = HttpRouter.add(
  "*",
  "/count",
  Effect.gen(function* () {
    const visits = yield* Visits
    yield* visits.update((n) => n + 1)
    return HttpServerResponse.text(String(yield* visits.get))
  })
).pipe(Layer.provide(HttpSession.middleware(Visits).layer))

/** Returns the request that it got, and sets the requested cookie. */
const Echo = Layer.mergeAll(
  HttpRouter.add(
    "*",
    "*",
    Effect.gen(function* () {
      const { headers, url } = yield* HttpServerRequest.HttpServerRequest
      const response = yield* HttpServerResponse.json({ headers: { ...headers } })
      const cookie = new URL(url, "http://localhost").searchParams.get("cookie")
      return cookie === null ? response : HttpServerResponse.setHeader(response, "set-cookie", cookie)
    })
  ),
  HttpRouter.add(
    "POST",
    "/form",
    Effect.flatMap(
      HttpServerRequest.schemaBodyUrlParams(Schema.Struct({ name: Schema.String })),
      HttpServerResponse.json
    )
  ),
  HttpRouter.add("POST", "/away", HttpServerResponse.redirect("/count", { status: 303 }))
)

type Responding<E, R> = Effect.Effect<HttpClientResponse.HttpClientResponse, E, R>

const textOf = <E, R>(response: Responding<E, R>) => Effect.flatMap(response, ({ text }) => text)

const Sent = Schema.Struct({ headers: Schema.Record(Schema.String, Schema.String) })

/** What the site was sent. */
const sentBy = <E, R>(response: Responding<E, R>) => Effect.flatMap(response, HttpClientResponse.schemaBodyJson(Sent))

const cookieSentBy = <E, R>(response: Responding<E, R>) => Effect.map(sentBy(response), ({ headers }) => headers.cookie)

/** Has the site set a cookie. */
const set = (browser: SessionTest.Browser, cookie: string) => browser.get("/set", { urlParams: { cookie } })

describe("SessionTest", () => {
  describe("layer", () => {
    it.effect("provides a session with the value, as a request with a cookie would find it", () =>
      Effect.gen(function* () {
        const visits = yield* Visits
        assert.strictEqual(yield* visits.get, 41)
        assert.strictEqual(yield* visits.status, "unmodified")
        assert.isTrue(Option.isSome(yield* visits.token))
        assert.strictEqual(yield* Stream.runCount(Visits.sessions), 1)
        assert.isFalse(Option.getOrThrow(yield* visits.commit).isTokenNew)
      }).pipe(Effect.provide(SessionTest.layer(Visits, 41)))
    )

    it.effect("provides the session of a new visitor, if the value is the initial one", () =>
      Effect.gen(function* () {
        const visits = yield* Visits
        assert.strictEqual(yield* visits.get, 0)
        assert.deepStrictEqual(yield* visits.token, Option.none())
      }).pipe(Effect.provide(SessionTest.layer(Visits, 0)))
    )

    it.effect("dies if the value does not fit the schema", () =>
      Effect.gen(function* () {
        const exit = yield* Effect.exit(Effect.provide(Visits, SessionTest.layer(Visits, 1.5)))
        assert.instanceOf(Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined, TypeError)
      })
    )
  })

  describe("browser", () => {
    it.effect("keeps the session from request to request, and has no server", () =>
      Effect.gen(function* () {
        const browser = yield* SessionTest.browser(Counter)
        for (const n of ["1", "2", "3"]) assert.strictEqual(yield* textOf(browser.get("/count")), n)
      }).pipe(Effect.provide(memory))
    )

    it.effect("uses the store of the test", () =>
      Effect.gen(function* () {
        const browser = yield* SessionTest.browser(Counter)
        yield* browser.get("/count")
        assert.strictEqual(yield* (yield* MemStore).size, 1)
      }).pipe(Effect.provide(memory))
    )

    it.effect("opens others on the same site, each with a jar of its own", () =>
      Effect.gen(function* () {
        const laptop = yield* SessionTest.browser(Counter)
        const phone = yield* laptop.another
        yield* laptop.get("/count")
        yield* laptop.get("/count")
        assert.strictEqual(yield* textOf(phone.get("/count")), "1")
        assert.strictEqual(yield* (yield* MemStore).size, 2)
      }).pipe(Effect.provide(memory))
    )

    it.effect("lets a stolen cookie be planted", () =>
      Effect.gen(function* () {
        const victim = yield* SessionTest.browser(Counter)
        yield* victim.get("/count")
        const thief = yield* victim.another
        yield* Ref.set(thief.jar, yield* Ref.get(victim.jar))
        assert.strictEqual(yield* textOf(thief.get("/count")), "2")
      }).pipe(Effect.provide(memory))
    )

    it.effect("lets a cookie be planted that the test made, for a domain", () =>
      Effect.gen(function* () {
        const browser = yield* SessionTest.browser(Echo)
        const planted = Cookies.makeCookieUnsafe("a", "1", { domain: "localhost" })
        yield* Ref.set(browser.jar, [planted, Cookies.makeCookieUnsafe("b", "2")])
        assert.strictEqual(yield* cookieSentBy(browser.get("/")), "a=1")
      })
    )

    it.effect("shows what a response sets, and each line of it", () =>
      Effect.gen(function* () {
        const browser = yield* SessionTest.browser(Echo)
        const response = yield* set(browser, "a=1; Path=/; HttpOnly")
        assert.strictEqual(response.cookies.cookies.a?.value, "1")
        const { headers } = Option.getOrThrow(HttpClientResponse.toWeb(response))
        assert.deepStrictEqual(headers.getSetCookie(), ["a=1; Path=/; HttpOnly"])
      })
    )

    it.effect("posts a form as a page of the site does, which passes the check of other sites", () =>
      Effect.gen(function* () {
        const browser = yield* SessionTest.browser(Echo)
        const response = yield* browser.submit("/form", { name: "Ada & Grace" })
        assert.strictEqual(yield* response.text, '{"name":"Ada & Grace"}')
        const { headers } = yield* sentBy(browser.submit("/"))
        assert.strictEqual(headers["sec-fetch-site"], "same-origin")
        assert.strictEqual(headers.origin, "https://localhost")
        const counter = yield* SessionTest.browser(Counter)
        assert.strictEqual((yield* counter.submit("/count")).status, 200)
        const forged = yield* counter.post("/count", { headers: { "sec-fetch-site": "cross-site" } })
        assert.strictEqual(forged.status, 403)
      }).pipe(Effect.provide(memory))
    )

    it.effect("returns a redirect, and follows it if the client is told to", () =>
      Effect.gen(function* () {
        const browser = yield* SessionTest.browser(Layer.merge(Counter, Echo))
        assert.strictEqual((yield* browser.submit("/away")).status, 303)
        assert.strictEqual(yield* textOf(HttpClient.followRedirects(browser).post("/away")), "1")
        assert.lengthOf(yield* browser.cookies, 1)
      }).pipe(Effect.provide(memory))
    )

    it.effect("drops a cookie when it expires by the Clock, by Max-Age or else by Expires", () =>
      Effect.gen(function* () {
        const browser = yield* SessionTest.browser(Echo)
        yield* set(browser, "a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:02:00 GMT")
        yield* set(browser, "b=2; Expires=Thu, 01 Jan 1970 00:02:00 GMT")
        yield* set(browser, "c=3")
        assert.strictEqual(yield* cookieSentBy(browser.get("/")), "a=1; b=2; c=3")
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* cookieSentBy(browser.get("/")), "b=2; c=3")
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* cookieSentBy(browser.get("/")), "c=3")
        assert.deepStrictEqual(
          (yield* browser.cookies).map(({ name }) => name),
          ["c"]
        )
      })
    )

    it.effect("drops a cookie that the site removes", () =>
      Effect.gen(function* () {
        const browser = yield* SessionTest.browser(Echo)
        yield* set(browser, "a=1")
        yield* set(browser, "a=; Max-Age=0")
        assert.strictEqual(yield* cookieSentBy(browser.get("/")), undefined)
      })
    )

    it.effect("forgets what has no expiry when it is closed", () =>
      Effect.gen(function* () {
        const browser = yield* SessionTest.browser(Echo)
        yield* set(browser, "a=1")
        yield* set(browser, "b=2; Max-Age=60")
        yield* browser.restart
        assert.strictEqual(yield* cookieSentBy(browser.get("/")), "b=2")
      })
    )

    it.effect("sends a cookie to the paths that it is for, the closest first", () =>
      Effect.gen(function* () {
        const browser = yield* SessionTest.browser(Echo)
        yield* set(browser, "a=1; Path=/")
        yield* set(browser, "a=2; Path=/shop")
        yield* browser.get("/deep/er/set", { urlParams: { cookie: "b=3" } })
        assert.strictEqual(yield* cookieSentBy(browser.get("/shop")), "a=2; a=1")
        assert.strictEqual(yield* cookieSentBy(browser.get("/shopping")), "a=1")
        assert.strictEqual(yield* cookieSentBy(browser.get("/deep/er/x")), "b=3; a=1")
        assert.strictEqual(yield* cookieSentBy(browser.get("/deep")), "a=1")
      })
    )

    it.effect("sends a cookie to the domain that it is for", () =>
      Effect.gen(function* () {
        const browser = yield* SessionTest.browser(Echo, { origin: "https://shop.example.com" })
        yield* set(browser, "a=1")
        yield* set(browser, "b=2; Domain=example.com")
        yield* set(browser, "c=3; Domain=example.org")
        assert.strictEqual(yield* cookieSentBy(browser.get("/")), "a=1; b=2")
        assert.strictEqual(yield* cookieSentBy(browser.get("https://news.example.com/")), "b=2")
      })
    )

    for (const [origin, cookie, isKept] of [
      ["https://shop.example.com", "a=1; Secure", true],
      ["http://localhost:3000", "a=1; Secure", true],
      ["http://shop.example.com", "a=1; Secure", false],
      ["http://shop.example.com", "a=1", true],
      ["https://shop.example.com", "__Host-a=1; Secure; Path=/", true],
      ["https://shop.example.com", "__Host-a=1; Path=/", false],
      ["https://shop.example.com", "__Host-a=1; Secure", false],
      ["https://shop.example.com", "__Host-a=1; Secure; Path=/; Domain=example.com", false],
      ["https://shop.example.com", "__host-a=1; Path=/", false],
      ["https://shop.example.com", "__Secure-a=1; Secure; Domain=example.com", true],
      ["https://shop.example.com", "__Secure-a=1", false],
      ["https://shop.example.com", "a=1; SameSite=None; Secure", true],
      ["https://shop.example.com", "a=1; SameSite=None", false],
      ["https://shop.example.com", "a=1; Partitioned", false]
    ] as const) {
      it.effect(`${isKept ? "keeps" : "refuses"} ${cookie} from ${origin}`, () =>
        Effect.gen(function* () {
          const browser = yield* SessionTest.browser(Echo, { origin })
          yield* set(browser, cookie)
          assert.strictEqual(yield* cookieSentBy(browser.get("/")), isKept ? cookie.split(";")[0] : undefined)
          assert.lengthOf(yield* browser.cookies, isKept ? 1 : 0)
        })
      )
    }

    it.effect("sends no Secure cookie over plain HTTP", () =>
      Effect.gen(function* () {
        const browser = yield* SessionTest.browser(Echo, { origin: "https://shop.example.com" })
        yield* set(browser, "a=1; Secure")
        yield* set(browser, "b=2")
        assert.strictEqual(yield* cookieSentBy(browser.get("http://shop.example.com/")), "b=2")
      })
    )

    it.effect("keeps cookies back from requests of another site, as their SameSite says", () =>
      Effect.gen(function* () {
        const browser = yield* SessionTest.browser(Echo)
        yield* set(browser, "strict=1; SameSite=Strict")
        yield* set(browser, "lax=2; SameSite=Lax")
        yield* set(browser, "none=3; SameSite=None; Secure")
        const headers = { "sec-fetch-site": "cross-site" }
        assert.strictEqual(yield* cookieSentBy(browser.get("/")), "strict=1; lax=2; none=3")
        assert.strictEqual(yield* cookieSentBy(browser.get("/", { headers })), "lax=2; none=3")
        assert.strictEqual(yield* cookieSentBy(browser.post("/", { headers })), "none=3")
        const script = { ...headers, "sec-fetch-mode": "cors" }
        assert.strictEqual(yield* cookieSentBy(browser.get("/", { headers: script })), "none=3")
      })
    )

    it.effect("sends an Origin with what may change something, and with nothing else", () =>
      Effect.gen(function* () {
        const seen: Array<readonly [method: string, origin: string | undefined]> = []
        const browser = yield* SessionTest.browser(
          HttpRouter.add(
            "*",
            "/",
            Effect.map(HttpServerRequest.HttpServerRequest, ({ headers, method }) => {
              seen.push([method, headers.origin])
              return HttpServerResponse.empty()
            })
          )
        )
        yield* browser.get("/")
        yield* browser.head("/")
        yield* browser.post("/")
        yield* browser.del("/")
        assert.deepStrictEqual(seen, [
          ["GET", undefined],
          ["HEAD", undefined],
          ["POST", "https://localhost"],
          ["DELETE", "https://localhost"]
        ])
      })
    )

    it.effect("sends what the test says in place of its own headers", () =>
      Effect.gen(function* () {
        const browser = yield* SessionTest.browser(Echo)
        yield* set(browser, "a=1")
        assert.strictEqual(yield* cookieSentBy(browser.get("/", { headers: { cookie: "b=2" } })), "b=2")
      })
    )
  })
})
