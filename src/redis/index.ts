/**
 * Sessions in Redis.
 *
 * @module
 */
export * from "./RedisStore.ts"
