/**
 * Compiles and runs every code block of the README, the docs and the docstrings.
 *
 * A line that ends in `// => value` is a claim: it is run as an assertion that the expression before it equals the value.
 * What is fenced as `ts process` runs in programs.test.ts.
 */
import { execFileSync } from "node:child_process"
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import process from "node:process"
import { fileURLToPath } from "node:url"
import { afterEach, assert, beforeEach, describe, it, vi } from "@effect/vitest"
import { type Block, blocks, root, sources } from "./blocks.ts"

const folder = new URL("test/.examples/", root)

const withAssertions = (code: string): string =>
  `import { deepStrictEqual as equal } from "node:assert/strict"\n${code.replace(
    /^(\s*)(.+?) \/\/ => (.+)$/gm,
    "$1equal($2, $3)"
  )}\nvoid equal\nexport {}\n`

rmSync(folder, { recursive: true, force: true })
mkdirSync(folder)
for (const { code, file } of blocks) writeFileSync(new URL(file, folder), withAssertions(code))
writeFileSync(
  new URL("tsconfig.json", folder),
  JSON.stringify({
    extends: "../../tsconfig.json",
    compilerOptions: { noUnusedLocals: false },
    include: ["./*.ts"]
  })
)

const run = (block: Block): Promise<unknown> => import(fileURLToPath(new URL(block.file, folder)))

const hasSqlite = process.getBuiltinModule("node:sqlite") !== undefined
if (!hasSqlite)
  console.warn(`Skipped: the examples of SqliteStore, for want of node:sqlite in Node.js ${process.version}`)

describe("examples", () => {
  it("are found in the README and in every module with a docstring", () => {
    // The others are parts of a module, which users do not see.
    const modules = sources.filter((path) => /^ \* @module$/m.test(readFileSync(new URL(path, root), "utf8")))
    for (const path of ["README.md", ...modules.filter((path) => !path.endsWith("index.ts"))]) {
      assert.isTrue(
        blocks.some(({ name }) => name.startsWith(path)),
        path
      )
    }
  })

  it("compile", { timeout: 60_000 }, () => {
    const tsc = fileURLToPath(new URL("node_modules/.bin/tsc", root))
    try {
      execFileSync(tsc, ["--project", fileURLToPath(folder)], { encoding: "utf8" })
    } catch (error) {
      assert.fail((error as { readonly stdout: string }).stdout)
    }
  })

  it("of a first program has twenty lines at the most", () => {
    assert.isAtMost(blocks[0]?.code.split("\n").length ?? Number.NaN, 20)
  })

  describe("run", () => {
    beforeEach(() => {
      vi.spyOn(console, "log").mockReturnValue(undefined)
    })
    afterEach(() => {
      vi.restoreAllMocks()
    })

    for (const block of blocks.filter(({ kind }) => kind === "run")) {
      const { code, name } = block
      // An example that registers tests has to be loaded while tests are collected.
      if (code.includes("@effect/vitest")) describe(name, () => run(block).then(() => undefined))
      else it.skipIf(!hasSqlite && code.includes("effect-sessions/sqlite"))(name, () => run(block))
    }
  })

  it("make claims that are checked", () => {
    assert.include(withAssertions("  yield* store.size // => 0"), "  equal(yield* store.size, 0)")
  })
})
