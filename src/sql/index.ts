/**
 * Sessions in a table of a SQL database.
 *
 * @module effect-sessions/sql
 */
export * from "./SqlStore.ts"
