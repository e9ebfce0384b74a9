/** The types of the entry `effect-sessions/sealed`. Nothing here runs: `npm run check` compiles it. */
import { expectTypeOf } from "@effect/vitest"
import { Layer, type Redacted } from "effect"
import { MemStore, type SessionStore } from "effect-sessions"
import { SealedStore, type SealedStoreOptions } from "effect-sessions/sealed"

type Key = Redacted.Redacted<string>
declare const current: Key

// A store around a store.
expectTypeOf(SealedStore.layerWith).toEqualTypeOf<
  (options: SealedStoreOptions) => Layer.Layer<SessionStore, never, SessionStore>
>()
expectTypeOf(Layer.provide(SealedStore.layerWith({ current }), MemStore.layer)).toEqualTypeOf<
  Layer.Layer<SessionStore>
>()
expectTypeOf<SealedStoreOptions>().toEqualTypeOf<{
  readonly current: Key
  readonly previous?: ReadonlyArray<Key> | undefined
}>()
// @ts-expect-error: there is no default for a key.
SealedStore.layer
// @ts-expect-error: a key in the clear could be printed.
SealedStore.layerWith({ current: "key" })
// @ts-expect-error: the old keys alone.
SealedStore.layerWith({ previous: [current] })
