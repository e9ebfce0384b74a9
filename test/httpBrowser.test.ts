/**
 * Pages of other origins against a session, in Chromium: it says where requests come from, and decides which cookies
 * they carry, which it keeps, and which it sends first.
 */
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Layer, Schema } from "effect"
import { Headers, HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { MemStore, Session } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"
import type { Browser, Page } from "playwright-core"
import { hasNoChromium, launch, warnWithoutChromium } from "./chromium.ts"
import { listen } from "./site.ts"

warnWithoutChromium("test/httpBrowser.test.ts")

const Person = Schema.Struct({ user: Schema.String, visits: Schema.Int })

class Account extends Session.Service<Account>()("test/Account", {
  schema: Person,
  initial: () => ({ user: "nobody", visits: 0 })
}) {}

const show = Effect.gen(function* () {
  const { user, visits } = yield* (yield* Account).get
  return HttpServerResponse.html(
    `<!doctype html><title>App</title><link rel="icon" href="data:,"><p>${user}: ${visits}</p>`
  )
})

const visit = Effect.gen(function* () {
  yield* (yield* Account).update(({ user, visits }) => ({ user, visits: visits + 1 }))
  return yield* show
})

const logIn = Effect.gen(function* () {
  const { user } = yield* HttpServerRequest.schemaBodyUrlParams(Schema.Struct({ user: Schema.String }))
  const account = yield* Account
  yield* account.renewToken
  yield* account.update(({ visits }) => ({ user, visits }))
  return HttpServerResponse.redirect("/", { status: 303 })
})

const logOut = Account.use((account) => Effect.as(account.destroy, HttpServerResponse.redirect("/", { status: 303 })))

/** Sends the name of the user as the first message. */
const makeSocket = (sessions: HttpSession.Middleware<Account, typeof Person.Type>) =>
  Effect.gen(function* () {
    const { user } = yield* (yield* sessions.open).get
    const request = yield* HttpServerRequest.HttpServerRequest
    const socket = yield* request.upgrade
    const { pull } = yield* socket.reader
    const { write } = yield* socket.writer
    yield* write(user)
    return yield* Effect.forever(pull)
  })

const App = (options?: HttpSession.Options) => {
  const sessions = HttpSession.middleware(Account, options)
  return Layer.mergeAll(
    HttpRouter.addAll([
      HttpRouter.route("GET", "/", show),
      HttpRouter.route("GET", "/visit", visit),
      HttpRouter.route("POST", "/visit", visit),
      HttpRouter.route("POST", "/log-in", logIn),
      HttpRouter.route("POST", "/log-out", logOut)
    ]).pipe(Layer.provide(sessions.layer)),
    HttpRouter.add("GET", "/socket", makeSocket(sessions))
  )
}

/** A site whose pages are blank, and which sets a cookie if it is asked to. */
const Elsewhere = HttpRouter.add(
  "GET",
  "/",
  Effect.gen(function* () {
    const { url } = yield* HttpServerRequest.HttpServerRequest
    const cookie = new URLSearchParams(url.slice(url.indexOf("?"))).get("cookie")
    const page = HttpServerResponse.html(`<!doctype html><title>Elsewhere</title><link rel="icon" href="data:,">`)
    return cookie === null ? page : HttpServerResponse.setHeader(page, "set-cookie", cookie)
  })
)

class Chromium extends Context.Service<Chromium, Browser>()("test/Chromium") {}

const open = Effect.fnUntraced(function* (url: string) {
  const browser = yield* Chromium
  const context = yield* Effect.acquireRelease(
    Effect.promise(() => browser.newContext()),
    (context) => Effect.promise(() => context.close())
  )
  const page = yield* Effect.promise(() => context.newPage())
  page.setDefaultTimeout(20_000)
  yield* go(page, url)
  return page
})

const go = (page: Page, url: string) => Effect.promise(() => page.goto(url))

const text = (page: Page) => Effect.promise(() => page.textContent("body"))

const tokens = (page: Page) =>
  Effect.promise(async () => (await page.context().cookies()).map(({ name, value }) => `${name}=${value}`))

// What runs in the page. There are no types of the DOM here, hence the text.

/** Submits a form, and waits for the page that answers. */
const submit = (page: Page, action: string, fields: Record<string, string> = {}) =>
  Effect.promise(async () => {
    const answered = page.waitForResponse((response) => response.url() === action)
    const loaded = page.waitForEvent("load")
    await page.evaluate(`{
      const form = document.createElement("form")
      form.method = "post"
      form.action = ${JSON.stringify(action)}
      for (const [name, value] of Object.entries(${JSON.stringify(fields)})) {
        form.append(Object.assign(document.createElement("input"), { name, value }))
      }
      document.body.append(form)
      form.submit()
    }`)
    const response = await answered
    await loaded
    return response.status()
  })

/** Follows a link, as by a click. */
const follow = (page: Page, href: string) =>
  Effect.promise(async () => {
    const loaded = page.waitForEvent("load")
    await page.evaluate(`{
      const link = Object.assign(document.createElement("a"), { href: ${JSON.stringify(href)} })
      document.body.append(link)
      link.click()
    }`)
    await loaded
  })

/** What a script of the page gets for a request that needs no preflight, with all cookies that the browser lets go. */
const post = (page: Page, url: string) =>
  Effect.promise(async () => {
    const answered = page.waitForResponse((response) => response.url() === url)
    await page.evaluate(
      `fetch(${JSON.stringify(url)}, { method: "POST", mode: "no-cors", credentials: "include", body: "a=b" }).then(() => {})`
    )
    return (await answered).status()
  })

/** The first message of a WebSocket. */
const listenTo = (page: Page, url: string) =>
  Effect.promise(
    (): Promise<unknown> =>
      page.evaluate(`new Promise((resolve) => {
        const socket = new WebSocket(${JSON.stringify(url)})
        socket.onmessage = ({ data }) => { resolve(data); socket.close() }
        socket.onerror = () => resolve("refused")
      })`)
  )

/** An application, and other pages: of another site, and of the same site on another port. */
const serve = Effect.fnUntraced(function* (options?: HttpSession.Options) {
  const port = yield* listen(App(options))
  const other = yield* listen(Elsewhere)
  return {
    port,
    other,
    app: `http://localhost:${port}`,
    anotherSite: `http://127.0.0.1:${other}/`,
    anotherOrigin: `http://localhost:${other}/`
  }
})

/** A user who is logged in and has visited once. */
const openLoggedIn = Effect.fnUntraced(function* (app: string) {
  const page = yield* open(`${app}/`)
  assert.strictEqual(yield* submit(page, `${app}/log-in`, { user: "ann" }), 303)
  assert.strictEqual(yield* submit(page, `${app}/visit`), 200)
  assert.strictEqual(yield* text(page), "ann: 1")
  return page
})

const Setting = Layer.merge(Layer.effect(Chromium, launch), MemStore.layerWithCleanupInterval(0))

describe.skipIf(hasNoChromium)("pages of other origins", { timeout: 120_000 }, () => {
  layer(Setting, { excludeTestServices: true })((it) => {
    for (const where of ["anotherSite", "anotherOrigin"] as const) {
      it.effect(`neither change nor replace a session by a form or a script: ${where}`, () =>
        Effect.gen(function* () {
          const site = yield* serve()
          const page = yield* openLoggedIn(site.app)
          const before = yield* tokens(page)
          for (const path of ["/visit", "/log-out"]) {
            yield* go(page, site[where])
            assert.strictEqual(yield* submit(page, `${site.app}${path}`), 403)
            yield* go(page, site[where])
            assert.strictEqual(yield* post(page, `${site.app}${path}`), 403)
          }
          assert.deepStrictEqual(yield* tokens(page), before)
          yield* go(page, `${site.app}/`)
          assert.strictEqual(yield* text(page), "ann: 1")
        })
      )

      it.effect(`log nobody in as somebody else: ${where}`, () =>
        Effect.gen(function* () {
          const site = yield* serve()
          const page = yield* openLoggedIn(site.app)
          yield* go(page, site[where])
          assert.strictEqual(yield* submit(page, `${site.app}/log-in`, { user: "mallory" }), 403)
          yield* go(page, `${site.app}/`)
          assert.strictEqual(yield* text(page), "ann: 1")

          const visitor = yield* open(site[where])
          assert.strictEqual(yield* submit(visitor, `${site.app}/log-in`, { user: "mallory" }), 403)
          assert.deepStrictEqual(yield* tokens(visitor), [])
        })
      )

      it.effect(`open no WebSocket with a session: ${where}`, () =>
        Effect.gen(function* () {
          const site = yield* serve()
          const page = yield* openLoggedIn(site.app)
          const socket = `ws://localhost:${site.port}/socket`
          assert.strictEqual(yield* listenTo(page, socket), "ann")
          yield* go(page, site[where])
          assert.strictEqual(yield* listenTo(page, socket), "refused")
        })
      )
    }

    it.effect("that are trusted may send forms and open a WebSocket", () =>
      Effect.gen(function* () {
        const other = yield* listen(Elsewhere)
        const partner = `http://localhost:${other}`
        const port = yield* listen(App({ crossOrigin: { trusted: [partner] } }))
        const page = yield* openLoggedIn(`http://localhost:${port}`)
        yield* go(page, partner)
        assert.strictEqual(yield* listenTo(page, `ws://localhost:${port}/socket`), "ann")
        assert.strictEqual(yield* submit(page, `http://localhost:${port}/visit`), 200)
        assert.strictEqual(yield* text(page), "ann: 2")
      })
    )

    it.effect("replace no session by an exempt route, to which the browser sends no cookie", () =>
      Effect.gen(function* () {
        const exempt = (request: HttpServerRequest.HttpServerRequest) => request.url === "/visit"
        const site = yield* serve({ crossOrigin: { exempt } })
        const page = yield* openLoggedIn(site.app)
        const before = yield* tokens(page)
        yield* go(page, site.anotherSite)
        assert.strictEqual(yield* submit(page, `${site.app}/visit`), 200)
        assert.strictEqual(yield* text(page), "nobody: 1")
        assert.deepStrictEqual(yield* tokens(page), before)
        yield* go(page, `${site.app}/`)
        assert.strictEqual(yield* text(page), "ann: 1")
      })
    )
  })
})

describe.skipIf(hasNoChromium)("a link from another site", { timeout: 120_000 }, () => {
  layer(Setting, { excludeTestServices: true })((it) => {
    it.effect("keeps a session whose cookie is Lax", () =>
      Effect.gen(function* () {
        const site = yield* serve()
        const page = yield* openLoggedIn(site.app)
        const before = yield* tokens(page)
        yield* go(page, site.anotherSite)
        yield* follow(page, `${site.app}/visit`)
        assert.strictEqual(yield* text(page), "ann: 2")
        assert.deepStrictEqual(yield* tokens(page), before)
      })
    )

    it.effect("does not see a session whose cookie is Strict, and does not destroy it", () =>
      Effect.gen(function* () {
        const site = yield* serve({ cookie: { sameSite: "strict" } })
        const page = yield* openLoggedIn(site.app)
        const before = yield* tokens(page)
        yield* go(page, site.anotherSite)
        yield* follow(page, `${site.app}/visit`)
        assert.strictEqual(yield* text(page), "nobody: 1")
        assert.deepStrictEqual(yield* tokens(page), before)
        yield* follow(page, `${site.app}/visit`)
        assert.strictEqual(yield* text(page), "ann: 2")
      })
    )
  })
})

describe.skipIf(hasNoChromium)("a cookie that a sibling host sets", { timeout: 120_000 }, () => {
  layer(Setting, { excludeTestServices: true })((it) => {
    const toss = (page: Page, port: number, cookie: string) =>
      go(page, `http://evil.site.localhost:${port}/?cookie=${encodeURIComponent(cookie)}`)

    // Chromium sends UTF-8. Node reads a byte a character, which hides the space; other servers decode it.
    const decode = HttpRouter.middleware(
      Effect.updateService(HttpServerRequest.HttpServerRequest, (request) => {
        const cookie = Buffer.from(request.headers.cookie ?? "", "latin1").toString("utf8")
        return request.modify({ headers: Headers.set(request.headers, "cookie", cookie) })
      }),
      { global: true }
    )

    it.effect("under a name that a space sets apart is not taken for one with a prefix", () =>
      Effect.gen(function* () {
        const other = yield* listen(Elsewhere)
        const port = yield* listen(Layer.provide(App({ cookie: { name: "__Host-session" } }), decode))
        const app = `http://app.site.localhost:${port}`
        const mallory = yield* openLoggedIn(app)
        yield* submit(mallory, `${app}/log-in`, { user: "mallory" })
        const planted = (yield* tokens(mallory)).join().split("=")[1]

        const page = yield* openLoggedIn(app)
        yield* toss(page, other, `\xa0__Host-session=${planted}; Domain=site.localhost; Path=/visit`)
        assert.lengthOf(yield* tokens(page), 2)
        yield* go(page, `${app}/visit`)
        assert.strictEqual(yield* text(page), "ann: 2")
      })
    )

    it.effect("in front of the session's locks nobody out, and a log-out still counts", () =>
      Effect.gen(function* () {
        const { other, port } = yield* serve()
        const app = `http://app.site.localhost:${port}`
        const page = yield* openLoggedIn(app)
        // A longer path goes first.
        yield* toss(page, other, "session=garbage; Domain=site.localhost; Path=/visit")
        yield* toss(page, other, `session=${"a".repeat(43)}; Domain=site.localhost; Path=/log-out`)
        assert.lengthOf(yield* tokens(page), 3)
        const token = (yield* tokens(page)).find((cookie) => !/garbage|aaa/.test(cookie)) ?? assert.fail("no token")
        yield* go(page, `${app}/visit`)
        assert.strictEqual(yield* text(page), "ann: 2")
        assert.strictEqual(yield* submit(page, `${app}/log-out`), 303)
        assert.notInclude(yield* tokens(page), token)
        const thief = yield* open(`${app}/`)
        yield* Effect.promise(() =>
          thief.context().addCookies([{ name: "session", value: token.split("=")[1] ?? "", url: app }])
        )
        yield* go(thief, `${app}/`)
        assert.strictEqual(yield* text(thief), "nobody: 0")
      })
    )
  })
})
