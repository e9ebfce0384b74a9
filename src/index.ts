export * from "./MemStore.ts"
export * as Session from "./Session.ts"
export * from "./SessionStore.ts"
