/**
 * Sessions in a table of a SQL database.
 *
 * @module
 */
export * from "./SqlStore.ts"
