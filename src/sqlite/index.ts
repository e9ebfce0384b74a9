/**
 * Sessions in one SQLite file. Needs Node.js 22.13 or later.
 *
 * @module effect-sessions/sqlite
 */
export * from "./SqliteStore.ts"
export * from "./SqliteStoreError.ts"
