import { fileURLToPath } from "node:url"
import base, { unit } from "../vitest.config.ts"
import { Quickest } from "./quickest.mjs"

// Without the tests that start processes or plant faults of their own, and those of stores with a separate entry.
const without = /(examples|explorerFaults|hammer|index|links|programs|SessionStoreTest|SqliteStore)\.test\.ts$/

export default {
  ...base,
  test: {
    ...base.test,
    projects: undefined,
    include: unit.test.include.filter((file) => !without.test(file)),
    setupFiles: [fileURLToPath(new URL("./load.ts", import.meta.url))],
    sequence: { sequencer: Quickest },
    // Loads the modules once for each mutant, not once for each test file.
    isolate: false,
    // Most mutants that hang do so in a test that takes a few milliseconds.
    testTimeout: 10_000
  }
}
