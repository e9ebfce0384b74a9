/** The reports of the API and the tests of its types keep up with the entries of the package. */
import { readdirSync, readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { namesIn, reportsOf } from "../api/entries.ts"
import manifest from "../package.json" with { type: "json" }

const reports = reportsOf(manifest.exports)

const textOf = (file: string): string => readFileSync(new URL(`../${file}`, import.meta.url), "utf8")

/** The code of a file, without imports and comments. */
const codeOf = (file: string): string =>
  textOf(file)
    .replace(/^import [^"]*"[^"]*"$/gm, "")
    .replace(/\/\*\*.*?\*\//gs, "")
    .replace(/\/\/.*$/gm, "")

describe("the API", () => {
  it("has one report for each entry", () => {
    const there = readdirSync(new URL("../api/", import.meta.url)).filter((file) => file.endsWith(".api.md"))
    assert.deepStrictEqual(there.sort(), reports.map(({ file }) => file).sort())
  })

  it.each(reports)("has a test of each type of the entry $entry", ({ entry, file }) => {
    const source = entry === "index" ? "src/index.ts" : `src/${entry}/index.ts`
    const names = namesIn(textOf(`api/${file}`), textOf(source))
    assert.isAbove(names.length, 1)
    const code = codeOf(`test/types/${entry}.ts`)
    const untested = names.filter((name) => !new RegExp(`(?<![\\w.])${name.replace(".", "\\.")}\\b`).test(code))
    assert.deepStrictEqual(untested, [], `Test what is new in test/types/${entry}.ts`)
  })

  it("takes the names of a report that are exported, and no others", () => {
    const report = `
import { Layer } from 'effect';

// @public
export class Store extends Store_base {
}

// @public
const Store_base: string;

declare namespace Outer {
    export {
        Inner_2 as Inner,
        make
    }
}
declare namespace Used {
    export {
        Hidden
    }
}
`
    const source = 'export * as Outer from "./Outer.ts"'
    assert.deepStrictEqual(namesIn(report, source), ["Outer.Inner", "Outer.make", "Store"])
  })
})
