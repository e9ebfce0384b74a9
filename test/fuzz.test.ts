/**
 * Throws odd input at whatever reads input. `npm run fuzz` does the same for as long as you like.
 */
import { describe, it } from "@effect/vitest"
import fc from "fast-check"
import { properties } from "./fuzz/properties.ts"

// One seed for all runs, so that a change is blamed for what it broke and for nothing else.
const parameters = { seed: Number(process.env.FUZZ_SEED ?? 1), numRuns: Number(process.env.FUZZ_RUNS ?? 100) }

describe("whatever comes in", () => {
  for (const [name, property] of Object.entries(properties)) it(name, () => fc.assert(property, parameters))
})
