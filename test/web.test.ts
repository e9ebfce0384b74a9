/**
 * Drives the web application of examples/ in Chromium, which has its own rules for cookies, with JavaScript turned off.
 */
import { createServer } from "node:http"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { Clock, Effect, FileSystem, Layer } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { MemStore } from "effect-sessions"
import type { Page } from "playwright-core"
import { Routes } from "../examples/web/Routes.ts"
import { logIn, messages, openPage, press, seeHeading, seeText } from "./browsing.ts"
import { hasNoChromium, launchIn, warnWithoutChromium } from "./chromium.ts"

warnWithoutChromium("test/web.test.ts")

const Server = HttpRouter.serve(Routes, { disableListenLog: true, disableLogger: true }).pipe(
  Layer.provide(MemStore.layer),
  Layer.provideMerge(NodeHttpServer.layer(createServer, { host: "localhost", port: 0 }))
)

const makeFolder = FileSystem.FileSystem.use((fs) => fs.makeTempDirectoryScoped({ prefix: "effect-sessions-" }))

const openBrowser = Effect.fnUntraced(function* (folder: string) {
  const { address } = yield* HttpServer.HttpServer
  const port = "port" in address ? address.port : assert.fail("the server listens on no port")
  return yield* launchIn(folder, { baseURL: `http://localhost:${port}`, javaScriptEnabled: false })
})

/** A page in a new browser. */
const visit = (path: string) =>
  Effect.gen(function* () {
    return yield* openPage(yield* openBrowser(yield* makeFolder), path)
  })

const cookies = (page: Page) => Effect.promise(() => page.context().cookies())

const follow = (page: Page, name: string) => Effect.promise(() => page.getByRole("link", { name, exact: true }).click())

const onlyCookie = (page: Page) =>
  Effect.map(cookies(page), ([cookie, ...others]) => {
    assert.lengthOf(others, 0)
    return cookie ?? assert.fail("there is no cookie")
  })

describe.skipIf(hasNoChromium)("the web application", { timeout: 120_000 }, () => {
  layer(Server, { excludeTestServices: true })((it) => {
    it.effect("logs a user in, counts, and logs out", () =>
      Effect.gen(function* () {
        const page = yield* visit("/account")
        yield* seeHeading(page, "Log in")
        yield* logIn(page, "Ann")
        yield* seeHeading(page, "Hello, Ann")
        yield* seeText(page, "In this session you have counted to 0.")
        yield* press(page, "Count")
        yield* seeText(page, "In this session you have counted to 1.")
        yield* press(page, "Count")
        yield* seeText(page, "In this session you have counted to 2.")
        yield* press(page, "Log out")
        yield* seeHeading(page, "Logged out")
        yield* follow(page, "Log in again")
        yield* seeHeading(page, "Log in")
        yield* Effect.promise(() => page.goto("/account"))
        yield* seeHeading(page, "Log in")
      })
    )

    it.effect("shows a message once", () =>
      Effect.gen(function* () {
        const page = yield* visit("/")
        yield* logIn(page, "Ben")
        assert.deepStrictEqual(yield* messages(page), ["Welcome, Ben!"])
        yield* Effect.promise(() => page.reload())
        yield* seeHeading(page, "Hello, Ben")
        assert.deepStrictEqual(yield* messages(page), [])
      })
    )

    it.effect("says why a log-in failed, and lets the next one succeed", () =>
      Effect.gen(function* () {
        const page = yield* visit("/")
        yield* logIn(page, " ")
        assert.deepStrictEqual(yield* messages(page), ["Please enter a name of 1 to 40 characters."])
        yield* logIn(page, "Bea")
        yield* seeHeading(page, "Hello, Bea")
      })
    )

    it.effect("shows a name as it was typed", () =>
      Effect.gen(function* () {
        const name = `<b title="&amp;">O'Hara</b>`
        const page = yield* visit("/")
        yield* logIn(page, name)
        yield* seeHeading(page, `Hello, ${name}`)
        assert.deepStrictEqual(yield* messages(page), [`Welcome, ${name}!`])
        assert.strictEqual(yield* Effect.promise(() => page.title()), `Hello, ${name}`)
      })
    )

    it.effect("shows under the hood what the store holds of the session, and of the token no more than its start", () =>
      Effect.gen(function* () {
        const page = yield* visit("/")
        const panel = page.locator("details")
        assert.include(yield* Effect.promise(() => panel.textContent()), "Under the hood")
        yield* logIn(page, "Gail")
        const { value } = yield* onlyCookie(page)
        const shown = (yield* Effect.promise(() => panel.textContent())) ?? ""
        assert.include(shown, `session=${value.slice(0, 6)}…`)
        assert.include(shown, '"name": "Gail"')
        assert.notInclude(yield* Effect.promise(() => page.content()), value)
      })
    )

    it.effect("shows its own source, and no other file", () =>
      Effect.gen(function* () {
        const page = yield* visit("/")
        const source = yield* Effect.promise(() => page.request.get("/source/UserSession.ts"))
        assert.include(yield* Effect.promise(() => source.text()), "HttpSession.middleware")
        const other = yield* Effect.promise(() => page.request.get("/source/..%2F..%2F..%2Fpackage.json"))
        assert.strictEqual(other.status(), 400)
      })
    )

    it.effect("has a page for the counter and one for the devices, and says which one is shown", () =>
      Effect.gen(function* () {
        const page = yield* visit("/")
        yield* logIn(page, "Kim")
        const current = page.getByRole("navigation").locator("[aria-current=page]")
        assert.strictEqual(yield* Effect.promise(() => current.textContent()), "Counter")
        yield* follow(page, "Your devices")
        yield* seeHeading(page, "Your devices")
        assert.strictEqual(yield* Effect.promise(() => current.textContent()), "Your devices")
        yield* follow(page, "Counter")
        yield* seeHeading(page, "Hello, Kim")
      })
    )

    it.effect("fits into a narrow window, however long a name is", () =>
      Effect.gen(function* () {
        const page = yield* visit("/")
        yield* Effect.promise(() => page.setViewportSize({ width: 375, height: 700 }))
        const seeThatItFits = Effect.promise(async () => {
          assert.strictEqual(await page.locator("html").evaluate(({ scrollWidth }) => scrollWidth), 375)
          const buttons = await page
            .getByRole("button")
            .evaluateAll((buttons) => buttons.filter((button) => button.scrollWidth > button.clientWidth).length)
          assert.strictEqual(buttons, 0)
        })
        yield* seeThatItFits
        yield* logIn(yield* visit("/"), "W".repeat(40))
        yield* logIn(page, "W".repeat(40))
        yield* seeThatItFits
        yield* follow(page, "Your devices")
        yield* seeHeading(page, "Your devices")
        yield* seeThatItFits
        yield* press(page, "Log out")
        yield* seeHeading(page, "Logged out")
        yield* seeThatItFits
      })
    )

    it.effect("shows no private page when the back button is pressed after a log-out", () =>
      Effect.gen(function* () {
        const page = yield* visit("/")
        yield* logIn(page, "Cleo")
        yield* press(page, "Log out")
        yield* seeHeading(page, "Logged out")
        // A page that was kept alive never loads again.
        yield* Effect.promise(() => page.goBack({ waitUntil: "commit" }))
        yield* seeHeading(page, "Log in")
      })
    )

    it.effect("gives a visitor no cookie, and takes that of a user at log-out", () =>
      Effect.gen(function* () {
        const page = yield* visit("/")
        assert.deepStrictEqual(yield* cookies(page), [])
        yield* logIn(page, "Dora")
        assert.lengthOf(yield* cookies(page), 1)
        yield* press(page, "Log out")
        yield* seeHeading(page, "Logged out")
        assert.deepStrictEqual(yield* messages(page), ["You are logged out."])
        assert.deepStrictEqual(yield* cookies(page), [])
      })
    )

    it.effect("sets a cookie for the browser session alone, out of reach of scripts and other sites", () =>
      Effect.gen(function* () {
        const page = yield* visit("/")
        yield* logIn(page, "Emil")
        const { value, ...attributes } = yield* onlyCookie(page)
        assert.match(value, /^[\w-]{43}$/)
        assert.deepStrictEqual(attributes, {
          name: "session",
          domain: "localhost",
          path: "/",
          expires: -1,
          httpOnly: true,
          secure: true,
          sameSite: "Lax"
        })
      })
    )

    it.effect("sets a cookie until the session goes idle when the user asks to be remembered", () =>
      Effect.gen(function* () {
        const page = yield* visit("/")
        const earliest = (yield* Clock.currentTimeMillis) / 1000 + 7 * 24 * 3600
        yield* logIn(page, "Fay", { remember: true })
        const { expires } = yield* onlyCookie(page)
        const latest = (yield* Clock.currentTimeMillis) / 1000 + 7 * 24 * 3600
        // Whole seconds, rounded up.
        assert.isAtLeast(expires, earliest)
        assert.isAtMost(expires, latest + 1)
      })
    )

    it.effect("forgets a user when the browser closes, unless asked to remember", () =>
      Effect.gen(function* () {
        for (const { remember, heading } of [
          { remember: false, heading: "Log in" },
          { remember: true, heading: "Hello, Gus" }
        ]) {
          const folder = yield* makeFolder
          yield* Effect.scoped(
            Effect.gen(function* () {
              const page = yield* openPage(yield* openBrowser(folder), "/")
              yield* logIn(page, "Gus", { remember })
            })
          )
          const page = yield* openPage(yield* openBrowser(folder), "/account")
          yield* seeHeading(page, heading)
        }
      })
    )

    it.effect("renews the token at log-in, so that one that was planted opens nothing", () =>
      Effect.gen(function* () {
        const page = yield* visit("/")
        const mallory = yield* visit("/")
        yield* logIn(mallory, "Mallory")
        const planted = yield* onlyCookie(mallory)
        yield* Effect.promise(() => page.context().addCookies([planted]))
        yield* logIn(page, "Hal")
        yield* seeHeading(page, "Hello, Hal")
        assert.notStrictEqual((yield* onlyCookie(page)).value, planted.value)
        yield* Effect.promise(() => mallory.reload())
        yield* seeHeading(mallory, "Logged out")
      })
    )

    it.effect("lists the sessions of a user, and ends all of them at once", () =>
      Effect.gen(function* () {
        const here = yield* visit("/")
        yield* logIn(here, "Ida")
        yield* press(here, "Count")
        yield* seeText(here, "In this session you have counted to 1.")
        const there = yield* visit("/")
        yield* logIn(there, "Ida")
        const other = yield* visit("/")
        yield* logIn(other, "Jan")

        yield* follow(here, "Your devices")
        yield* seeHeading(here, "Your devices")
        const rows = here.getByRole("listitem")
        assert.strictEqual(yield* Effect.promise(() => rows.count()), 2)
        const mine = rows.filter({ hasText: "(this one)" })
        assert.include(yield* Effect.promise(() => mine.textContent()), "Counter 1 ")

        yield* press(here, "Log out everywhere")
        yield* seeHeading(here, "Logged out")
        assert.deepStrictEqual(yield* messages(here), ["You are logged out on all 2 devices."])
        assert.deepStrictEqual(yield* cookies(here), [])
        yield* press(there, "Count")
        yield* seeHeading(there, "Logged out")
        assert.deepStrictEqual(yield* messages(there), [
          "You are logged in no longer: you logged out elsewhere, or nothing happened for a while."
        ])
        yield* Effect.promise(() => other.reload())
        yield* seeHeading(other, "Hello, Jan")
      })
    )
  })
})
