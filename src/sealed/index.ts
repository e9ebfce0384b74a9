/**
 * Encrypted sessions, on any store.
 *
 * @module effect-sessions/sealed
 */
export * from "./SealedStore.ts"
