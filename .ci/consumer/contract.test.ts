/** The one entry that needs a test runner. */
import { it } from "@effect/vitest"
import { MemStore } from "effect-sessions"
import { sessionStoreTest } from "effect-sessions/SessionStoreTest"

sessionStoreTest("MemStore of the package", MemStore.layer, it.effect)
