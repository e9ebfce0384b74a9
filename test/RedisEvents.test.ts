import { NodeRedis } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Logger, Option, Queue, type Redacted, type Scope, Stream } from "effect"
import * as Redis from "effect/persistence/Redis"
import { TestClock } from "effect/testing"
import { Session, type SessionEvent, SessionEvents, type SessionStore } from "effect-sessions"
import { RedisEvents, RedisStore } from "effect-sessions/redis"
import { describeRedis, RedisServer, redisClient } from "./servers.ts"
import { nobody, User, visit } from "./session/fixtures.ts"
import { settle } from "./session/virtualStore.ts"

/** Checks again after a minute, so only an event can arrive within a second. */
class UserSession extends Session.Service<UserSession>()("test/UserSession", {
  schema: User,
  initial: nobody,
  recheckInterval: "1 minute"
}) {}

// Without a logger: a client logs that it lost its connection.
const client = Layer.provide(redisClient, Logger.layer([]))

/** A separate server, with its own Redis client, store and bus. */
const newServer = Effect.map(
  Layer.build(Layer.fresh(Layer.mergeAll(RedisStore.layer, RedisEvents.layer).pipe(Layer.provide(client)))),
  (context) =>
    <A, E>(effect: Effect.Effect<A, E, SessionStore | Scope.Scope>) =>
      Effect.provide(effect, context)
)

const logIn = Effect.gen(function* () {
  const session = yield* UserSession.open()
  yield* session.update(visit)
  return Option.getOrThrow(yield* session.commit).token
})

const opened = (token: Redacted.Redacted<string>) => UserSession.open(token)

/** Begins to wait on a server, and returns after the first check. */
const wait = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.tap(Effect.forkChild(effect, { startImmediately: true }), Effect.sleep("100 millis"))

const withinASecond = <A, E>(fiber: Fiber.Fiber<A, E>) => Effect.timeout(Fiber.join(fiber), "1 second")

describeRedis("RedisEvents", () => {
  layer(RedisServer.layer, { excludeTestServices: true })("on a server", (it) => {
    it.effect("has a log-out on one server complete `ended` on the other within a second", () =>
      Effect.gen(function* () {
        const [one, other] = [yield* newServer, yield* newServer]
        const token = yield* one(logIn)
        const fiber = yield* other(Effect.flatMap(opened(token), ({ ended }) => wait(ended)))
        yield* one(Effect.flatMap(opened(token), ({ destroy }) => destroy))
        assert.strictEqual(yield* withinASecond(fiber), "destroyed")
      })
    )

    it.effect("has a renewal on one server complete `ended` on the other within a second", () =>
      Effect.gen(function* () {
        const [one, other] = [yield* newServer, yield* newServer]
        const token = yield* one(logIn)
        const fiber = yield* other(Effect.flatMap(opened(token), ({ ended }) => wait(ended)))
        yield* one(
          Effect.gen(function* () {
            const session = yield* opened(token)
            yield* session.renewToken
            yield* session.commit
          })
        )
        assert.strictEqual(yield* withinASecond(fiber), "renewed")
      })
    )

    it.effect("has what happens on every server in `events`, each event once", () =>
      Effect.gen(function* () {
        const [one, other] = [yield* newServer, yield* newServer]
        const collect = wait(Stream.runCollect(Stream.take(UserSession.events, 4)))
        const fibers = [yield* one(collect), yield* other(collect)]
        for (const server of [one, other]) {
          const token = yield* server(logIn)
          yield* Effect.sleep("50 millis")
          yield* server(Effect.flatMap(opened(token), ({ destroy }) => destroy))
          yield* Effect.sleep("50 millis")
        }
        const heard = yield* Effect.forEach(fibers, withinASecond)
        for (const events of heard) {
          assert.deepStrictEqual(
            events.map(({ _tag }) => _tag),
            ["Created", "Destroyed", "Created", "Destroyed"]
          )
        }
        assert.deepStrictEqual(heard[0], heard[1])
      })
    )

    it.effect("hears nothing of another channel", () =>
      Effect.gen(function* () {
        const busOf = (channel: string) =>
          Effect.map(
            Layer.build(Layer.fresh(Layer.provide(RedisEvents.layerWith({ channel }), redisClient))),
            (context) => Context.get(context, SessionEvents)
          )
        const [one, same, other] = [yield* busOf("one"), yield* busOf("one"), yield* busOf("other")]
        const heard: Array<string> = []
        same.listen(({ id }) => heard.push(`same: ${id}`))
        other.listen(({ id }) => heard.push(`other: ${id}`))
        one.publish({ _tag: "Created", session: "test/UserSession", id: "id" })
        yield* Effect.sleep("200 millis")
        assert.deepStrictEqual(heard, ["same: id"])
      })
    )

    it.effect("needs no more than the rights that the docs name", () =>
      Effect.gen(function* () {
        const { port } = yield* RedisServer
        const client = NodeRedis.layer({ username: "events", password: "secret", socket: { host: "127.0.0.1", port } })
        yield* Effect.provide(
          Effect.flatMap(Redis.Redis, (redis) =>
            redis.send("ACL", "SETUSER", "events", "on", ">secret", "+publish", "+subscribe", "&session:events")
          ),
          redisClient
        )
        const busOf = Effect.map(Layer.build(Layer.fresh(Layer.provide(RedisEvents.layer, client))), (context) =>
          Context.get(context, SessionEvents)
        )
        const [one, other] = [yield* busOf, yield* busOf]
        const heard: Array<string> = []
        other.listen(({ id }) => heard.push(id))
        one.publish({ _tag: "Created", session: "test/UserSession", id: "id" })
        yield* Effect.sleep("200 millis")
        assert.deepStrictEqual(heard, ["id"])
      })
    )

    it.effect("hears again after its connection was cut", () =>
      Effect.gen(function* () {
        const [one, other] = [yield* newServer, yield* newServer]
        const token = yield* one(logIn)
        const fiber = yield* other(Effect.flatMap(opened(token), ({ ended }) => wait(ended)))
        yield* Effect.provide(
          Effect.flatMap(Redis.Redis, (redis) => redis.send("CLIENT", "KILL", "TYPE", "pubsub")),
          redisClient
        )
        yield* Effect.sleep("1 second")
        yield* one(Effect.flatMap(opened(token), ({ destroy }) => destroy))
        assert.strictEqual(yield* withinASecond(fiber), "destroyed")
      })
    )
  })
})

const created = (id: string): SessionEvent => ({ _tag: "Created", session: "test/UserSession", id })

/** A Redis that hangs, and hands over what a test puts in. */
const makeFake = Effect.gen(function* () {
  const sent: Array<string> = []
  const subscriptions: Array<Queue.Queue<Redis.RedisMessage, Redis.RedisError>> = []
  let isStuck = false
  const redis = yield* Redis.make({
    send: (_command, ...args) =>
      Effect.suspend(() => {
        if (isStuck) return Effect.never
        sent.push(args[1] ?? "")
        return Effect.fail(new Redis.RedisError({ cause: "away" }))
      }),
    subscribe: () => Effect.never,
    connect: Effect.fail(new Redis.RedisError({ cause: "away" }))
  })
  const subscribe = () =>
    Effect.tap(Queue.unbounded<Redis.RedisMessage, Redis.RedisError>(), (queue) =>
      Effect.sync(() => subscriptions.push(queue))
    )
  const layer = RedisEvents.layer.pipe(Layer.provide(Layer.succeed(Redis.Redis, { ...redis, subscribe })))
  const bus = Context.get(yield* Layer.build(layer), SessionEvents)
  const heard: Array<string> = []
  bus.listen(({ id }) => heard.push(id))
  return {
    bus,
    heard,
    sent,
    subscriptions,
    stick: (yes: boolean) => {
      isStuck = yes
    },
    deliver: (message: string) =>
      Effect.andThen(
        Effect.sync(() => Queue.offerUnsafe(subscriptions.at(-1) ?? assert.fail(), { channel: "", message })),
        settle
      )
  }
})

describe("RedisEvents", () => {
  it.effect("ignores what is no event", () =>
    Effect.gen(function* () {
      const { deliver, heard } = yield* makeFake
      for (const message of [
        "",
        "{",
        "null",
        "[]",
        '{"from":"other"}',
        '{"from":"other","event":{"_tag":"Created","session":"s"}}',
        '{"from":"other","event":{"_tag":"Renewed","session":"s","id":"no former"}}',
        '{"from":"other","event":{"_tag":"Exploded","session":"s","id":"id"}}',
        '{"from":1,"event":{"_tag":"Created","session":"s","id":"id"}}'
      ]) {
        yield* deliver(message)
      }
      assert.deepStrictEqual(heard, [])
      yield* deliver(JSON.stringify({ from: "other", event: created("one") }))
      assert.deepStrictEqual(heard, ["one"])
    })
  )

  it.effect("hears its own events at once, and not again from Redis", () =>
    Effect.gen(function* () {
      const { bus, deliver, heard, sent } = yield* makeFake
      bus.publish(created("mine"))
      assert.deepStrictEqual(heard, ["mine"])
      yield* settle
      yield* deliver(sent[0] ?? assert.fail("nothing was sent"))
      assert.deepStrictEqual(heard, ["mine"])
    })
  )

  it.effect("goes on after a listener that fails, and sends the event all the same", () =>
    Effect.gen(function* () {
      const { bus, deliver, heard, sent } = yield* makeFake
      const stop = bus.listen(() => assert.fail("a listener is broken"))
      assert.throws(() => bus.publish(created("mine")), "a listener is broken")
      yield* deliver(JSON.stringify({ from: "other", event: created("one") }))
      stop()
      yield* deliver(JSON.stringify({ from: "other", event: created("two") }))
      assert.deepStrictEqual(heard, ["mine", "one", "two"])
      assert.lengthOf(sent, 1)
    })
  )

  it.effect("keeps the latest thousand while Redis hangs, and holds up nobody", () =>
    Effect.gen(function* () {
      const { bus, heard, sent, stick } = yield* makeFake
      stick(true)
      bus.publish(created("stuck"))
      yield* settle
      stick(false)
      for (let i = 0; i < 1_500; i++) bus.publish(created(String(i)))
      yield* settle
      assert.lengthOf(heard, 1_501)
      assert.lengthOf(sent, 0)
      // What hangs is given up, and what waits is sent.
      yield* TestClock.adjust("10 seconds")
      yield* Effect.repeat(settle, { times: 50 })
      assert.lengthOf(sent, 1_000)
      assert.include(sent.at(-1), '"1499"')
    })
  )

  it.effect("subscribes anew if the client gives up", () =>
    Effect.gen(function* () {
      const { deliver, heard, subscriptions } = yield* makeFake
      yield* Queue.fail(subscriptions[0] ?? assert.fail(), new Redis.RedisError({ cause: "closed" }))
      yield* TestClock.adjust("5 seconds")
      assert.lengthOf(subscriptions, 2)
      yield* deliver(JSON.stringify({ from: "other", event: created("one") }))
      assert.deepStrictEqual(heard, ["one"])
    })
  )
})
