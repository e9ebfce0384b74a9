import { execFileSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import manifest from "../package.json" with { type: "json" }

const folder = new URL("../src/", import.meta.url)

const source = (module: string) => new URL(`${module}.ts`, folder).href

const hooks = `
  import { appendFileSync } from "node:fs"
  export const resolve = async (specifier, context, next) => {
    const resolved = await next(specifier, context)
    appendFileSync(process.env.LOADED, resolved.url + "\\n")
    return resolved
  }`

/** Every module that Node loads for one. It tells by a file: a write to the pipe of the output fails when that is full. */
const loadedBy = (module: string): ReadonlyArray<string> => {
  const program = `
    import { register } from "node:module"
    register("data:text/javascript," + ${JSON.stringify(encodeURIComponent(hooks))})
    await import(${JSON.stringify(module)})`
  const temporary = mkdtempSync(join(tmpdir(), "sessions-"))
  const file = join(temporary, "loaded")
  try {
    execFileSync(process.execPath, ["--import", "tsx", "--input-type=module", "--eval", program], {
      cwd: fileURLToPath(new URL("..", import.meta.url)),
      env: { ...process.env, LOADED: file }
    })
    return readFileSync(file, "utf8")
      .split("\n")
      .filter((url) => url !== "")
  } finally {
    rmSync(temporary, { recursive: true })
  }
}

describe("the root entry", () => {
  // `effect` itself loads a few modules of these, such as `http/Cookies` for `Schema`.
  const ofEffect = new Set(loadedBy("effect"))
  const loadedBesides = (module: string) => loadedBy(source(module)).filter((url) => !ofEffect.has(url))
  const isUnwanted = (url: string) =>
    /\/effect\/dist\/(http|http-api|sql|persistence|socket)\/|\/src\/(HttpSession|RedisStore|SqlStore)/.test(url)

  it("loads no module of HTTP, SQL or persistence, and none of ours that needs one", () => {
    const loaded = loadedBesides("index")
    for (const module of ["MemStore", "Session", "SessionStore"]) assert.include(loaded, source(module))
    assert.deepStrictEqual(loaded.filter(isUnwanted), [])
  })

  it("can be told by this from an entry that does", () => {
    assert.isTrue(loadedBesides("HttpSession").some(isUnwanted))
  })
})

/** What a module imports, and all that its imports import. */
const importsOf = (module: string, found = new Set<string>()): ReadonlySet<string> => {
  const code = readFileSync(new URL(module, folder), "utf8").replace(/^\s*\*.*$/gm, "")
  for (const [, imported] of code.matchAll(/(?:from|import) "([^"]+)"/g)) {
    if (imported === undefined || found.has(imported)) continue
    found.add(imported)
    if (imported.startsWith("./")) importsOf(imported.slice(2), found)
  }
  return found
}

describe("the other entries", () => {
  it("are the modules of the package that are public", () => {
    const modules = readdirSync(folder).map((file) => `./${file.replace(".ts", "")}`)
    const internal = ["./Cleanup"]
    assert.deepStrictEqual(
      Object.keys(manifest.exports).sort(),
      [".", "./package.json", ...modules.filter((module) => module !== "./index" && !internal.includes(module))].sort()
    )
  })

  it("load nothing but Effect, which is the only dependency", () => {
    for (const [module, imports] of [
      ["RedisStore.ts", ["effect", "effect/persistence/Redis", "node:buffer"]],
      ["SqlStore.ts", ["effect", "effect/sql/SqlClient", "effect/sql/SqlError", "effect/sql/Statement", "node:buffer"]]
    ] as const) {
      assert.deepStrictEqual([...importsOf(module)].filter((name) => !name.startsWith("./")).sort(), [...imports])
    }
    const required = Object.keys(manifest.peerDependencies).filter((name) => !(name in manifest.peerDependenciesMeta))
    assert.deepStrictEqual(required, ["effect"])
    assert.isFalse("dependencies" in manifest)
  })
})
