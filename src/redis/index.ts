/**
 * Sessions in Redis, and what happens to them told to every server.
 *
 * @module
 */
export * from "./RedisEvents.ts"
export * from "./RedisStore.ts"
