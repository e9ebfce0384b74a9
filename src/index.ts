/**
 * The core: typed sessions, the contract of a store, and the store in memory.
 *
 * It needs nothing but the stable part of Effect. What builds on HTTP, Redis, SQL or a test runner has an entry of its
 * own, named after its module.
 *
 * @module effect-sessions
 */
export * from "./MemStore.ts"
/**
 * Typed sessions on any store. `Session.Service` makes a session class: a service tag with a schema, whose service is one
 * session of a user. It knows nothing of HTTP.
 */
export * as Session from "./Session.ts"
export * from "./SessionEvents.ts"
export * from "./SessionStore.ts"
