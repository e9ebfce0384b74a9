import base from "../vitest.config.ts"

// The tests of these stores alone, since each run starts Redis or PostgreSQL, and those of MemStore for the cleanup.
export default {
  ...base,
  test: { ...base.test, projects: undefined, include: ["test/*Store.test.ts"], exclude: ["test/webStore.test.ts"] }
}
