/**
 * SECURITY.md names a test for each claim: each of them has to be there, under that title.
 */
import { readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"

const read = (path: string) => readFileSync(new URL(`../${path}`, import.meta.url), "utf8")

/** Each title that is named after a file, with "…" for what a title has there. */
const named = [
  ...read("SECURITY.md")
    .replace(/\s+/g, " ")
    .matchAll(/`([\w/.]+\.ts)`(?::|,) ((?:"[^"]+"(?:, )?)+)/g)
].flatMap(([, file = "", titles = ""]) =>
  [...titles.matchAll(/"([^"]+)"/g)].map(([, title = ""]) => [file.startsWith("src/") ? file : `test/${file}`, title])
)

const patternOf = (title: string) =>
  new RegExp(
    `["\`]${title
      .split("…")
      .map((part) => part.trim().replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))
      .join(".*")}${title.endsWith("…") ? "" : '["`]'}`
  )

describe("SECURITY.md", () => {
  it("names tests", () => {
    assert.isAbove(named.length, 60)
  })

  for (const [file = "", title = ""] of named) {
    it(`names one of ${file} that is there: ${title}`, () => {
      assert.match(read(file), patternOf(title))
    })
  }
})
