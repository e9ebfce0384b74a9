export * from "./MemStore.ts"
export * from "./SessionStore.ts"
