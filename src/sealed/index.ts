/**
 * Sessions that are encrypted in whatever store keeps them.
 *
 * @module
 */
export * from "./SealedStore.ts"
