import base from "../vitest.config.ts"

// Without the tests that need servers or a browser, and those that start processes, which no mutant reaches.
export default {
  ...base,
  test: { ...base.test, include: ["test/{HttpSession,MemStore,Session,SessionStore,SessionTest}.test.ts"] }
}
