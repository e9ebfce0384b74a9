/**
 * The devices of a user, in the web application of examples/: several browsers, whose open pages notice a log-out.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { MemStore } from "effect-sessions"
import type { Page } from "playwright-core"
import { Routes } from "../examples/web/Routes.ts"
import { logIn, messages, openPage, press, seeHeading, seeText } from "./browsing.ts"
import { hasNoChromium, launch, warnWithoutChromium } from "./chromium.ts"
import { describeRedis, RedisServer } from "./servers.ts"

warnWithoutChromium("test/devices.test.ts")

/** The address of a server with its own store. */
const startServer = Effect.gen(function* () {
  const context = yield* HttpRouter.serve(Routes, { disableListenLog: true, disableLogger: true }).pipe(
    Layer.provide(MemStore.layer),
    Layer.provideMerge(
      NodeHttpServer.layer(createServer, { host: "localhost", port: 0, gracefulShutdownTimeout: "1 millis" })
    ),
    Layer.fresh,
    Layer.build
  )
  const { address } = yield* Effect.provide(HttpServer.HttpServer, context)
  return "port" in address ? `http://localhost:${address.port}` : assert.fail("the server listens on no port")
})

const example = fileURLToPath(new URL("../examples/web.ts", import.meta.url))

/** The address of a server in a separate process, as `npm start` starts it. */
const startProcess = Effect.fnUntraced(function* (environment: Record<string, string>) {
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, ["--import", "tsx", example], {
        env: { ...process.env, PORT: "0", ...environment },
        stdio: ["ignore", "pipe", "ignore"]
      })
    ),
    (child) =>
      Effect.promise(async () => {
        if (child.exitCode !== null) return
        const exit = once(child, "exit")
        child.kill()
        await exit
      })
  )
  return yield* Effect.callback<string>((resume) => {
    // Read its output while it runs: it logs requests, and would end if nothing read them.
    child.stdout.on("data", (data) => {
      const address = /http:\S+/.exec(String(data))?.[0]
      if (address !== undefined) resume(Effect.succeed(address))
    })
    child.once("exit", () => resume(Effect.die(new Error("the server did not start"))))
  })
})

const listening = (page: Page) =>
  Effect.promise(() => page.waitForResponse((response) => response.url().endsWith("/events")))

type Browser = Effect.Success<typeof launch>

/** The counter of a user who has logged in with a new browser, on a page that listens. */
const device = Effect.fnUntraced(function* (browser: Browser, baseURL: string, name: string, userAgent: string) {
  const context = yield* Effect.promise(() => browser.newContext({ baseURL, userAgent }))
  const page = yield* openPage(context, "/")
  const isListening = listening(page)
  yield* Effect.all([isListening, logIn(page, name)], { concurrency: 2 })
  yield* seeHeading(page, `Hello, ${name}`)
  return page
})

/** Three devices of one user. */
const threeDevices = Effect.fnUntraced(function* (browser: Browser, baseURL: string) {
  return [
    yield* device(browser, baseURL, "Ada", "Laptop"),
    yield* device(browser, baseURL, "Ada", "Phone"),
    yield* device(browser, baseURL, "Ada", "Tablet")
  ] as const
})

const rows = (page: Page) => page.getByRole("listitem")

/** Opens the list of devices, and waits until it listens. */
const openDevices = (page: Page) =>
  Effect.all([listening(page), Effect.promise(() => page.goto("/devices"))], { concurrency: 2, discard: true })

/** The devices that a page lists. */
const listed = (page: Page) => Effect.promise(() => rows(page).locator("p:first-child").allTextContents())

const devicesOn = (page: Page) => Effect.andThen(openDevices(page), listed(page))

/** In milliseconds: half of the interval after which a session looks by itself, so that an event must have told it. */
const soon = 5_000

/** The message of an open page after it has navigated by itself. */
const farewellOn = (page: Page, timeout = 20_000) =>
  Effect.gen(function* () {
    yield* Effect.promise(() => page.waitForURL(/[/]logged-out[?]/, { timeout }))
    yield* seeHeading(page, "Logged out")
    const [message, ...others] = yield* messages(page)
    assert.lengthOf(others, 0)
    return message
  })

const loggedOut = "You were logged out on another page or device."

describe.skipIf(hasNoChromium)("the devices of a user", { timeout: 120_000 }, () => {
  it.live("are listed by what the browser says of itself", () =>
    Effect.gen(function* () {
      const [browser, url] = [yield* launch, yield* startServer]
      const laptop = yield* device(browser, url, "Ada", "Laptop")
      yield* device(browser, url, "Ada", "<b>Phone</b>")
      yield* device(browser, url, "Bob", "Desktop")
      assert.deepStrictEqual(yield* devicesOn(laptop), ["Laptop (this one)", "<b>Phone</b>"])
    })
  )

  it.live("are logged out one by one, and the open page of that one says so at once", () =>
    Effect.gen(function* () {
      const [browser, url] = [yield* launch, yield* startServer]
      const [laptop, phone] = [
        yield* device(browser, url, "Ada", "Laptop"),
        yield* device(browser, url, "Ada", "Phone")
      ]
      yield* devicesOn(laptop)
      yield* Effect.promise(() => rows(laptop).nth(1).getByRole("button").click())
      yield* seeText(laptop, "Logged out: Phone.")
      assert.strictEqual(yield* farewellOn(phone, soon), loggedOut)
      yield* Effect.promise(() => phone.getByRole("link", { name: "Log in again" }).click())
      yield* seeHeading(phone, "Log in")
      assert.deepStrictEqual(yield* devicesOn(laptop), ["Laptop (this one)"])
      // To log out this one is to log out.
      yield* Effect.promise(() => rows(laptop).nth(0).getByRole("button").click())
      yield* seeHeading(laptop, "Logged out")
    })
  )

  it.live("are not those of another user, who knows an id", () =>
    Effect.gen(function* () {
      const [browser, url] = [yield* launch, yield* startServer]
      const [ada, eve] = [yield* device(browser, url, "Ada", "Laptop"), yield* device(browser, url, "Eve", "Phone")]
      yield* Effect.all([openDevices(ada), openDevices(eve)])
      const button = rows(ada).getByRole("button")
      const id = yield* Effect.promise(() => button.getAttribute("value"))
      yield* Effect.promise(async () => {
        await rows(eve)
          .getByRole("button")
          .evaluate((element, id) => element.setAttribute("value", id ?? ""), id)
        await rows(eve).getByRole("button").click()
      })
      yield* seeHeading(eve, "Your devices")
      assert.deepStrictEqual(yield* devicesOn(ada), ["Laptop (this one)"])
    })
  )

  it.live("are all logged out but this one", () =>
    Effect.gen(function* () {
      const [browser, url] = [yield* launch, yield* startServer]
      const [laptop, phone, tablet] = yield* threeDevices(browser, url)
      const other = yield* device(browser, url, "Bob", "Desktop")
      yield* openDevices(laptop)
      yield* press(laptop, "Log out all others")
      for (const page of [phone, tablet]) assert.strictEqual(yield* farewellOn(page), loggedOut)
      assert.deepStrictEqual(yield* messages(laptop), ["Devices logged out: 2."])
      assert.deepStrictEqual(yield* devicesOn(laptop), ["Laptop (this one)"])
      assert.deepStrictEqual(yield* devicesOn(other), ["Desktop (this one)"])
    })
  )

  it.live("are five at the most: the oldest goes, and says so", () =>
    Effect.gen(function* () {
      const [browser, url] = [yield* launch, yield* startServer]
      const pages: Array<Page> = []
      for (const name of ["One", "Two", "Three", "Four", "Five", "Six"]) {
        pages.push(yield* device(browser, url, "Ada", name))
      }
      const [oldest, ...others] = pages
      assert.strictEqual(yield* farewellOn(oldest ?? assert.fail()), loggedOut)
      assert.deepStrictEqual(yield* devicesOn(others.at(-1) ?? assert.fail()), [
        "Two",
        "Three",
        "Four",
        "Five",
        "Six (this one)"
      ])
    })
  )

  it.live("change in an open list, at once, when one logs in or out", () =>
    Effect.gen(function* () {
      const [browser, url] = [yield* launch, yield* startServer]
      const laptop = yield* device(browser, url, "Ada", "Laptop")
      assert.deepStrictEqual(yield* devicesOn(laptop), ["Laptop (this one)"])
      yield* Effect.promise(() => rows(laptop).getByRole("button", { name: "Log out Laptop" }).focus())
      const phone = yield* device(browser, url, "Ada", "Phone")
      yield* Effect.promise(() => rows(laptop).nth(1).waitFor({ timeout: 5_000 }))
      assert.deepStrictEqual(yield* listed(laptop), ["Laptop (this one)", "Phone"])
      // With the keyboard, a user goes on where he was.
      const focused = laptop.locator("button:focus")
      assert.strictEqual(yield* Effect.promise(() => focused.getAttribute("aria-label")), "Log out Laptop")
      yield* press(phone, "Log out")
      yield* Effect.promise(() => rows(laptop).nth(1).waitFor({ state: "detached", timeout: 5_000 }))
      assert.deepStrictEqual(yield* listed(laptop), ["Laptop (this one)"])
    })
  )

  it.live("all go to the page that says so when one of them logs out everywhere", () =>
    Effect.gen(function* () {
      const [browser, url] = [yield* launch, yield* startServer]
      const [laptop, phone, tablet] = yield* threeDevices(browser, url)
      yield* openDevices(laptop)
      yield* openDevices(tablet)
      yield* press(laptop, "Log out everywhere")
      for (const page of [phone, tablet]) {
        assert.strictEqual(yield* farewellOn(page), loggedOut)
        assert.strictEqual(new URL(page.url()).search, "?how=destroyed")
      }
      // The page on which it was done says what was done.
      yield* seeHeading(laptop, "Logged out")
      assert.deepStrictEqual(yield* messages(laptop), ["You are logged out on all 3 devices."])
      // Nothing private is left to go back to.
      yield* Effect.promise(() => tablet.goBack({ waitUntil: "commit" }))
      yield* seeHeading(tablet, "Logged out")
    })
  )

  it.live("go on after another log-in, in a tab that was open before", () =>
    Effect.gen(function* () {
      const [browser, url] = [yield* launch, yield* startServer]
      const context = yield* Effect.promise(() => browser.newContext({ baseURL: url }))
      const tab = yield* openPage(context, "/")
      const page = yield* openPage(context, "/")
      yield* Effect.all([listening(page), logIn(page, "Ada")], { concurrency: 2 })
      yield* logIn(tab, "Ada")
      assert.strictEqual(yield* farewellOn(page), "You have logged in again on another page.")
      yield* Effect.promise(() => page.goto("/"))
      yield* seeHeading(page, "Hello, Ada")
    })
  )

  it.live("share a page between two tabs, one of which logs out", () =>
    Effect.gen(function* () {
      const [browser, url] = [yield* launch, yield* startServer]
      const page = yield* device(browser, url, "Ada", "Laptop")
      const tab = yield* openPage(page.context(), "/account")
      yield* press(tab, "Log out")
      assert.strictEqual(yield* farewellOn(page), loggedOut)
    })
  )
})

describeRedis("two servers on one Redis", () => {
  describe.skipIf(hasNoChromium)("with a browser at each", { timeout: 120_000 }, () => {
    it.live("close the stream of one at a log-out on the other, before it looks by itself", () =>
      Effect.gen(function* () {
        const { port } = yield* RedisServer
        const environment = { SESSION_STORE: "redis", REDIS_URL: `redis://127.0.0.1:${port}` }
        const [one, other] = [yield* startProcess(environment), yield* startProcess(environment)]
        const browser = yield* launch
        const [laptop, phone] = [
          yield* device(browser, one, "Ada", "Laptop"),
          yield* device(browser, other, "Ada", "Phone")
        ]
        yield* openDevices(laptop)
        yield* press(laptop, "Log out all others")
        assert.strictEqual(yield* farewellOn(phone, soon), loggedOut)
      }).pipe(Effect.scoped, Effect.provide(RedisServer.layer))
    )
  })
})
