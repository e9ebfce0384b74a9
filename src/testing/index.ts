/**
 * What tests need: a session for a handler, and the contract of `SessionStore` as a suite.
 *
 * @module effect-sessions/testing
 */
export * as SessionStoreTest from "./SessionStoreTest.ts"
export * as SessionTest from "./SessionTest.ts"
