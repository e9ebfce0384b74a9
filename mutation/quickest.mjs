import { BaseSequencer } from "vitest/node"

// From what takes a second to what takes ten.
const slow = [
  "token",
  "turns",
  "session/faults",
  "nesting",
  "HttpSession",
  "MemStore",
  "indexesOnStores",
  "httpServer",
  "linearizable",
  "webPages",
  "races",
  "fuzz",
  "httpRenewal",
  "sealed",
  "explorer"
]

const placeOf = ({ moduleId }) => slow.findIndex((name) => moduleId.endsWith(`/${name}.test.ts`))

/** The quick test files first: most mutants are noticed by one of them, and the rest need not run. */
export class Quickest extends BaseSequencer {
  async sort(files) {
    return files.toSorted((one, other) => placeOf(one) - placeOf(other) || (one.moduleId < other.moduleId ? -1 : 1))
  }
}
