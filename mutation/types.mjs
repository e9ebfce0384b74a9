import { spawnSync } from "node:child_process"
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join, relative } from "node:path"
import { declareClassPlugin, PluginKind } from "@stryker-mutator/api/plugin"

const folder = ".stryker-tmp/types"

const tsconfig = {
  extends: "../../tsconfig.json",
  // A mutant may leave something unused, which breaks no type.
  compilerOptions: { noUnusedLocals: false, noUnusedParameters: false, allowUnreachableCode: true, paths: {} },
  include: ["src"]
}

const offsetOf = (text, { line, column }) =>
  text
    .split("\n")
    .slice(0, line)
    .reduce((offset, before) => offset + before.length + 1, column)

const mutate = (text, { location, replacement }) =>
  text.slice(0, offsetOf(text, location.start)) + replacement + text.slice(offsetOf(text, location.end))

/**
 * Leaves out the mutants that do not compile, which `npm run check` notices. Each mutant is a copy of its file, beside
 * the file, so one run of the compiler checks them all.
 */
class TypesChecker {
  async init() {
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
    cpSync("src", join(folder, "src"), { recursive: true })
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(tsconfig))
  }

  async group(mutants) {
    return [mutants.map(({ id }) => id)]
  }

  async check(mutants) {
    const copies = new Map()
    for (const mutant of mutants) {
      const file = join(folder, relative(".", mutant.fileName))
      const copy = join(dirname(file), `mutant${mutant.id}.ts`)
      writeFileSync(copy, mutate(readFileSync(file, "utf8"), mutant))
      copies.set(copy, mutant.id)
    }
    const options = ["--noEmit", "--pretty", "false", "--project", folder]
    const tsc = spawnSync("node_modules/.bin/tsc", options, { encoding: "utf8", maxBuffer: 2 ** 30 })
    if (tsc.error !== undefined) throw tsc.error
    const reasons = new Map()
    for (const [, file, reason] of tsc.stdout.matchAll(/^(.+?)\(\d+,\d+\): error (TS\d+: .*)$/gm)) {
      if (!copies.has(file)) throw new Error(`${file} does not compile: ${reason}`)
      reasons.set(copies.get(file), reason)
    }
    // It may have ended before it checked a mutant.
    if (tsc.status !== 0 && reasons.size === 0) throw new Error(`tsc: ${tsc.signal ?? tsc.stdout}`)
    for (const copy of copies.keys()) rmSync(copy)
    const resultOf = (reason) => (reason === undefined ? { status: "passed" } : { status: "compileError", reason })
    return Object.fromEntries(mutants.map(({ id }) => [id, resultOf(reasons.get(id))]))
  }
}

export const strykerPlugins = [declareClassPlugin(PluginKind.Checker, "types", TypesChecker)]
