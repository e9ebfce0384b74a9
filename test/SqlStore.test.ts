import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { SqlStore } from "effect-sessions/SqlStore"
import { sessionStoreTest } from "./SessionStoreTest.ts"
import { describePostgres, PostgresServer, postgresClient } from "./servers.ts"

/** A store with a table that no other test has. */
const emptyStore = Layer.unwrap(Effect.sync(() => SqlStore.layerWith({ table: crypto.randomUUID() })))

describePostgres("SqlStore", () => {
  layer(PostgresServer.layer, { excludeTestServices: true, timeout: "30 seconds" })("on PostgreSQL", (it) => {
    sessionStoreTest("SqlStore", Layer.provide(emptyStore, postgresClient), it.effect)
  })
})
