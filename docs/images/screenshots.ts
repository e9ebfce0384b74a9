/**
 * Takes the pictures of the example in the README, in Chromium, in light and dark: `npm run screenshots`.
 */
import { createServer } from "node:http"
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { MemStore } from "effect-sessions"
import type { Browser } from "playwright-core"
import { Routes } from "../../examples/web/Routes.ts"
import { logIn } from "../../test/browsing.ts"
import { launch } from "../../test/chromium.ts"

const Server = HttpRouter.serve(Routes, { disableListenLog: true, disableLogger: true }).pipe(
  Layer.provide(MemStore.layer),
  Layer.provideMerge(NodeHttpServer.layer(createServer, { host: "localhost", port: 0 }))
)

const agents = {
  laptop: "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
  phone: "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) Version/19.1 Mobile Safari/604.1",
  tablet: "Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0 Safari/537.36"
}

const visit = Effect.fnUntraced(function* (
  browser: Browser,
  baseURL: string,
  colorScheme: "light" | "dark",
  userAgent: string,
  width: number
) {
  const context = yield* Effect.promise(() =>
    browser.newContext({ baseURL, colorScheme, userAgent, deviceScaleFactor: 1.5, viewport: { width, height: 900 } })
  )
  const page = yield* Effect.promise(() => context.newPage())
  yield* Effect.promise(() => page.goto("/"))
  yield* logIn(page, "Ada")
  return page
})

const take = Effect.fnUntraced(function* (browser: Browser, baseURL: string, colorScheme: "light" | "dark") {
  const phone = yield* visit(browser, baseURL, colorScheme, agents.phone, 390)
  yield* visit(browser, baseURL, colorScheme, agents.tablet, 800)
  const page = yield* visit(browser, baseURL, colorScheme, agents.laptop, 1120)
  yield* Effect.promise(async () => {
    for (let i = 1; i <= 3; i++) {
      await page.getByRole("button", { name: "Count", exact: true }).click()
      await page.getByText(`counted to ${i}.`).waitFor()
    }
    await page.getByRole("link", { name: "Your devices" }).click()
    await page.getByRole("listitem").nth(2).waitFor()
    await page.screenshot({ path: new URL(`example-${colorScheme}.png`, import.meta.url).pathname, fullPage: true })
    await page.getByRole("button", { name: "Log out everywhere" }).click()
    await phone.getByRole("heading", { name: "Logged out" }).waitFor()
  })
})

const program = Effect.gen(function* () {
  const { address } = yield* HttpServer.HttpServer
  const browser = yield* launch
  const baseURL = `http://localhost:${"port" in address ? address.port : 0}`
  yield* take(browser, baseURL, "light")
  yield* take(browser, baseURL, "dark")
})

await Effect.runPromise(Effect.scoped(Effect.provide(program, Server)))
