import { readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const source = (module: string) => fileURLToPath(new URL(`./src/${module}.ts`, import.meta.url))

// Vitest 5 prints failures with this, and Node 20 does not have it yet.
if (!("groupBy" in Map)) {
  Object.assign(Map, {
    groupBy: <K, A>(items: Iterable<A>, keyOf: (item: A) => K) => {
      const groups = new Map<K, Array<A>>()
      for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item])
      return groups
    }
  })
}

const folder = new URL("./test/", import.meta.url)

const testFiles = readdirSync(folder, { encoding: "utf8", recursive: true })
  .filter((file) => file.endsWith(".test.ts"))
  .map((file) => file.replaceAll("\\", "/"))

// A test that needs Redis, PostgreSQL or a browser imports what starts it.
const startsServers = (file: string) =>
  /from "([./]+servers\.ts|playwright-core)"/.test(readFileSync(new URL(file, folder), "utf8"))

const project = (name: string, files: ReadonlyArray<string>) => ({
  extends: true as const,
  test: { name, include: files.map((file) => `test/${file}`) }
})

export const unit = project(
  "unit",
  testFiles.filter((file) => !startsServers(file))
)

export const servers = project("servers", testFiles.filter(startsServers))

export default defineConfig({
  resolve: {
    alias: [
      { find: /^effect-sessions$/, replacement: source("index") },
      { find: /^effect-sessions\/(.*)$/, replacement: source("$1/index") }
    ]
  },
  test: {
    projects: [unit, servers],
    // Every test is searched for secrets that get out.
    setupFiles: [fileURLToPath(new URL("./test/memory.ts", import.meta.url))],
    // The default of five seconds is short for tests with servers on a busy machine.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Tests with servers wait most of the time, and vitest would leave one of two cores alone.
    maxWorkers: 3
  }
})
