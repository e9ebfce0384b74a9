/**
 * Compiles the measured code, but not its packages, to a folder from which it finds them. A compiler that runs during a
 * measurement would take some of its time.
 */
import { readdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { Effect, FileSystem, Path } from "effect"
import { build } from "esbuild"

const folder = fileURLToPath(new URL(".", import.meta.url))

/** Returns the path of the built script `name` of this folder. */
export const buildScripts = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const outdir = yield* fs.makeTempDirectoryScoped({ directory: path.join(folder, "node_modules"), prefix: ".built-" })
  const scripts = ["measure", "load", ...readdirSync(path.join(folder, "servers")).map((file) => `servers/${file}`)]
  yield* Effect.promise(() =>
    build({
      entryPoints: scripts.map((script) => path.join(folder, script)),
      outbase: folder,
      outdir,
      outExtension: { ".js": ".mjs" },
      bundle: true,
      packages: "external",
      platform: "node",
      format: "esm",
      target: "node20",
      logLevel: "warning"
    })
  )
  yield* fs.copyFile(path.join(folder, "load.lua"), path.join(outdir, "load.lua"))
  return (script: string) => path.join(outdir, `${script}.mjs`)
})
