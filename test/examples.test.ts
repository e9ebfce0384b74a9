/**
 * Compiles and runs every code block of the README, the docs and the docstrings.
 *
 * A line that ends in `// => value` is a claim: it is run as an assertion that the expression before it equals the value.
 * A block fenced as `ts no-run`, such as a server that runs until it is stopped, is compiled alone.
 */
import { execFileSync } from "node:child_process"
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { afterEach, assert, beforeEach, describe, it, vi } from "@effect/vitest"

const root = new URL("../", import.meta.url)
const folder = new URL("test/.examples/", root)

interface Example {
  readonly name: string
  readonly file: string
  readonly code: string
  readonly runs: boolean
}

const examplesOf = (path: string): ReadonlyArray<Example> => {
  const lines = readFileSync(new URL(path, root), "utf8").split("\n")
  const examples: Array<Example> = []
  for (let i = 0; i < lines.length; i++) {
    const opening = /^(\s*\* )?```ts( no-run)?$/.exec(lines[i] ?? "")
    if (opening === null) continue
    const first = i + 1
    const margin = opening[1]?.length ?? 0
    const code: Array<string> = []
    while (lines[++i]?.slice(margin) !== "```") code.push(lines[i]?.slice(margin) ?? assert.fail(`${path}: no end`))
    examples.push({
      name: `${path}:${first}`,
      file: `${path.replaceAll("/", "-")}-${first}.ts`,
      code: code.join("\n"),
      runs: opening[2] === undefined
    })
  }
  return examples
}

const withAssertions = (code: string): string =>
  `import { deepStrictEqual as equal } from "node:assert/strict"\n${code.replace(
    /^(\s*)(.+?) \/\/ => (.+)$/gm,
    "$1equal($2, $3)"
  )}\nvoid equal\nexport {}\n`

const sources = readdirSync(new URL("src", root), { encoding: "utf8", recursive: true })
  .filter((file) => file.endsWith(".ts"))
  .map((file) => `src/${file.replaceAll("\\", "/")}`)
const documents = ["", "recipes/"].flatMap((folder) =>
  readdirSync(new URL(`docs/${folder}`, root))
    .filter((file) => file.endsWith(".md"))
    .map((file) => folder + file)
)
const pages = ["README.md", ...documents.map((file) => `docs/${file}`)]
const examples = [...pages, ...sources].flatMap(examplesOf)

rmSync(folder, { recursive: true, force: true })
mkdirSync(folder)
for (const { code, file } of examples) writeFileSync(new URL(file, folder), withAssertions(code))
writeFileSync(
  new URL("tsconfig.json", folder),
  JSON.stringify({
    extends: "../../tsconfig.json",
    compilerOptions: { noUnusedLocals: false },
    include: ["./*.ts"]
  })
)

const run = (example: Example): Promise<unknown> => import(fileURLToPath(new URL(example.file, folder)))

describe("examples", () => {
  it("are found in the README and in every module with a docstring", () => {
    // The others are parts of a module, which users do not see.
    const modules = sources.filter((path) => /^ \* @module$/m.test(readFileSync(new URL(path, root), "utf8")))
    for (const path of ["README.md", ...modules.filter((path) => !path.endsWith("index.ts"))]) {
      assert.isTrue(
        examples.some(({ name }) => name.startsWith(path)),
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
    assert.isAtMost(examples[0]?.code.split("\n").length ?? Number.NaN, 20)
  })

  describe("run", () => {
    beforeEach(() => {
      vi.spyOn(console, "log").mockReturnValue(undefined)
    })
    afterEach(() => {
      vi.restoreAllMocks()
    })

    for (const example of examples.filter(({ runs }) => runs)) {
      // An example that registers tests has to be loaded while tests are collected.
      if (example.code.includes("@effect/vitest")) describe(example.name, () => run(example).then(() => undefined))
      else it(example.name, () => run(example))
    }
  })

  it("make claims that are checked", () => {
    assert.include(withAssertions("  yield* store.size // => 0"), "  equal(yield* store.size, 0)")
  })
})
