import base from "../vitest.config.ts"

// The tests of these two stores alone: each run of them starts Redis or PostgreSQL.
export default { ...base, test: { ...base.test, include: ["test/{RedisStore,SqlStore}.test.ts"] } }
