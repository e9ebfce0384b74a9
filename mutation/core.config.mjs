import { options, stores } from "./options.mjs"

export default options("core", [
  "src/**/*.ts",
  // The test suite of stores: a mutant of it is a weaker test.
  "!src/testing/SessionStoreTest.ts",
  // In the other run.
  ...stores.map((pattern) => `!${pattern}`)
])

// Mutants that survive, and may:
// - a check of `_tag` before a field that only that variant has (`id`, `status`, `commit`, `destroy`, `merge`,
//   `renewToken`): TypeScript demands it, and without it the field is undefined, which comes to the same
// - the default "renew" of `undecodable`, the "nothing" of `claim`, the tag "RenewedElsewhere": all that is asked is whether
//   it is another
// - the early return of `renewToken` if the session has ended: the code after it has the same result
// - whether a span is made where there is no tracer, and whether it captures a stack; how many sessions a page has: only
//   time tells
// - the status of a response to a client that disconnected: nobody gets it
// - the identifier of an error's schema, and the value of the cookie that is made to try its options
// - a cookie or a domain that is undefined: its text "undefined" is no token, and a valid domain
// - the anchors of `127.` and `[::1]`: no URL has a host with more before or after them
