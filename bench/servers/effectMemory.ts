import { MemStore } from "effect-sessions"
import { serveEffectSession } from "./effectApp.ts"

serveEffectSession(MemStore.layer)
