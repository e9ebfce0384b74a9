/**
 * Encrypted sessions, on any store.
 *
 * @module
 */
export * from "./SealedStore.ts"
