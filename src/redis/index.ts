/**
 * Sessions in Redis, and session events for every server.
 *
 * @module effect-sessions/redis
 */
export * from "./RedisEvents.ts"
export * from "./RedisStore.ts"
