/**
 * RedisStore on a Redis Cluster, through the cluster client of `redis`.
 */
import { assert, layer } from "@effect/vitest"
import { Context, DateTime, Effect, Exit, Fiber, Layer, Option, Queue, Schedule, Schema, Stream } from "effect"
import * as Redis from "effect/persistence/Redis"
import { Session, SessionStore } from "effect-sessions"
import { RedisEvents, RedisStore } from "effect-sessions/redis"
import { SessionStoreTest } from "effect-sessions/testing"
import { describeRedis, RedisCluster, redisClientOn, redisClusterClient } from "./servers.ts"

const inAnHour = Effect.map(DateTime.now, DateTime.add({ hours: 1 }))

const emptyStore = Layer.unwrap(Effect.sync(() => RedisStore.layerWith({ prefix: `${crypto.randomUUID()}:` })))

/** Sends a command to one node. */
const sendTo = (port: number, command: string, ...args: ReadonlyArray<string>) =>
  Effect.flatMap(Redis.Redis, (redis) => redis.send<string>(command, ...args)).pipe(Effect.provide(redisClientOn(port)))

const clusterOf = (replicas: number) => Layer.provideMerge(redisClusterClient, RedisCluster.layerWith({ replicas }))

const options = { excludeTestServices: true, timeout: "60 seconds" } as const

const commitMany = Effect.fnUntraced(function* (store: SessionStore["Service"], count: number) {
  const expiry = yield* inAnHour
  const tokens = Array.from({ length: count }, (_, i) => `token ${i}`)
  yield* Effect.forEach(tokens, (token) => store.commit(token, token, expiry), { concurrency: 10, discard: true })
  return new Map(tokens.map((token) => [token, token]))
})

class UserSession extends Session.Service<UserSession>()("test/UserSession", {
  schema: Schema.Struct({ userId: Schema.optionalKey(Schema.String) }),
  initial: () => ({}),
  indexes: { user: ({ userId }) => userId },
  // Long, so only an event can arrive within seconds.
  recheckInterval: "1 minute"
}) {}

const logIn = Effect.fnUntraced(function* (userId: string) {
  const session = yield* UserSession.open()
  yield* session.set({ userId })
  return Option.getOrThrow(yield* session.commit).token
})

describeRedis("RedisStore on a cluster", () => {
  layer(clusterOf(0), options)("of three masters", (it) => {
    SessionStoreTest.suite("RedisStore", emptyStore, it.effect)

    it.effect("has sessions on every master, and all and entries walk them all", () =>
      Effect.gen(function* () {
        const store = yield* SessionStore
        const { nodes } = yield* RedisCluster
        const committed = yield* commitMany(store, 3_000)
        for (const { port } of nodes) assert.isAbove(Number(yield* sendTo(port, "DBSIZE")), 500)
        assert.deepStrictEqual(new Map(yield* store.all), committed)
        const entries = yield* Stream.runCollect(store.entries)
        assert.strictEqual(entries.length, 3_000)
        assert.deepStrictEqual(new Map(entries), committed)
      }).pipe(Effect.provide(emptyStore))
    )

    it.effect("replaces sessions of every master, also once each has forgotten its scripts", () =>
      Effect.gen(function* () {
        const store = yield* SessionStore
        const { nodes } = yield* RedisCluster
        const expiry = yield* inAnHour
        const committed = yield* commitMany(store, 30)
        for (let round = 0; round < 2; round++) {
          for (const token of committed.keys()) {
            assert.isTrue(yield* store.replace(token, token, token, expiry))
          }
          for (const { port } of nodes) yield* sendTo(port, "SCRIPT", "FLUSH")
        }
      }).pipe(Effect.provide(emptyStore))
    )

    it.effect("fails at once, and says why, through a client that knows nothing of clusters", () =>
      Effect.gen(function* () {
        const { nodes } = yield* RedisCluster
        const prefix = `${crypto.randomUUID()}:`
        const through = (client: Layer.Layer<Redis.Redis, Redis.RedisError>) =>
          Effect.map(Layer.build(Layer.provide(RedisStore.layerWith({ prefix }), client)), Context.get(SessionStore))
        const store = yield* through(Layer.succeed(Redis.Redis, yield* Redis.Redis))
        const committed = yield* commitMany(store, 300)
        const stray = yield* through(redisClientOn(nodes[0]?.port ?? 0))
        // A third of the sessions is on the master that the client knows.
        const [found, moved] = yield* Effect.partition(committed.keys(), (token) =>
          Effect.map(stray.find(token), (data) => assert.deepStrictEqual(data, Option.some(token)))
        )
        for (const { cause } of moved) assert.match(String(cause), /^(Simple)?Error: MOVED/)
        assert.isNotEmpty(moved)
        assert.isNotEmpty(found)
        for (const read of [Effect.asVoid(stray.all), Stream.runDrain(stray.entries)]) {
          const { cause } = yield* Effect.flip(read)
          assert.include(String(cause), "CROSSSLOT")
        }
      })
    )

    it.effect("lists and ends all sessions of a user, on whatever masters they and their index are", () =>
      Effect.gen(function* () {
        const tokens = yield* Effect.replicateEffect(logIn("Ada"), 20, { concurrency: 5 })
        const others = yield* Effect.replicateEffect(logIn("Bob"), 3)
        assert.strictEqual((yield* Stream.runCollect(UserSession.sessionsOf("user", "Ada"))).length, 20)
        yield* UserSession.destroyAllOf("user", "Ada")
        assert.deepStrictEqual(yield* Stream.runCollect(UserSession.sessionsOf("user", "Ada")), [])
        for (const token of tokens) assert.isUndefined((yield* (yield* UserSession.open(token)).get).userId)
        for (const token of others) assert.strictEqual((yield* (yield* UserSession.open(token)).get).userId, "Bob")
      }).pipe(Effect.scoped, Effect.provide(emptyStore))
    )

    it.effect(
      "has a log-out on one server complete `ended` on another at once, whatever node either is subscribed at",
      () =>
        Effect.gen(function* () {
          const { nodes } = yield* RedisCluster
          const prefix = `${crypto.randomUUID()}:`
          // Each server has its own client, store and bus.
          const server = Layer.mergeAll(RedisStore.layerWith({ prefix }), RedisEvents.layer).pipe(
            Layer.provide(redisClusterClient),
            Layer.provide(Layer.succeed(RedisCluster, { nodes })),
            Layer.fresh
          )
          const one = yield* Layer.build(server)
          const others = yield* Effect.replicateEffect(Layer.build(server), 5)
          for (let round = 0; round < 5; round++) {
            const token = yield* Effect.provide(logIn("Ada"), one)
            const waiting = yield* Effect.forEach(others, (other) =>
              Effect.flatMap(UserSession.open(token), ({ ended }) =>
                Effect.forkChild(ended, { startImmediately: true })
              ).pipe(Effect.provide(other))
            )
            yield* Effect.sleep("100 millis")
            yield* Effect.flatMap(UserSession.open(token), ({ destroy }) => destroy).pipe(Effect.provide(one))
            const ends = yield* Effect.timeout(Effect.forEach(waiting, Fiber.join), "2 seconds")
            assert.deepStrictEqual(ends, Array(5).fill("destroyed"))
          }
        })
    )

    it.effect("hears on one node what another has published", () =>
      Effect.gen(function* () {
        const redis = yield* Redis.Redis
        const { nodes } = yield* RedisCluster
        const messages = yield* redis.subscribe("channel")
        for (const { port } of nodes) {
          const publish = sendTo(port, "PUBLISH", "channel", `from ${port}`)
          yield* Effect.repeat(publish, { schedule: Schedule.spaced("50 millis") }).pipe(
            Effect.raceFirst(
              Effect.repeat(Queue.take(messages), { until: ({ message }) => message === `from ${port}` })
            ),
            Effect.timeout("10 seconds")
          )
        }
      })
    )
  })

  layer(clusterOf(1), options)("with replicas", (it) => {
    const infoOf = (port: number) => sendTo(port, "INFO", "replication")

    /** Waits until the replica of a master has all that the master has. */
    const untilReplicated = (port: number) =>
      Effect.repeat(Effect.andThen(Effect.sleep("10 millis"), infoOf(port)), {
        until: (info) => {
          const offsets = ["master_repl_offset:", "slave0:.*,offset="].map((name) =>
            new RegExp(`${name}(\\d+)`).exec(info)
          )
          return offsets[0]?.[1] !== undefined && offsets[0][1] === offsets[1]?.[1]
        }
      })

    it.effect("loses nothing that a replica had when a master dies, and works on without it", () =>
      Effect.gen(function* () {
        const store = yield* SessionStore
        const { nodes } = yield* RedisCluster
        const committed = yield* commitMany(store, 600)
        const tokens = [...committed.keys()]
        const isMaster = ({ port }: { readonly port: number }) =>
          Effect.map(infoOf(port), (info) => info.includes("role:master"))
        const masters = yield* Effect.filter(nodes, isMaster)
        assert.strictEqual(masters.length, 3)
        yield* Effect.forEach(masters, ({ port }) => untilReplicated(port))
        yield* masters[0]?.kill ?? Effect.die("no master")
        const expiry = yield* inAnHour
        const whileAway = yield* Effect.exit(
          Effect.forEach(tokens, (token) => Effect.timeout(store.find(token), "2 seconds"))
        )
        assert.isTrue(Exit.isFailure(whileAway), "the master must be missed")
        // Every write succeeds again when the replica has taken over.
        const replaceAll = Effect.forEach(tokens, (token) =>
          Effect.timeout(store.commit(token, `${token}, renewed`, expiry), "1 second")
        )
        const findAll = Effect.forEach(tokens, (token) => Effect.timeout(store.find(token), "1 second"))
        const again = { schedule: Schedule.spaced("100 millis"), times: 150 }
        const found = yield* Effect.retry(findAll, again)
        assert.deepStrictEqual(found, [...committed.values()].map(Option.some))
        yield* Effect.retry(replaceAll, again)
        const all = new Map(yield* store.all)
        assert.deepStrictEqual(all, new Map([...committed].map(([token, data]) => [token, `${data}, renewed`])))
      }).pipe(Effect.provide(emptyStore))
    )
  })
})
