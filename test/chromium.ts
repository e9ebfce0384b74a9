/**
 * Chromium, which has its own rules for cookies and origins. Tests that need it are skipped if it is missing.
 */
import { existsSync } from "node:fs"
import { Effect } from "effect"
import { chromium } from "playwright-core"

const executablePath =
  process.env.CHROMIUM_PATH ??
  ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    .map((name) => `/usr/bin/${name}`)
    .find((path) => existsSync(path))

/** Whether tests with a browser are to be skipped. With `CI=true` that is an error. */
export const hasNoChromium = executablePath === undefined

/** Says why the tests of a file are skipped. */
export const warnWithoutChromium = (file: string): void => {
  if (!hasNoChromium) return
  const what = "No Chromium: install it, or set CHROMIUM_PATH"
  if (process.env.CI) throw new Error(what)
  console.warn(`${what}; ${file} is skipped`)
}

const options = {
  ...(executablePath === undefined ? {} : { executablePath }),
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync"
  ]
}

/** A browser that runs until the scope closes. Its profile is in the folder. */
export const launchIn = (folder: string, settings: { readonly baseURL: string; readonly javaScriptEnabled: boolean }) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(() =>
        chromium.launchPersistentContext(folder, {
          ...options,
          // As in the browsers of users, which keep a page that was left alive for the back button.
          ignoreDefaultArgs: ["--disable-back-forward-cache"],
          ...settings
        })
      ),
      (browser) => Effect.promise(() => browser.close())
    ),
    (browser) => {
      browser.setDefaultTimeout(20_000)
      return browser
    }
  )

/** A browser that runs until the scope closes, for contexts that share nothing and keep nothing. */
export const launch = Effect.acquireRelease(
  Effect.promise(() => chromium.launch(options)),
  (browser) => Effect.promise(() => browser.close())
)
