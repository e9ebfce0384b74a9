import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const source = (module: string) => fileURLToPath(new URL(`./src/${module}.ts`, import.meta.url))

export default defineConfig({
  resolve: {
    alias: [
      { find: /^effect-sessions$/, replacement: source("index") },
      { find: /^effect-sessions\/(.*)$/, replacement: source("$1") }
    ]
  },
  test: { include: ["test/**/*.test.ts"] }
})
