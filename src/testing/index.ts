/**
 * Test support: a session for a handler, a browser with cookies, and the contract of `SessionStore` as a suite.
 *
 * @module effect-sessions/testing
 */
export * as SessionStoreTest from "./SessionStoreTest.ts"
export * as SessionTest from "./SessionTest.ts"
