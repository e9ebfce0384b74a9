/**
 * Carries session events to every server, by Redis' publish and subscribe.
 *
 * @module
 */
import { Deferred, Effect, Layer, Option, Queue, Schedule, Schema } from "effect"
import * as Redis from "effect/persistence/Redis"
import { type SessionEvent, SessionEvents } from "../SessionEvents.ts"

/**
 * The options of {@link RedisEvents}.
 */
export interface RedisEventsOptions {
  /**
   * The Redis channel. Default: `session:events`. If applications share one Redis and have classes with the same key,
   * each needs its own channel.
   */
  readonly channel?: string | undefined
}

const fields = { session: Schema.String, id: Schema.String }

const Event = Schema.Union([
  Schema.TaggedStruct("Created", fields),
  Schema.TaggedStruct("Renewed", { ...fields, former: Schema.String }),
  Schema.TaggedStruct("Destroyed", fields)
])

/** An event, and the server that published it. */
const Message = Schema.fromJsonString(Schema.Struct({ from: Schema.String, event: Event }))

const decode = Schema.decodeUnknownOption(Message)

/** How many events may wait to be sent. If there are more, the oldest are dropped. */
const longestQueue = 1_000

/** How many events are sent at a time. */
const batchSize = 100

/** An event that takes longer to send is outdated: by then `ended` has checked the store by itself. */
const patience = "10 seconds"

/** How often to subscribe again, if the client gives up. */
const untilBack = Schedule.spaced("5 seconds")

const make = Effect.fnUntraced(function* (channel: string) {
  const redis = yield* Redis.Redis
  const local = SessionEvents.make()
  const from = crypto.randomUUID()
  const outbox = yield* Queue.sliding<SessionEvent>(longestQueue)
  const isListening = yield* Deferred.make<void>()

  const send = (event: SessionEvent) =>
    redis
      .send("PUBLISH", channel, JSON.stringify({ from, event }))
      .pipe(Effect.timeout(patience), Effect.ignore({ log: "Debug", message: "A session event was not sent" }))

  const receive = (message: string) =>
    Effect.sync(() => {
      const received = Option.getOrUndefined(decode(message))
      // This server has already published its own events to its listeners.
      if (received !== undefined && received.from !== from) local.publish(received.event)
    }).pipe(Effect.ignoreCause({ log: "Warn", message: "A listener to session events failed" }))

  const subscribe = Effect.gen(function* () {
    const inbox = yield* redis.subscribe(channel)
    yield* Deferred.succeed(isListening, undefined)
    return yield* Effect.forever(Effect.flatMap(Queue.take(inbox), ({ message }) => receive(message)))
  }).pipe(
    Effect.scoped,
    Effect.tapError(({ cause }) =>
      Effect.logWarning("Session events of other servers do not arrive until Redis is back", cause)
    ),
    Effect.retry(untilBack)
  )

  yield* Effect.forkScoped(
    Effect.forever(
      Effect.flatMap(Queue.takeBetween(outbox, 1, batchSize), (events) =>
        Effect.forEach(events, send, { concurrency: batchSize, discard: true })
      )
    )
  )
  yield* Effect.forkScoped(subscribe)
  yield* Deferred.await(isListening)

  return {
    ...local,
    publish: (event: SessionEvent) => {
      // First, because a listener may throw.
      Queue.offerUnsafe(outbox, event)
      local.publish(event)
    }
  }
})

const layerWith = ({ channel = "session:events" }: RedisEventsOptions = {}): Layer.Layer<never, never, Redis.Redis> =>
  Layer.effect(SessionEvents, make(channel))

/**
 * Session events over Redis: layers that need Effect's `Redis` service and provide the bus `SessionEvents`.
 *
 * **When to use**: with several servers. A log-out on one server then completes `ended` on all others immediately, not
 * at their next check, and `events` includes what happens on all servers. The sessions themselves may be in any store.
 *
 * **Details**: a server gets its own events without Redis. While Redis is slow or down, up to a thousand events wait to
 * be sent; after that the oldest are dropped. Events that other servers publish while the subscription is lost do not
 * arrive. Other messages are ignored.
 *
 * **Gotchas**: provide it to the whole application, like the store. The Redis client has to reconnect its subscriber,
 * as `NodeRedis` does; if it gives up, the layer subscribes again. Anyone who may publish in Redis can forge events:
 * `ended` asks the store and trusts none of them, but an audit log that follows `events` trusts all.
 *
 * @example
 * ```ts
 * import { NodeRedis } from "@effect/platform-node"
 * import { Layer } from "effect"
 * import { RedisEvents, RedisStore } from "effect-sessions/redis"
 *
 * const Sessions = Layer.mergeAll(RedisStore.layer, RedisEvents.layer).pipe(
 *   Layer.provide(NodeRedis.layer({ url: "redis://localhost:6379" }))
 * )
 * ```
 */
export const RedisEvents: {
  /**
   * Provides the bus `SessionEvents`, over the channel `session:events`.
   */
  readonly layer: Layer.Layer<never, never, Redis.Redis>

  /**
   * Provides the bus `SessionEvents`, over the given channel.
   *
   * @example
   * ```ts
   * import { RedisEvents } from "effect-sessions/redis"
   *
   * const Events = RedisEvents.layerWith({ channel: "shop:session:events" })
   * ```
   */
  readonly layerWith: (options?: RedisEventsOptions) => Layer.Layer<never, never, Redis.Redis>
} = { layer: layerWith(), layerWith }
