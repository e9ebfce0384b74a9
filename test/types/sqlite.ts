/** The types of the entry `effect-sessions/sqlite`. Nothing here runs: `npm run check` compiles it. */
import { expectTypeOf } from "@effect/vitest"
import { type Duration, Effect, Layer } from "effect"
import type { SessionStore } from "effect-sessions"
import { SqliteStore, SqliteStoreError, type SqliteStoreOptions } from "effect-sessions/sqlite"

// The layers open a file, which can fail, and need nothing.
type SqliteLayer = Layer.Layer<SessionStore, SqliteStoreError>
expectTypeOf(SqliteStore.layer).toEqualTypeOf<(options: Pick<SqliteStoreOptions, "filename">) => SqliteLayer>()
expectTypeOf(SqliteStore.layerWith).toEqualTypeOf<(options: SqliteStoreOptions) => SqliteLayer>()
expectTypeOf<SqliteStoreOptions>().toEqualTypeOf<{
  readonly filename: string
  readonly table?: string | undefined
  readonly durability?: "os" | "disk" | undefined
  readonly cleanupInterval?: Duration.Input | undefined
}>()
// @ts-expect-error: a store without a file.
SqliteStore.layerWith({ durability: "disk" })
// @ts-expect-error: a durability that there is not.
SqliteStore.layerWith({ filename: "sessions.db", durability: "none" })

expectTypeOf<SqliteStoreError["_tag"]>().toEqualTypeOf<"SqliteStoreError">()
expectTypeOf(SqliteStoreError).instance.toExtend<Error>()
expectTypeOf(
  Layer.catchTag(SqliteStore.layer({ filename: "sessions.db" }), "SqliteStoreError", (error) =>
    Layer.effectDiscard(Effect.die(error))
  )
).toExtend<Layer.Layer<never>>()
