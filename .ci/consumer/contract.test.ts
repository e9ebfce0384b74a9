/** The suite of tests for a store, registered with two kinds of testers: one with a test clock, and one without. */
import { it } from "@effect/vitest"
import { Effect } from "effect"
import { MemStore } from "effect-sessions"
import { SessionStoreTest } from "effect-sessions/testing"
import { test } from "vitest"

SessionStoreTest.suite("MemStore of the package", MemStore.layer, it.effect)

const onVitest: SessionStoreTest.Tester = (title, body) => test(title, () => Effect.runPromise(body()))
SessionStoreTest.suite("MemStore on a real clock", MemStore.layer, onVitest)
