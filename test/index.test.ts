import { readdirSync, readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import manifest from "../package.json" with { type: "json" }

const source = new URL("../src/", import.meta.url)

/** What a module imports, and all that its imports import. */
const importsOf = (module: string, found = new Set<string>()): ReadonlySet<string> => {
  const code = readFileSync(new URL(module, source), "utf8").replace(/^\s*\*.*$/gm, "")
  for (const [, imported] of code.matchAll(/(?:from|import) "([^"]+)"/g)) {
    if (imported === undefined || found.has(imported)) continue
    found.add(imported)
    if (imported.startsWith("./")) importsOf(imported.slice(2), found)
  }
  return found
}

describe("the root entry", () => {
  it("loads no store behind a network and no module of Effect that is unstable", () => {
    const imports = importsOf("index.ts")
    assert.isTrue(imports.has("./MemStore.ts"))
    assert.isTrue(imports.has("effect"))
    assert.deepStrictEqual(
      [...imports].filter((name) => /^@?effect\//.test(name)),
      []
    )
    for (const store of ["./RedisStore.ts", "./SqlStore.ts"]) assert.isFalse(imports.has(store))
  })
})

describe("the other entries", () => {
  it("are the modules of the package that are public", () => {
    const modules = readdirSync(source).map((file) => `./${file.replace(".ts", "")}`)
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
    assert.deepStrictEqual(Object.keys(manifest.peerDependencies), ["effect"])
    assert.isFalse("dependencies" in manifest)
  })
})
