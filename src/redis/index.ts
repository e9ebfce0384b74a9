/**
 * Sessions in Redis, and what happens to them told to every server.
 *
 * @module effect-sessions/redis
 */
export * from "./RedisEvents.ts"
export * from "./RedisStore.ts"
