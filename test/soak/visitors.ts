/**
 * The browsers, in a separate process: `visitors.ts <port> <requests a second> <users> <seed>`. The parent says `go`
 * and `settle`. To settle is to wait for running requests, close the open pages, and log every device in.
 */
import { Agent, request } from "node:http"
import { createHistogram } from "node:perf_hooks"
import { Clock, Effect, Fiber, FiberSet, Option, Queue, Random } from "effect"

export type Command = "go" | "settle"

/** What the browsers saw since the last report, in milliseconds. */
export interface Report {
  readonly settled: boolean
  readonly requests: number
  readonly failed: number
  readonly p50: number
  readonly p99: number
  readonly max: number
  /** Pages that stayed open until their session ended. */
  readonly ended: number
}

const [port = 0, perSecond = 0, users = 0, seed = 0] = process.argv.slice(2).map(Number)

interface Browser {
  readonly user: string
  cookie: string
  isLoggedIn: boolean
}

const devicesPerUser = 3
const browsers = Array.from(
  { length: users * devicesPerUser },
  (_, i): Browser => ({ user: `user ${i % users}`, cookie: "", isLoggedIn: false })
)

const agent = new Agent({ keepAlive: true, maxSockets: 64 })
const openPages = new Set<() => void>()
const times = createHistogram()
const seen = { requests: 0, failed: 0, ended: 0 }

/** Sends a request with the cookie of a browser, and keeps the one that comes back. Returns the body. */
const send = (browser: Browser, method: "GET" | "POST", path: string) =>
  Effect.callback<string, string>((resume) => {
    const isPage = path === "/events"
    const sent = request(
      { host: "127.0.0.1", port, method, path, headers: { cookie: browser.cookie }, agent: isPage ? false : agent },
      (response) => {
        for (const cookie of response.headers["set-cookie"] ?? []) {
          browser.cookie = cookie.includes("Max-Age=0") ? "" : (cookie.split(";")[0] ?? "")
        }
        let body = ""
        response.setEncoding("utf8").on("data", (text) => {
          body += text
        })
        response.on("error", (error) => resume(Effect.fail(error.message)))
        response.on("end", () => resume((response.statusCode ?? 0) < 400 ? Effect.succeed(body) : Effect.fail(body)))
      }
    )
    sent.on("error", (error) => resume(Effect.fail(error.message)))
    const close = () => {
      resume(Effect.succeed(""))
      sent.destroy()
    }
    if (isPage) openPages.add(close)
    sent.on("close", () => openPages.delete(close))
    sent.end()
    return Effect.sync(close)
  })

const visit = Effect.fnUntraced(function* (browser: Browser, method: "GET" | "POST", path: string) {
  const began = yield* Clock.currentTimeNanos
  const user = yield* send(browser, method, path)
  times.record((yield* Clock.currentTimeNanos) - began)
  seen.requests++
  browser.isLoggedIn = user !== ""
})

const logIn = (browser: Browser) => visit(browser, "POST", `/log-in?user=${encodeURIComponent(browser.user)}`)

/** Leaves a page open, until its session ends or its user closes it. */
const watch = Effect.fnUntraced(function* (browser: Browser) {
  const seconds = yield* Random.nextIntBetween(2, 30)
  const body = yield* Effect.timeoutOption(send(browser, "GET", "/events"), seconds * 1000)
  if (Option.isSome(body) && body.value.includes("event: ended")) seen.ended++
})

/** Actions, and how many of a hundred requests are such. */
const actions: ReadonlyArray<readonly [share: number, action: (browser: Browser) => Effect.Effect<void, string>]> = [
  [45, (browser) => visit(browser, "GET", "/")],
  [25, (browser) => visit(browser, "POST", "/change")],
  [10, logIn],
  [5, (browser) => visit(browser, "GET", "/devices")],
  // A visitor who never comes back: this session ends by its idle timeout.
  [5, ({ user }) => visit({ user, cookie: "", isLoggedIn: false }, "POST", "/change")],
  [5, (browser) => visit(browser, "POST", "/log-out")],
  [4, watch],
  [1, (browser) => visit(browser, "POST", "/log-out-everywhere")]
]

const act = Effect.gen(function* () {
  const browser = browsers[yield* Random.nextIntBetween(0, browsers.length, { halfOpen: true })]
  let rest = (yield* Random.next) * 100
  const drawn = actions.find(([share]) => {
    rest -= share
    return rest < 0
  })
  if (browser === undefined || drawn === undefined) return
  yield* browser.isLoggedIn ? drawn[1](browser) : logIn(browser)
}).pipe(
  Effect.catch((error) =>
    Effect.sync(() => {
      seen.failed++
      console.error(error)
    })
  )
)

const settle = Effect.forEach(
  browsers,
  (browser) =>
    Effect.gen(function* () {
      yield* visit(browser, "GET", "/")
      if (!browser.isLoggedIn) yield* logIn(browser)
    }),
  { concurrency: 8, discard: true }
)

const tell = (settled: boolean): void => {
  const [p50, p99, max] = [times.percentile(50), times.percentile(99), times.max].map((nanos) => nanos / 1e6)
  process.send?.({ settled, ...seen, p50, p99, max })
  times.reset()
  Object.assign(seen, { requests: 0, failed: 0, ended: 0 })
}

/** Starts requests at a rate that does not wait for the answers. */
const traffic = Effect.fnUntraced(function* (underWay: FiberSet.FiberSet<void>) {
  const began = yield* Clock.currentTimeMillis
  for (let sent = 0; ; ) {
    const due = (((yield* Clock.currentTimeMillis) - began) / 1000) * perSecond
    for (; sent < due; sent++) yield* FiberSet.run(underWay, act)
    yield* Effect.sleep("20 millis")
  }
})

const program = Effect.gen(function* () {
  const commands = yield* Queue.unbounded<Command>()
  // The parent is gone.
  process.on("disconnect", () => process.exit())
  process.on("message", (command: Command) => Queue.offerUnsafe(commands, command))
  const underWay = yield* FiberSet.make<void>()
  let going: Fiber.Fiber<void> | undefined
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.andThen(
        Effect.sleep("1 minute"),
        Effect.sync(() => tell(false))
      )
    )
  )
  while (true) {
    const command = yield* Queue.take(commands)
    if (going !== undefined) yield* Fiber.interrupt(going)
    if (command === "go") {
      going = yield* Effect.forkScoped(traffic(underWay))
      continue
    }
    for (const close of openPages) close()
    yield* FiberSet.awaitEmpty(underWay)
    yield* settle
    tell(true)
  }
})

await Effect.runPromise(Effect.scoped(program).pipe(Random.withSeed(seed)))
