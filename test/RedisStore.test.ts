import { inspect } from "node:util"
import { NodeRedis } from "@effect/platform-node"
import { assert, describe, expectTypeOf, it, layer } from "@effect/vitest"
import { Cause, Context, DateTime, Effect, Exit, Layer, Logger, Option, Result, Stream } from "effect"
import * as Redis from "effect/persistence/Redis"
import { SessionStore, SessionStoreError } from "effect-sessions"
import { RedisStore } from "effect-sessions/redis"
import { SessionStoreTest } from "effect-sessions/testing"
import { describeRedis, RedisServer, redisClient } from "./servers.ts"

const inAnHour = Effect.map(DateTime.now, DateTime.add({ hours: 1 }))

const storeWith = (prefix: string) =>
  Effect.map(Layer.build(RedisStore.layerWith({ prefix })), (context) => Context.get(context, SessionStore))

/** A prefix that no other test has. */
const newPrefix = Effect.sync(() => `${crypto.randomUUID()}:`)

const emptyStore = Layer.unwrap(Effect.map(newPrefix, (prefix) => RedisStore.layerWith({ prefix })))

const send = <A>(command: string, ...args: ReadonlyArray<string>) =>
  Effect.flatMap(Redis.Redis, (redis) => redis.send<A>(command, ...args))

describeRedis("RedisStore", () => {
  layer(Layer.provideMerge(redisClient, RedisServer.layer), { excludeTestServices: true })("on a server", (it) => {
    SessionStoreTest.suite("RedisStore", emptyStore, it.effect)
    SessionStoreTest.indexes("RedisStore", (prefix) => RedisStore.layerWith({ prefix }), it.effect)

    describe("keys", () => {
      it.effect("begin with session: by default", () =>
        Effect.gen(function* () {
          yield* (yield* SessionStore).commit("by default", "data", yield* inAnHour)
          assert.deepStrictEqual(yield* send("GET", "session:by default:10"), "data")
        }).pipe(Effect.provide(RedisStore.layer))
      )

      it.effect("of two prefixes never meet, whatever characters prefixes and tokens have", () =>
        Effect.gen(function* () {
          const expiry = yield* inAnHour
          const odd = [
            "",
            "a",
            "a:",
            "a:b:",
            "ab",
            "a*",
            "a?",
            "[ab]",
            "[a-z]*",
            "\\",
            "\\*",
            "a:1",
            "1:1",
            "{a}",
            "ü",
            "\u0000"
          ]
          const namespace = yield* newPrefix
          const stores = yield* Effect.forEach(odd, (prefix) => storeWith(namespace + prefix))
          const tokens = odd.flatMap((token) => [token, `${token}:1`, `b:${token}`])
          for (const [i, store] of stores.entries()) {
            for (const token of tokens) yield* store.commit(token, `${i} ${token}`, expiry)
          }
          for (const [i, store] of stores.entries()) {
            const expected = new Map(tokens.map((token) => [token, `${i} ${token}`]))
            for (const [token, data] of expected) assert.deepStrictEqual(yield* store.find(token), Option.some(data))
            assert.deepStrictEqual(new Map(yield* store.all), expected)
          }
        })
      )

      it.effect("of something else under the same prefix are no sessions", () =>
        Effect.gen(function* () {
          const prefix = yield* newPrefix
          const store = yield* storeWith(prefix)
          yield* send("SET", `${prefix}settings`, "dark")
          yield* send("RPUSH", `${prefix}queue:5`, "job")
          // So many that a page of SCAN has some of them.
          for (let length = 6; length < 106; length++) yield* send("SET", `${prefix}token:${length}`, "dark")
          yield* store.commit("token", "data", yield* inAnHour)
          assert.deepStrictEqual(yield* Stream.runCollect(store.entries), [["token", "data"]])
        })
      )
    })

    describe("values", () => {
      it.effect("are the data as it is, in UTF-8", () =>
        Effect.gen(function* () {
          const prefix = yield* newPrefix
          const store = yield* storeWith(prefix)
          const data = '{"name":"Zoë \u{1F36A}\u0000"}'
          yield* store.commit("token", data, yield* inAnHour)
          assert.strictEqual(yield* send<string>("GET", `${prefix}token:5`), data)
          assert.strictEqual(yield* send<number>("STRLEN", `${prefix}token:5`), Buffer.byteLength(data))
        })
      )
    })

    describe("expiry", () => {
      it.effect("is kept to the millisecond", () =>
        Effect.gen(function* () {
          const prefix = yield* newPrefix
          const store = yield* storeWith(prefix)
          const expiry = yield* inAnHour
          yield* store.commit("token", "data", expiry)
          assert.strictEqual(yield* send<number>("PEXPIRETIME", `${prefix}token:5`), DateTime.toEpochMillis(expiry))
          assert.isFalse(yield* store.create("token", "data", DateTime.add(expiry, { hours: 1 })))
          assert.strictEqual(yield* send<number>("PEXPIRETIME", `${prefix}token:5`), DateTime.toEpochMillis(expiry))
          assert.isTrue(yield* store.create("created", "data", expiry))
          assert.strictEqual(yield* send<number>("PEXPIRETIME", `${prefix}created:7`), DateTime.toEpochMillis(expiry))
          const later = DateTime.add(expiry, { milliseconds: 1 })
          assert.isTrue(yield* store.replace("token", "data", "data", later))
          assert.strictEqual(yield* send<number>("PEXPIRETIME", `${prefix}token:5`), DateTime.toEpochMillis(later))
        })
      )

      it.effect("in the past leaves nothing behind, also where it is before 1970", () =>
        Effect.gen(function* () {
          const prefix = yield* newPrefix
          const store = yield* storeWith(prefix)
          const aMomentAgo = DateTime.subtract(yield* DateTime.now, { milliseconds: 1 })
          for (const past of [-1, 0, 1, aMomentAgo].map(DateTime.makeUnsafe)) {
            const isGone = Effect.map(send<number>("EXISTS", `${prefix}token:5`), (found) => found === 0)
            assert.isTrue(yield* store.create("token", "data", past))
            yield* Effect.sleep("1 millis")
            assert.isTrue(yield* isGone)
            yield* store.commit("token", "data", yield* inAnHour)
            yield* store.commit("token", "data", past)
            yield* Effect.sleep("1 millis")
            assert.isTrue(yield* isGone)
            yield* store.commit("token", "data", yield* inAnHour)
            assert.isTrue(yield* store.replace("token", "data", "new", past))
            yield* Effect.sleep("1 millis")
            assert.isTrue(yield* isGone)
          }
        })
      )

      it.effect("ends a session without any cleanup", () =>
        Effect.gen(function* () {
          const prefix = yield* newPrefix
          const store = yield* storeWith(prefix)
          yield* store.commit("token", "data", DateTime.add(yield* DateTime.now, { milliseconds: 100 }))
          assert.isTrue(Option.isSome(yield* store.find("token")))
          yield* Effect.sleep("120 millis")
          assert.isTrue(Option.isNone(yield* store.find("token")))
          assert.isFalse(yield* store.replace("token", "data", "new", yield* inAnHour))
          assert.strictEqual(yield* send<number>("EXISTS", `${prefix}token:5`), 0)
        })
      )
    })

    describe("commands", () => {
      it.effect("are one for each operation on a session, and SCAN and MGET for all and entries", () =>
        Effect.gen(function* () {
          const store = yield* SessionStore
          const expiry = yield* inAnHour
          yield* store.commit("other", "old", expiry)
          yield* store.replace("other", "old", "new", expiry)
          yield* send("CONFIG", "RESETSTAT")
          yield* store.create("token", "data", expiry)
          yield* store.commit("token", "data", expiry)
          yield* store.find("token")
          // The script gets and sets too.
          yield* store.replace("token", "data", "new", expiry)
          yield* store.all
          yield* Stream.runDrain(store.entries)
          yield* store.delete("token")
          const stats = yield* send<string>("INFO", "commandstats")
          const calls = Object.fromEntries(
            [...stats.matchAll(/cmdstat_([^:]+):calls=(\d+)/g)].map(([, name, count]) => [name, Number(count)])
          )
          assert.deepInclude(calls, { set: 3, get: 2, evalsha: 1, del: 1 })
          const expected = ["config|resetstat", "del", "evalsha", "get", "mget", "scan", "set"]
          assert.deepStrictEqual(Object.keys(calls).sort(), expected)
        }).pipe(Effect.provide(emptyStore))
      )

      it.effect("of replace survive that Redis forgets its scripts", () =>
        Effect.gen(function* () {
          const store = yield* SessionStore
          const expiry = yield* inAnHour
          yield* store.commit("token", "0", expiry)
          assert.isTrue(yield* store.replace("token", "0", "1", expiry))
          yield* send("SCRIPT", "FLUSH")
          assert.isTrue(yield* store.replace("token", "1", "2", expiry))
        }).pipe(Effect.provide(emptyStore))
      )
    })

    describe("entries", () => {
      it.effect("returns each token once where SCAN repeats itself, within a page and later", () =>
        Effect.gen(function* () {
          const redis = yield* Redis.Redis
          const repeated: Array<string> = []
          // Redis repeats keys while it resizes its table, which no test can make it do.
          const repeating = Redis.Redis.of({
            ...redis,
            send: <A>(command: string, ...args: ReadonlyArray<string>) =>
              command !== "SCAN"
                ? redis.send<A>(command, ...args)
                : Effect.map(redis.send<A>(command, ...args), (reply) => {
                    const [cursor, keys] = reply as [string, Array<string>]
                    repeated.push(...keys)
                    return [cursor, [...keys, ...repeated]] as A
                  })
          })
          const store = yield* Effect.provideService(storeWith(yield* newPrefix), Redis.Redis, repeating)
          for (let i = 0; i < 1_200; i++) yield* store.commit(`${i}`, "data", yield* inAnHour)
          const entries = yield* Stream.runCollect(store.entries)
          assert.isAbove(repeated.length, 1_199)
          assert.strictEqual(entries.length, 1_200)
          assert.strictEqual(new Set(entries.map(([token]) => token)).size, 1_200)
        })
      )
    })
  })

  layer(RedisServer.layer, { excludeTestServices: true })("on a server that is gone", (it) => {
    it.effect("fails at once where the client keeps no queue", () =>
      Effect.gen(function* () {
        const { kill, port } = yield* RedisServer
        const client = NodeRedis.layer({ socket: { host: "127.0.0.1", port }, disableOfflineQueue: true })
        yield* Effect.gen(function* () {
          const store = yield* SessionStore
          yield* store.commit("token", "data", yield* inAnHour)
          yield* kill
          const result = yield* Effect.result(store.find("token"))
          assert.strictEqual(Result.isFailure(result) && result.failure._tag, "SessionStoreError")
        }).pipe(Effect.provide(RedisStore.layer.pipe(Layer.provide(client), Layer.provide(Logger.layer([])))))
      })
    )
  })

  layer(Layer.provideMerge(redisClient, RedisServer.layer), { excludeTestServices: true })("with an ACL", (it) => {
    const rights = ["+get", "+set", "+del", "+evalsha", "+script|load", "+mget", "+scan"]

    /** The client of a new user with the given rights to keys that begin with `mine:`, and no others. */
    const clientOf = (rights: ReadonlyArray<string>) =>
      Layer.unwrap(
        Effect.gen(function* () {
          const { port } = yield* RedisServer
          const username = crypto.randomUUID()
          yield* send("ACL", "SETUSER", username, "on", ">secret", "~mine:*", ...rights)
          return NodeRedis.layer({ username, password: "secret", socket: { host: "127.0.0.1", port } })
        })
      )

    const storeOf = (rights: ReadonlyArray<string>, prefix: string) =>
      Effect.map(
        Layer.build(Layer.provide(Layer.fresh(RedisStore.layerWith({ prefix })), clientOf(rights))),
        Context.get(SessionStore)
      )

    it.effect("needs no more than the rights that the docs name, each of them, for keys under its prefix", () =>
      Effect.gen(function* () {
        const expiry = yield* inAnHour

        /** The operations that fail because of a right that is missing. */
        const refused = Effect.fnUntraced(function* (store: SessionStore["Service"]) {
          const operations: Record<string, Effect.Effect<unknown, SessionStoreError>> = {
            find: store.find("token"),
            create: store.create("token", "data", expiry),
            commit: store.commit("token", "data", expiry),
            replace: store.replace("token", "data", "data", expiry),
            delete: store.delete("other"),
            all: store.all,
            entries: Stream.runDrain(store.entries)
          }
          const failed = yield* Effect.filter(Object.entries(operations), ([, operation]) =>
            Effect.map(Effect.exit(operation), Exit.isFailure)
          )
          return failed.map(([name]) => name).join(" ")
        })

        const store = yield* storeOf(rights, "mine:")
        assert.strictEqual(yield* refused(store), "")
        assert.isTrue(Option.isSome(yield* store.find("token")))
        const needs: Record<string, string> = {}
        for (const right of rights) {
          needs[right] = yield* refused(
            yield* storeOf(
              rights.filter((other) => other !== right),
              "mine:"
            )
          )
        }
        assert.deepStrictEqual(needs, {
          "+get": "find replace",
          "+set": "create commit replace",
          "+del": "delete",
          "+evalsha": "replace",
          "+script|load": "replace",
          "+mget": "all entries",
          "+scan": "all entries"
        })
        assert.strictEqual(yield* refused(yield* storeOf(rights, "yours:")), "find create commit replace delete")
      })
    )
  })

  const broken = ["GET", "SET", "DEL", "SCAN", "EVALSHA"].flatMap((command) => ["--rename-command", command, ""])

  layer(Layer.provideMerge(redisClient, RedisServer.layerWith(...broken)), { excludeTestServices: true })(
    "on a server that refuses",
    (it) => {
      it.effect("fails with a SessionStoreError that names the operation, and neither token nor data", () =>
        Effect.gen(function* () {
          const store = yield* SessionStore
          const expiry = yield* inAnHour
          const [token, data] = ["a-token-that-nobody-may-see", "data-that-nobody-may-see"]
          for (const [operation, effect] of Object.entries({
            find: store.find(token),
            create: store.create(token, data, expiry),
            commit: store.commit(token, data, expiry),
            replace: store.replace(token, data, data, expiry),
            delete: store.delete(token),
            all: store.all,
            entries: Stream.runDrain(store.entries)
          })) {
            const result: Result.Result<unknown, SessionStoreError> = yield* Effect.result(effect)
            const error = Result.isFailure(result) ? result.failure : assert.fail(`${operation} must fail`)
            assert.instanceOf(error, SessionStoreError)
            assert.strictEqual(error.operation, operation)
            assert.include(String(error.cause), "ERR unknown command")
            const shown = [inspect(error, { depth: 10 }), Cause.pretty(Cause.fail(error)), JSON.stringify(error)].join()
            assert.notInclude(shown, "nobody-may-see")
          }
        }).pipe(Effect.provide(emptyStore))
      )
    }
  )
})

describe("errors", () => {
  it.effect("have the cause that the client gave, as it is", () =>
    Effect.gen(function* () {
      const cause = new Error("connect ECONNREFUSED")
      const refuse = () => Effect.fail(new Redis.RedisError({ cause }))
      const refusing = yield* Redis.make({ send: refuse, subscribe: refuse, connect: refuse() })
      const store = Effect.provide(SessionStore, Layer.provide(RedisStore.layer, Layer.succeed(Redis.Redis, refusing)))
      const error = yield* Effect.flip((yield* store).find("token"))
      assert.strictEqual(error.cause, cause)
    })
  )
})

describe("types", () => {
  it("RedisStore.layer provides SessionStore, needs Redis and cannot fail", () => {
    expectTypeOf(RedisStore.layer).toEqualTypeOf<Layer.Layer<SessionStore, never, Redis.Redis>>()
    expectTypeOf(RedisStore.layerWith).returns.toEqualTypeOf<Layer.Layer<SessionStore, never, Redis.Redis>>()
  })
})
