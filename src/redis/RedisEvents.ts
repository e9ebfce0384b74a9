/**
 * What happens to sessions, carried to every server by Redis' publish and subscribe.
 *
 * @module
 */
import { Deferred, Effect, Layer, Option, Queue, Schedule, Schema } from "effect"
import * as Redis from "effect/persistence/Redis"
import { type SessionEvent, SessionEvents } from "../SessionEvents.ts"

/**
 * What {@link RedisEvents} may be told.
 */
export interface RedisEventsOptions {
  /**
   * The channel of Redis, `session:events` by default. Applications that share one Redis and have classes with the same
   * key need a channel each.
   */
  readonly channel?: string | undefined
}

const fields = { session: Schema.String, id: Schema.String }

const Event = Schema.Union([
  Schema.TaggedStruct("Created", fields),
  Schema.TaggedStruct("Renewed", { ...fields, former: Schema.String }),
  Schema.TaggedStruct("Destroyed", fields)
])

/** An event, and which server published it. */
const Message = Schema.fromJsonString(Schema.Struct({ from: Schema.String, event: Event }))

const decode = Schema.decodeUnknownOption(Message)

/** How many events may wait to be sent. The oldest give way. */
const longestQueue = 1_000

/** How many are sent at a time. */
const batchSize = 100

/** What takes longer to send is out of date: by then `ended` has looked by itself. */
const patience = "10 seconds"

/** How often to subscribe anew, if the client gives up. */
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
      // Here it was heard before it was sent.
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
      // First, as a listener may throw.
      Queue.offerUnsafe(outbox, event)
      local.publish(event)
    }
  }
})

const layerWith = ({ channel = "session:events" }: RedisEventsOptions = {}): Layer.Layer<never, never, Redis.Redis> =>
  Layer.effect(SessionEvents, make(channel))

/**
 * Session events by way of Redis: its layers, which need Effect's `Redis` service and provide the bus `SessionEvents`.
 *
 * **When to use**: with several servers, so that a log-out on one has `ended` complete on every other at once, rather than
 * at the next look, and so that `events` has what happens on all of them. The sessions themselves may be in any store.
 *
 * **Details**: a server hears its own events without Redis. Up to a thousand events wait to be sent while Redis is slow or
 * away; then the oldest are dropped. What another server publishes while the subscription is lost does not arrive. What is
 * no event is ignored.
 *
 * **Gotchas**: provide it to all of the application, beside the store. The client of Redis has to reconnect its
 * subscriber, as that of `NodeRedis` does; if it gives up, the layer subscribes anew. Whoever may publish in Redis can make
 * events up: `ended` asks the store and believes none, but an audit log that follows `events` does.
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
   * Provides the bus `SessionEvents`, by the channel `session:events`.
   */
  readonly layer: Layer.Layer<never, never, Redis.Redis>

  /**
   * Provides the bus `SessionEvents`, by the given channel.
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
