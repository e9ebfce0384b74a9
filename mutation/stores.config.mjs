import { options } from "./options.mjs"

// Cleanup too: that of MemStore, in the other run, never fails.
export default options("stores", ["src/{Redis,Sql}Store.ts", "src/Cleanup.ts"])
