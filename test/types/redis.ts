/** The types of the entry `effect-sessions/redis`. Nothing here runs: `npm run check` compiles it. */
import { expectTypeOf } from "@effect/vitest"
import type { Layer } from "effect"
import type { Redis } from "effect/persistence"
import type { SessionStore } from "effect-sessions"
import { RedisEvents, type RedisEventsOptions, RedisStore, type RedisStoreOptions } from "effect-sessions/redis"

// The layers need a client, and cannot fail: a server that is not there yet is waited for.
expectTypeOf(RedisStore.layer).toEqualTypeOf<Layer.Layer<SessionStore, never, Redis.Redis>>()
expectTypeOf(RedisStore.layerWith).toEqualTypeOf<
  (options?: RedisStoreOptions) => Layer.Layer<SessionStore, never, Redis.Redis>
>()
expectTypeOf<RedisStoreOptions>().toEqualTypeOf<{ readonly prefix?: string | undefined }>()
// @ts-expect-error: an option of another store.
RedisStore.layerWith({ table: "sessions" })

expectTypeOf(RedisEvents.layer).toEqualTypeOf<Layer.Layer<never, never, Redis.Redis>>()
expectTypeOf(RedisEvents.layerWith).toEqualTypeOf<
  (options?: RedisEventsOptions) => Layer.Layer<never, never, Redis.Redis>
>()
expectTypeOf<RedisEventsOptions>().toEqualTypeOf<{ readonly channel?: string | undefined }>()
// @ts-expect-error: a channel is a name.
RedisEvents.layerWith({ channel: 1 })
