/**
 * What a user of the web application of examples/ does in a browser, and sees.
 */
import { Effect } from "effect"
import type { BrowserContext, Page } from "playwright-core"

export const openPage = Effect.fnUntraced(function* (browser: BrowserContext, path: string) {
  const page = yield* Effect.promise(() => browser.newPage())
  yield* Effect.promise(() => page.goto(path))
  return page
})

export const logIn = (page: Page, name: string, options: { readonly remember: boolean } = { remember: false }) =>
  Effect.promise(async () => {
    await page.getByLabel("Name").fill(name)
    await page.getByLabel("Remember me").setChecked(options.remember)
    await page.getByRole("button", { name: "Log in" }).click()
    await page.getByRole("status").waitFor()
  })

export const press = (page: Page, name: string) =>
  Effect.promise(() => page.getByRole("button", { name, exact: true }).click())

/** Waits for the heading. */
export const seeHeading = (page: Page, name: string) =>
  Effect.promise(() => page.getByRole("heading", { level: 1, name, exact: true }).waitFor())

export const seeText = (page: Page, text: string) =>
  Effect.promise(() => page.getByText(text, { exact: true }).waitFor())

export const messages = (page: Page) => Effect.promise(() => page.getByRole("status").allTextContents())
