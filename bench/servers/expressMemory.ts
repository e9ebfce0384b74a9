import session from "express-session"
import createMemoryStore from "memorystore"
import { serveExpress } from "./expressApp.ts"

const MemoryStore = createMemoryStore(session)
serveExpress(new MemoryStore({ checkPeriod: 86_400_000 }))
