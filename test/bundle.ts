/** What runs where there is no Node: code in one script, as a bundler makes it for a browser or a Worker. */
import { fileURLToPath } from "node:url"
import { createContext, runInContext } from "node:vm"
import { assert } from "@effect/vitest"
import { build } from "esbuild"

/** Bundles code that stands in `src`, and asserts that the bundle is all that is needed. */
export const bundle = async (contents: string, platform: "browser" | "neutral"): Promise<string> => {
  const { metafile, outputFiles } = await build({
    stdin: { contents, resolveDir: fileURLToPath(new URL("../src", import.meta.url)) },
    bundle: true,
    write: false,
    metafile: true,
    platform,
    format: "iife",
    globalName: "bundled"
  })
  assert.deepStrictEqual(
    Object.values(metafile.outputs).flatMap((output) => output.imports),
    []
  )
  return outputFiles[0]?.text ?? assert.fail("no bundle")
}

/** Runs a bundle in a realm that has what the language has, and these globals. Returns what the code exports. */
export const runIn = <A>(script: string, globals: object): A => {
  const context = createContext({ ...globals })
  runInContext(script, context)
  return runInContext("bundled", context)
}
