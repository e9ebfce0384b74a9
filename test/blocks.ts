/**
 * The code blocks of the pages and of the docstrings, and what their fence says of them:
 *
 * - `ts` is compiled, and run in the test;
 * - `ts process` is compiled, and run as a separate process, such as a server that runs until it is stopped;
 * - `ts no-run` is compiled alone.
 */
import { readdirSync, readFileSync } from "node:fs"
import { assert } from "@effect/vitest"

export const root = new URL("../", import.meta.url)

export interface Block {
  /** The file, and the line at which the code begins. */
  readonly name: string
  /** A name for a file of the code. */
  readonly file: string
  readonly code: string
  readonly kind: "run" | "process" | "no-run"
}

const fence = /^(\s*\* )?```ts(?: (process|no-run))?$/

export const blocksOf = (path: string): ReadonlyArray<Block> => {
  const lines = readFileSync(new URL(path, root), "utf8").split("\n")
  const blocks: Array<Block> = []
  for (let i = 0; i < lines.length; i++) {
    const opening = fence.exec(lines[i] ?? "")
    if (opening === null) continue
    const first = i + 1
    const margin = opening[1]?.length ?? 0
    const code: Array<string> = []
    while (lines[++i]?.slice(margin) !== "```") code.push(lines[i]?.slice(margin) ?? assert.fail(`${path}: no end`))
    blocks.push({
      name: `${path}:${first}`,
      file: `${path.replaceAll("/", "-")}-${first}.ts`,
      code: code.join("\n"),
      kind: opening[2] === "process" || opening[2] === "no-run" ? opening[2] : "run"
    })
  }
  return blocks
}

const documents = ["", "recipes/"].flatMap((folder) =>
  readdirSync(new URL(`docs/${folder}`, root))
    .filter((file) => file.endsWith(".md"))
    .map((file) => `docs/${folder}${file}`)
)

export const pages = ["README.md", ...documents]

export const sources = readdirSync(new URL("src", root), { encoding: "utf8", recursive: true })
  .filter((file) => file.endsWith(".ts"))
  .map((file) => `src/${file.replaceAll("\\", "/")}`)

export const blocks = [...pages, ...sources].flatMap(blocksOf)
