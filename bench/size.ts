/**
 * Bundles and minifies MemStore as an application would that uses nothing else, asserts that it pulls in nothing else,
 * and prints its size without Effect's.
 */
import assert from "node:assert/strict"
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"
import { build } from "esbuild"

const limit = 4_000

for (const entry of ["effect-sessions", "effect-sessions/MemStore"]) {
  const { metafile, outputFiles } = await build({
    stdin: {
      contents: `export { MemStore } from "${entry}"`,
      resolveDir: fileURLToPath(new URL("..", import.meta.url))
    },
    // The package as it is installed: the paths of our own tsconfig.json would lead to its source.
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
  assert.deepEqual(modules.map(([module]) => module).sort(), [
    "dist/Cleanup.js",
    "dist/MemStore.js",
    "dist/SessionStore.js"
  ])
  assert.deepEqual([...new Set(output?.imports.map(({ path }) => path))].sort(), ["effect", "node:buffer"])

  const bundle = outputFiles[0]?.contents ?? assert.fail("There is no bundle")
  console.log(`MemStore from ${entry}: ${bundle.length} bytes minified, ${gzipSync(bundle).length} with gzip`)
  assert.ok(bundle.length < limit, `That is not below ${limit} bytes`)
}
