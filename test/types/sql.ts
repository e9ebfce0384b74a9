/** The types of the entry `effect-sessions/sql`. Nothing here runs: `npm run check` compiles it. */
import { expectTypeOf } from "@effect/vitest"
import type { Duration, Effect, Layer } from "effect"
import type { SqlClient, SqlError } from "effect/sql"
import type { SessionStore } from "effect-sessions"
import { SqlStore, type SqlStoreOptions } from "effect-sessions/sql"

// The layers may create a table, which can fail.
type SqlLayer = Layer.Layer<SessionStore, SqlError.SqlError, SqlClient.SqlClient>
expectTypeOf(SqlStore.layer).toEqualTypeOf<SqlLayer>()
expectTypeOf(SqlStore.layerWith).toEqualTypeOf<(options?: SqlStoreOptions) => SqlLayer>()
expectTypeOf<SqlStoreOptions>().toEqualTypeOf<{
  readonly table?: string | undefined
  readonly cleanupInterval?: Duration.Input | undefined
  readonly createTable?: boolean | undefined
}>()
// @ts-expect-error: an option of another store.
SqlStore.layerWith({ prefix: "sessions:" })

// A migration is an effect, as migrators want it.
type Migration = Effect.Effect<void, SqlError.SqlError, SqlClient.SqlClient>
expectTypeOf(SqlStore.migration).toEqualTypeOf<Migration>()
expectTypeOf(SqlStore.migrationWith).toEqualTypeOf<(options?: Pick<SqlStoreOptions, "table">) => Migration>()
// @ts-expect-error: a migration sweeps nothing.
export const sweeping = SqlStore.migrationWith({ cleanupInterval: "1 minute" })
