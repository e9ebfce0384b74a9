/**
 * Every link of a page resolves: the file exists, and so does the heading in it. Links to other sites are not followed.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { pictures } from "../docs/images/draw.ts"
import packageJson from "../package.json" with { type: "json" }

const root = new URL("../", import.meta.url)

const pagesIn = (folder: string): ReadonlyArray<string> =>
  readdirSync(new URL(folder, root))
    .filter((file) => file.endsWith(".md"))
    .map((file) => folder + file)

const pages = ["", "docs/", "docs/recipes/"].flatMap(pagesIn)

const textOf = (page: string): string => readFileSync(new URL(page, root), "utf8")

/** A page without its code, which has brackets of other kinds. */
const proseOf = (page: string): string => textOf(page).replace(/^```.*?^```$/gms, "")

/** The anchors of a page, as GitHub makes them from its headings. */
const anchorsOf = (page: string): ReadonlyArray<string> =>
  [...proseOf(page).matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-")
  )

const linksOf = (page: string): ReadonlyArray<string> =>
  [...proseOf(page).matchAll(/\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$|(?:src|srcset)="([^"]+)"/gm)]
    .map(([, inline, reference, image]) => inline ?? reference ?? image ?? "")
    .filter((link) => !/^[a-z]+:/.test(link))

const isPublished = (path: string): boolean =>
  /^(README|LICENSE|package\.json)/.test(path) ||
  packageJson.files.some((pattern) =>
    pattern.includes("*")
      ? new RegExp(`^${pattern.replaceAll(".", "\\.").replaceAll("*", "[^/]*")}$`).test(path)
      : path === pattern || path.startsWith(`${pattern}/`)
  )

describe("the links", () => {
  for (const page of pages) {
    it(`of ${page} lead to files and headings that are there`, () => {
      for (const link of linksOf(page)) {
        const [path = "", anchor] = link.split("#")
        const target = path === "" ? page : new URL(path, new URL(page, root)).href.slice(root.href.length)
        assert.isTrue(existsSync(new URL(target, root)), `${link}: there is no ${target}`)
        if (anchor !== undefined) assert.include(anchorsOf(target), anchor, link)
      }
    })
  }

  it("of a published page lead to pages that are published too", () => {
    for (const page of pages.filter(isPublished)) {
      for (const link of linksOf(page).filter((link) => /\.md(#|$)/.test(link))) {
        const target = new URL(link.split("#")[0] ?? "", new URL(page, root)).href.slice(root.href.length)
        assert.isTrue(isPublished(target), `${page}: ${target} is not published`)
      }
    }
  })

  it("find links", () => {
    assert.isAtLeast(pages.flatMap(linksOf).length, 50)
  })
})

describe("the README", () => {
  it("has 150 lines at the most", () => {
    assert.isAtMost(textOf("README.md").trimEnd().split("\n").length, 150)
  })

  it("shows the pictures that docs/images/draw.ts draws", () => {
    for (const [file, text] of Object.entries(pictures())) {
      assert.strictEqual(textOf(`docs/images/${file}`), text, "npm run images")
    }
  })
})
