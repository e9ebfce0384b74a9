/** Bundles code into one script, as for a browser or a Worker, which have no Node. */
import { fileURLToPath } from "node:url"
import { createContext, runInContext } from "node:vm"
import { assert } from "@effect/vitest"
import { build } from "esbuild"

/** Bundles code from `src`, and asserts that the bundle is self-contained. */
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
