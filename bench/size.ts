/**
 * Bundles and minifies each entry of the package as an application would, and prints its size without Effect's. Asserts
 * that `MemStore` is small, and that the entry adds nothing to it.
 */
import assert from "node:assert/strict"
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"
import { build } from "esbuild"
import manifest from "../package.json" with { type: "json" }

const limit = 8_000

/** What an application gets that has this one line. */
const bundle = async (contents: string) => {
  const { metafile, outputFiles } = await build({
    stdin: { contents, resolveDir: fileURLToPath(new URL("..", import.meta.url)) },
    // Use the package as installed: the paths of our tsconfig.json would lead to its source.
    tsconfigRaw: {},
    external: ["effect", "effect/*"],
    platform: "node",
    format: "esm",
    bundle: true,
    minify: true,
    metafile: true,
    write: false
  })
  const [output] = Object.values(metafile.outputs)
  const modules = Object.entries(output?.inputs ?? {}).filter(([, { bytesInOutput }]) => bytesInOutput > 0)
  const { contents: code } = outputFiles[0] ?? assert.fail("There is no bundle")
  console.log(`${contents}: ${code.length} bytes minified, ${gzipSync(code).length} with gzip`)
  return {
    size: code.length,
    modules: modules.map(([module]) => module).sort(),
    imports: output?.imports.map(({ path }) => path) ?? []
  }
}

const [alone, fromEntry] = [
  await bundle('export { MemStore } from "./dist/MemStore.js"'),
  await bundle('export { MemStore } from "effect-sessions"')
]
assert.deepEqual(fromEntry.modules, alone.modules)
assert.ok(fromEntry.imports.every((name) => /^effect(\/|$)/.test(name)))
assert.ok(fromEntry.size < limit, `That is not below ${limit} bytes`)

for (const [entry, target] of Object.entries(manifest.exports)) {
  if (target?.endsWith(".js") === true) await bundle(`export * from "${entry.replace(".", "effect-sessions")}"`)
}
