import base, { unit } from "../vitest.config.ts"

// Without the tests that start processes, which no mutant reaches.
const startsProcesses = /(index|examples|hammer)\.test\.ts$/

export default {
  ...base,
  test: { ...base.test, projects: undefined, include: unit.test.include.filter((file) => !startsProcesses.test(file)) }
}
