import { execFileSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"

const source = (module: string) => new URL(`../src/${module}.ts`, import.meta.url).href

const hooks = `
  import { writeSync } from "node:fs"
  export const resolve = async (specifier, context, next) => {
    const resolved = await next(specifier, context)
    writeSync(1, resolved.url + "\\n")
    return resolved
  }`

/** Every module that Node loads for one. */
const loadedBy = (module: string): ReadonlyArray<string> => {
  const program = `
    import { register } from "node:module"
    register("data:text/javascript," + ${JSON.stringify(encodeURIComponent(hooks))})
    await import(${JSON.stringify(module)})`
  const output = execFileSync(process.execPath, ["--import", "tsx", "--input-type=module", "--eval", program], {
    cwd: fileURLToPath(new URL("..", import.meta.url)),
    encoding: "utf8"
  })
  return output.split("\n").filter((url) => url !== "")
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
