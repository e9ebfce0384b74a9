/**
 * The core: typed sessions, the contract of a store, and the store in memory.
 *
 * It needs only the stable part of Effect. HTTP, Redis, SQL and test support have separate entries, each named after
 * its module.
 *
 * @module effect-sessions
 */
export * from "./MemStore.ts"
/**
 * Typed sessions on any store. `Session.Service` makes a session class: a service tag with a schema, whose service is
 * one session of a user. It does not depend on HTTP.
 */
export * as Session from "./Session.ts"
export * from "./SessionEvents.ts"
export * from "./SessionStore.ts"
