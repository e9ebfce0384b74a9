import { options, stores } from "./options.mjs"

export default options("core", [
  "src/**/*.ts",
  // The test suite of stores: a mutant of it is a weaker test.
  "!src/testing/SessionStoreTest.ts",
  // In the other run.
  ...stores.map((pattern) => `!${pattern}`)
])

// Mutants that survive, and may:
// - a shortcut that saves time, memory or a look-up, and whose result is that of the code after it: `length`, `size`,
//   `isNew`, `isPending`, `isAsBefore`, `discard`, the default of what is a tag or a text of nobody
// - what is let go of when nobody waits any more, as no call can see it: listeners, places, the pool of random bytes
// - the last millisecond, draw or member of a bound that is a choice and no promise
// - which half of a hash an odd character goes to, and in which order equals are evicted
// - what a session is overwritten with that has expired long ago
// - whether a span captures a stack
// - the status of a response to a client that disconnected: nobody gets it
// - the identifier of an error's schema or of a service, and the value of the cookie that is made to try its options
// - the second of two checks that see the same, such as a revoked member at the join and at the confirmation
// - what is done for a fiber that is interrupted between two steps which Effect runs at once today
