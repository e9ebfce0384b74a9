import { it } from "@effect/vitest"
import { MemStore } from "effect-sessions"
import { SessionStoreTest } from "effect-sessions/testing"

SessionStoreTest.indexes("MemStore", MemStore.layer, it.effect)
SessionStoreTest.indexes("MemStore on a real clock", MemStore.layer, it.live)
