import { execFileSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import manifest from "../package.json" with { type: "json" }
import { bundle, runIn } from "./bundle.ts"

const folder = new URL("../src/", import.meta.url)

/** Every module of the package, such as `Session` and `http/index`. */
const modules = readdirSync(folder, { encoding: "utf8", recursive: true })
  .filter((file) => file.endsWith(".ts"))
  .map((file) => file.replaceAll("\\", "/").replace(/\.ts$/, ""))

/** The folders that are an entry each. */
const groups = modules.filter((module) => module.endsWith("/index")).map((module) => module.replace("/index", ""))

const source = (module: string) => new URL(`${module}.ts`, folder).href

/** The names of a module that are there when it runs. */
const namesOf = async (module: string): Promise<ReadonlyArray<string>> => Object.keys(await import(source(module)))

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

/** What a module imports by name, types too. */
const importsOf = (module: string): ReadonlyArray<string> => {
  const code = readFileSync(new URL(source(module)), "utf8").replace(/^\s*\*.*$/gm, "")
  return [...code.matchAll(/(?:from|import) "([^"]+)"/g)].map(([, imported]) => imported ?? "")
}

/** The modules of the package that a module imports. */
const ownImportsOf = (module: string): ReadonlyArray<string> =>
  importsOf(module)
    .filter((imported) => imported.startsWith("."))
    .map((imported) => new URL(imported, source(module)).href.slice(folder.href.length).replace(/\.ts$/, ""))

const foreignImportsOf = (module: string): ReadonlyArray<string> =>
  importsOf(module).filter((imported) => !imported.startsWith("."))

const isCore = (module: string) => !module.includes("/") || module.startsWith("internal/")
const isStore = (module: string) => !isCore(module) && !/^(http|testing)\//.test(module)

describe("the core", () => {
  // `effect` itself loads a few modules of these, such as `http/Cookies` for `Schema`.
  const ofEffect = new Set(loadedBy("effect"))
  const loadedBesides = (module: string) => loadedBy(source(module)).filter((url) => !ofEffect.has(url))
  const isUnwanted = (url: string) =>
    /^node:|\/effect\/dist\/(http|http-api|sql|persistence|socket|testing)\//.test(url) ||
    groups.some((group) => url.startsWith(new URL(`${group}/`, folder).href))

  it("loads no module of Node, HTTP, SQL, persistence or tests, and none of the other entries", () => {
    const loaded = loadedBesides("index")
    for (const module of ["MemStore", "Session", "SessionStore"]) assert.include(loaded, source(module))
    assert.deepStrictEqual(loaded.filter(isUnwanted), [])
  })

  it("can be told by this from an entry that does", () => {
    assert.isTrue(loadedBesides("http/index").some(isUnwanted))
  })

  it("exports what a reader of the README imports", async () => {
    assert.deepStrictEqual([...(await namesOf("index"))].sort(), [
      "MemStore",
      "Session",
      "SessionEvents",
      "SessionStore",
      "SessionStoreError"
    ])
  })

  it.each(["browser", "neutral"] as const)("runs without Node, in a bundle for the platform %s", async (platform) => {
    // What every browser and every Worker has, for as far as Effect asks for it.
    const { AbortController, clearTimeout, crypto, performance, setTimeout, TextDecoder, TextEncoder, URL } = globalThis
    const realm = { AbortController, clearTimeout, crypto, performance, setTimeout, TextDecoder, TextEncoder, URL }
    const { twice } = runIn<{ twice: () => Promise<number> }>(await bundle(visits, platform), realm)
    assert.strictEqual(await twice(), 2)
  })
})

/** A program that needs all of the core: a session that is kept, and opened again by its token. */
const visits = `
  import { Effect, Option, Schema } from "effect"
  import { MemStore, Session } from "./index.ts"

  class Visits extends Session.Service()("app/Visits", { schema: Schema.Int, initial: () => 0 }) {}

  const visit = Effect.fnUntraced(function* (token) {
    const session = yield* Visits.open(token)
    yield* session.update((n) => n + 1)
    return [yield* session.get, Option.getOrThrow(yield* session.commit).token]
  })

  export const twice = () =>
    Effect.gen(function* () {
      const [, token] = yield* visit()
      return (yield* visit(token))[0]
    }).pipe(Effect.provide(MemStore.layer), Effect.runPromise)`

describe("the other entries", () => {
  it("are the folders that have an index, and what is internal is closed", () => {
    assert.deepStrictEqual(
      manifest.exports,
      Object.assign(
        { ".": "./dist/index.js", "./internal/*": null, "./package.json": "./package.json" },
        ...groups.map((group) => ({ [`./${group}`]: `./dist/${group}/index.js` }))
      )
    )
  })

  // Node 20 has no SQLite, and the entry says so; another test checks that.
  const hasSqlite = process.getBuiltinModule("node:sqlite") !== undefined
  const loadable = groups.filter((group) => group !== "sqlite" || hasSqlite)

  it.each(loadable)("%s exports names that every import reads alike", async (group) => {
    const names = await namesOf(`${group}/index`)
    assert.isAbove(names.length, 0)
    for (const name of names) assert.match(name, /^[A-Z]/)
  })

  it("export all of their modules, or use them", () => {
    const reached = new Set<string>()
    const reach = (module: string) => {
      if (reached.has(module)) return
      reached.add(module)
      ownImportsOf(module).forEach(reach)
    }
    for (const entry of ["index", ...groups.map((group) => `${group}/index`)]) reach(entry)
    assert.deepStrictEqual([...reached].sort(), [...modules].sort())
  })
})

describe("the modules", () => {
  it("need nothing but Effect and one dependency, and Node only where a store does", () => {
    for (const module of modules) {
      const allowed = isCore(module)
        ? /^(effect(\/.+)?|@noble\/hashes\/sha2\.js)$/
        : isStore(module)
          ? /^(effect(\/.+)?|node:.+)$/
          : /^effect(\/.+)?$/
      assert.deepStrictEqual(
        foreignImportsOf(module).filter((imported) => !allowed.test(imported)),
        [],
        module
      )
    }
    assert.deepStrictEqual(Object.keys(manifest.dependencies), ["@noble/hashes"])
    assert.deepStrictEqual(Object.keys(manifest.peerDependencies), ["effect"])
  })

  it("import what is below them", () => {
    // A store does not import sessions, the core does not import the entries, and internal modules import only tags
    // from above.
    const isBelow = (module: string, imported: string): boolean => {
      if (!isCore(module) && imported.startsWith(module.replace(/[^/]+$/, ""))) return true
      if (module.startsWith("internal/") || isStore(module))
        return /^(internal\/|(SessionStore|SessionEvents)$)/.test(imported)
      return isCore(imported)
    }
    for (const module of modules) {
      const above = ownImportsOf(module).filter((imported) => !isBelow(module, imported))
      assert.deepStrictEqual(above, [], module)
    }
  })

  it("never import each other in a circle", () => {
    const done = new Set<string>()
    const visit = (module: string, path: ReadonlyArray<string>) => {
      assert.notInclude(path, module, [...path, module].join(" > "))
      if (done.has(module)) return
      for (const imported of ownImportsOf(module)) visit(imported, [...path, module])
      done.add(module)
    }
    for (const module of modules) visit(module, [])
  })
})
