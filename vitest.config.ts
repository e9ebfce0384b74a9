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

export default defineConfig({
  resolve: {
    alias: [
      { find: /^effect-sessions$/, replacement: source("index") },
      { find: /^effect-sessions\/(.*)$/, replacement: source("$1/index") }
    ]
  },
  // The default of five seconds is short for tests with servers on a busy machine.
  test: { include: ["test/**/*.test.ts"], testTimeout: 30_000, hookTimeout: 30_000 }
})
