/**
 * The pages of the web application of examples/, as the server sends them: what they show, what they link to, and
 * whether they may be cached.
 */
import { readdir } from "node:fs/promises"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Option, Queue, Stream } from "effect"
import { HttpBody } from "effect/http"
import { TestClock } from "effect/testing"
import { MemStore, SessionStore } from "effect-sessions"
import { SessionTest } from "effect-sessions/testing"
import { Routes } from "../examples/web/Routes.ts"

/** Without cleanup: to adjust the clock by days would be to wait for the sweeps. */
const store = MemStore.layerWithCleanupInterval(0)

const open = SessionTest.browser(Routes)

const logIn = (browser: SessionTest.Browser, fields: Readonly<Record<string, string>> = {}) =>
  browser.submit("/log-in", { name: "Ada", ...fields })

const entities: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'" }

/** The markup of a page, and its text. */
const read = Effect.fnUntraced(function* (browser: SessionTest.Browser, path: string) {
  const response = yield* browser.get(path)
  assert.strictEqual(response.status, 200)
  const markup = yield* response.text
  const text = markup.replace(/<[^>]*>/g, "").replace(/&([^;]+);/g, (_, name) => entities[name] ?? "")
  return { headers: response.headers, markup, text }
})

const locationOf = (browser: SessionTest.Browser, path: string) =>
  Effect.map(browser.get(path), ({ headers, status }) => ({ status, location: headers.location }))

/** What a stream of events sends until it ends. */
const follow = Effect.fnUntraced(function* (browser: SessionTest.Browser, path: string) {
  const { stream } = yield* browser.get(path)
  return yield* Effect.forkChild(Stream.mkString(Stream.decodeText(stream)), { startImmediately: true })
})

const pages = [
  { path: "/", title: "Log in" },
  { path: "/account", title: "Hello, Ada" },
  { path: "/devices", title: "Your devices" },
  { path: "/logged-out", title: "Logged out" }
]

/** Opens a page of the application, as a visitor, as a user, or right after a log-out. */
const openPage = Effect.fnUntraced(function* (path: string) {
  const browser = yield* open
  if (path !== "/") yield* logIn(browser)
  if (path === "/logged-out") yield* browser.submit("/log-out")
  return yield* read(browser, path)
})

describe("a page of the example", () => {
  for (const { path, title } of pages) {
    it.effect(`at ${path} has a title, is kept by nobody, and links to the file that makes it`, () =>
      Effect.gen(function* () {
        const { headers, markup } = yield* openPage(path)
        assert.include(markup, `<title>${title}</title>`)
        assert.include(markup, `<h1>${title}</h1>`)
        assert.strictEqual(headers["cache-control"]?.split(",")[0], "no-store")
        const links = [...markup.matchAll(/href="(\/source\/[^"]+)"/g)].map(([, link = ""]) => link)
        const sources = yield* Effect.forEach(links, (link) => Effect.flatMap(open, (browser) => read(browser, link)))
        assert.isAbove(sources.length, 1)
        assert.include(sources[0]?.markup, `/**\n * The page at \`${path}\``)
      }).pipe(Effect.provide(store))
    )
  }

  it.effect("is made by files that can all be read, and no other can", () =>
    Effect.gen(function* () {
      const browser = yield* open
      const files = yield* Effect.promise(() => readdir(new URL("../examples/web/", import.meta.url)))
      assert.isNotEmpty(files)
      for (const file of files) yield* read(browser, `/source/${file}`)
      for (const other of ["../web.ts", "Other.ts"]) {
        assert.strictEqual((yield* browser.get(`/source/${encodeURIComponent(other)}`)).status, 400)
      }
    }).pipe(Effect.provide(store))
  )

  it.effect("needs a user, if it is private", () =>
    Effect.gen(function* () {
      const browser = yield* open
      assert.deepStrictEqual(yield* locationOf(browser, "/account"), { status: 303, location: "/" })
      assert.deepStrictEqual(yield* locationOf(browser, "/devices"), { status: 303, location: "/" })
      // A visitor for whom a message waits has not been logged out.
      yield* browser.submit("/log-in", { name: " " })
      assert.lengthOf(yield* browser.cookies, 1)
      assert.deepStrictEqual(yield* locationOf(browser, "/devices"), { status: 303, location: "/" })
    }).pipe(Effect.provide(store))
  )
})

describe("the page of the example that says how a session ended", () => {
  const endings = [
    { how: "destroyed", says: "You were logged out on another page or device." },
    { how: "expired", says: "You were logged out, because nothing happened for a while." },
    { how: "renewed", says: "You have logged in again on another page." },
    { how: "gone", says: "You are logged in no longer: you logged out elsewhere, or nothing happened for a while." }
  ]
  for (const { how, says } of endings) {
    it.effect(`knows ${how}`, () =>
      Effect.gen(function* () {
        const { text } = yield* read(yield* open, `/logged-out?how=${how}`)
        assert.include(text, says)
      }).pipe(Effect.provide(store))
    )
  }

  it.effect("leaves the message of another log-in to the page that it is for", () =>
    Effect.gen(function* () {
      const browser = yield* open
      yield* logIn(browser)
      const { markup } = yield* read(browser, "/logged-out?how=renewed")
      assert.include(markup, `<p role="status">You have logged in again on another page.</p>`)
      assert.notInclude(markup, `<p role="status">Welcome, Ada!</p>`)
      assert.include((yield* read(browser, "/account")).markup, `<p role="status">Welcome, Ada!</p>`)
    }).pipe(Effect.provide(store))
  )

  it.effect("leads on if there is nothing to say", () =>
    Effect.gen(function* () {
      const browser = yield* open
      assert.deepStrictEqual(yield* locationOf(browser, "/logged-out"), { status: 303, location: "/" })
      assert.deepStrictEqual(yield* locationOf(browser, "/logged-out?how=else"), { status: 303, location: "/" })
      yield* logIn(browser)
      assert.deepStrictEqual(yield* locationOf(browser, "/logged-out"), { status: 303, location: "/account" })
      // The message was not for this page.
      assert.include((yield* read(browser, "/account")).text, "Welcome, Ada!")
    }).pipe(Effect.provide(store))
  )

  it.effect("has a user who has logged in again go on", () =>
    Effect.gen(function* () {
      const browser = yield* open
      yield* logIn(browser)
      assert.include((yield* read(browser, "/logged-out?how=renewed")).markup, 'href="/account">Go on as Ada</a>')
    }).pipe(Effect.provide(store))
  )

  it.effect("is shown to one whose session expired", () =>
    Effect.gen(function* () {
      const browser = yield* open
      yield* logIn(browser)
      yield* TestClock.adjust("8 days")
      assert.deepStrictEqual(yield* locationOf(browser, "/devices"), { status: 303, location: "/logged-out?how=gone" })
    }).pipe(Effect.provide(store))
  )
})

describe("under the hood of the example", () => {
  it.effect("is what the store holds after the response, and how many sessions the user has", () =>
    Effect.gen(function* () {
      const [browser, other] = [yield* open, yield* open]
      yield* logIn(browser)
      yield* logIn(other)
      const { text } = yield* read(browser, "/account")
      const id = /opens nothing\.\s+([\w-]{43})\n/.exec(text)?.[1] ?? assert.fail("no key")
      const held = Option.getOrThrow(yield* SessionStore.use((store) => store.find(id)))
      assert.include(text, JSON.stringify(JSON.parse(held), undefined, 2))
      assert.notInclude(held, "Welcome")
      assert.match(text, /found by the index\s+2\n/)
    }).pipe(Effect.provide(store))
  )

  it.effect("is the cookie that the response sets, of which only the start is shown", () =>
    Effect.gen(function* () {
      const browser = yield* open
      assert.match((yield* read(browser, "/")).text, /Set-Cookie in this response[^\n]+\s+none\n/)
      yield* logIn(browser, { remember: "on" })
      const token = (yield* browser.cookies)[0]?.value ?? assert.fail("no cookie")
      yield* TestClock.adjust("1 hour")
      const { markup, text } = yield* read(browser, "/account")
      assert.include(text, `session=${token.slice(0, 6)}…; Max-Age=604800; Path=/; `)
      assert.include(text, "; HttpOnly; Secure; SameSite=Lax\n")
      assert.notInclude(markup, token.slice(0, 7))

      yield* browser.submit("/log-out")
      const gone = yield* read(browser, "/logged-out")
      assert.include(gone.text, "session=; Max-Age=0; ")
      assert.include(gone.text, "Nothing of you")
    }).pipe(Effect.provide(store))
  )
})

describe("the devices of the example", () => {
  const agents = [
    ["Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0", "Firefox on Linux"],
    ["Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) Version/19.1 Mobile Safari/604.1", "Safari on iPhone"],
    ["Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/156.0 Safari/537.36 Edg/156.0", "Edge on Windows"],
    ["Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) AppleWebKit/537.36 Chrome/156.0 Safari/537.36", "Chrome on macOS"],
    ["Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 Chrome/156.0 Mobile Safari/537.36", "Chrome on Android"],
    ["curl/8.17", "curl/8.17"]
  ] as const
  for (const [agent, name] of agents) {
    it.effect(`include ${name}`, () =>
      Effect.gen(function* () {
        const browser = yield* open
        const body = HttpBody.text("name=Ada", "application/x-www-form-urlencoded")
        yield* browser.post("/log-in", { headers: { "user-agent": agent }, body })
        assert.include((yield* read(browser, "/devices")).text, `\n${name} (this one)\n`)
      }).pipe(Effect.provide(store))
    )
  }

  it.effect("show how long ago they were used", () =>
    Effect.gen(function* () {
      const [browser, other] = [yield* open, yield* open]
      yield* logIn(browser)
      yield* logIn(other)
      const times = Effect.map(read(browser, "/devices"), ({ text }) => [...text.matchAll(/logged in .+/g)].join())
      assert.strictEqual(yield* times, "logged in just now,logged in just now · used just now")
      yield* TestClock.adjust("2 hours")
      assert.strictEqual(yield* times, "logged in 2 hours ago,logged in 2 hours ago · used 2 hours ago")
      yield* other.get("/account")
      yield* TestClock.adjust("1 day")
      assert.strictEqual(yield* times, "logged in 1 day ago,logged in 1 day ago · used 1 day ago")
    }).pipe(Effect.provide(store))
  )
})

describe("an open page of the example", () => {
  for (const path of ["/account/events", "/devices/events"]) {
    it.effect(`that listens to ${path} does not keep its session from going idle, and is told so`, () =>
      Effect.gen(function* () {
        const browser = yield* open
        yield* logIn(browser)
        yield* TestClock.adjust("6 days")
        const told = yield* follow(browser, path)
        yield* TestClock.adjust("2 days")
        assert.isTrue((yield* Fiber.join(told)).endsWith("event: ended\ndata: expired\n\n"))
      }).pipe(Effect.provide(store))
    )

    it.effect(`that listens to ${path} without a session is told so`, () =>
      Effect.gen(function* () {
        const told = yield* follow(yield* open, path)
        assert.strictEqual(yield* Fiber.join(told), "event: ended\ndata: gone\n\n")
      }).pipe(Effect.provide(store))
    )
  }

  /** The number of devices in each list that an open page is sent. */
  const listsOf = Effect.fnUntraced(function* (browser: SessionTest.Browser) {
    const { stream } = yield* browser.get("/devices/events")
    const lists = yield* Queue.unbounded<number>()
    yield* Stream.decodeText(stream).pipe(
      Stream.splitLines,
      Stream.filter((line) => /^data: .*<li>/.test(line)),
      Stream.runForEach((line) => Queue.offer(lists, line.split("<li>").length - 1)),
      Effect.forkScoped
    )
    return lists
  })

  it.live("is sent the devices at once when one logs in or out", () =>
    Effect.gen(function* () {
      const [browser, other] = [yield* open, yield* open]
      yield* logIn(browser)
      const lists = yield* listsOf(browser)
      assert.strictEqual(yield* Queue.take(lists), 1)
      yield* logIn(other)
      assert.strictEqual(yield* Queue.take(lists), 2)
      yield* other.submit("/log-out")
      assert.strictEqual(yield* Queue.take(lists), 1)
    }).pipe(Effect.timeout("20 seconds"), Effect.provide(store))
  )

  it.effect("is sent the devices now and then, also if nothing happens", () =>
    Effect.gen(function* () {
      const browser = yield* open
      yield* logIn(browser)
      const lists = yield* listsOf(browser)
      assert.strictEqual(yield* Queue.take(lists), 1)
      // The stream may not wait for the clock yet.
      const passing = Effect.forever(TestClock.adjust("1 second"))
      assert.strictEqual(yield* Effect.raceFirst(Queue.take(lists), passing), 1)
    }).pipe(Effect.provide(store))
  )
})
