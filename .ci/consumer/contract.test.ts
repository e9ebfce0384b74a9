/** The one entry that needs a test runner. */
import { it } from "@effect/vitest"
import { MemStore } from "effect-sessions"
import { SessionStoreTest } from "effect-sessions/testing"

SessionStoreTest.suite("MemStore of the package", MemStore.layer, it.effect)
