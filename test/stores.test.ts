import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { assert, layer } from "@effect/vitest"
import {
  type Context,
  DateTime,
  Deferred,
  Effect,
  Fiber,
  HashMap,
  Layer,
  Logger,
  Option,
  Ref,
  Result,
  Schedule,
  Stream
} from "effect"
import { MemStore, SessionStore, type SessionStoreError } from "effect-sessions"
import { RedisStore } from "effect-sessions/redis"
import { SqlStore } from "effect-sessions/sql"
import { AccountSession } from "./accounts.ts"
import { doToBoth, makeBelow } from "./agreement.ts"
import { increment } from "./counter.ts"
import { describePostgres, describeRedis, PostgresServer, postgresClient, RedisServer, redisClient } from "./servers.ts"

const inAnHour = Effect.map(DateTime.now, DateTime.add({ hours: 1 }))

const secondProcess = fileURLToPath(new URL("secondProcess.ts", import.meta.url))

const revokingProcess = fileURLToPath(new URL("revokingProcess.ts", import.meta.url))

/** What holds for every store that several processes share, each on a separate server. */
const sharedStoreTest = <R>(options: {
  readonly kind: "redis" | "postgres"
  readonly describe: (name: string, tests: () => void) => void
  readonly Server: Context.Service<R, RedisServer["Service"]>
  readonly server: Layer.Layer<R>
  readonly store: (namespace: string) => Layer.Layer<SessionStore, unknown, R>
}) => {
  // Without a logger: a client may log that it lost its connection.
  const newStore = Layer.unwrap(Effect.sync(() => options.store(crypto.randomUUID()))).pipe(
    Layer.provide(Logger.layer([]))
  )

  options.describe(options.kind, () => {
    layer(options.server, { excludeTestServices: true })("on a server", (it) => {
      it.effect("shares its sessions between two processes, and loses no replace of either", () =>
        Effect.gen(function* () {
          const { port } = yield* options.Server
          const namespace = crypto.randomUUID()
          yield* Effect.gen(function* () {
            const store = yield* SessionStore
            const expiry = yield* inAnHour
            yield* store.commit("first", "opened by the first process", expiry)
            yield* store.commit("counter", "0", expiry)
            const second = Effect.tryPromise(() =>
              promisify(execFile)(process.execPath, [
                ...["--import", "tsx", secondProcess],
                ...[options.kind, String(port), namespace, "500"]
              ])
            )
            // The first continues while the second runs, and gives it time to make progress.
            const done = yield* Deferred.make<void, unknown>()
            const counting = Effect.gen(function* () {
              let count = 0
              while (!(yield* Deferred.isDone(done))) {
                yield* increment(store, "counter", expiry)
                yield* Effect.sleep("1 millis")
                count++
              }
              return count
            })
            const [, counts] = yield* Effect.all(
              [Deferred.into(Effect.asVoid(second), done), Effect.all([counting, counting], { concurrency: 2 })],
              { concurrency: 2 }
            )
            yield* Deferred.await(done)
            const found = yield* store.find("counter")
            assert.strictEqual(Option.getOrThrow(found), String(500 + counts[0] + counts[1]))
            assert.deepStrictEqual(yield* store.find("second"), Option.some("opened by the first process"))
          }).pipe(Effect.provide(options.store(namespace)))
        })
      )

      it.effect("ends all sessions of a user from another process, and lets no log-in through that began before", () =>
        Effect.gen(function* () {
          const { port } = yield* options.Server
          const namespace = crypto.randomUUID()
          const inSecond = Effect.tryPromise(() =>
            promisify(execFile)(process.execPath, [
              ...["--import", "tsx", revokingProcess],
              ...[options.kind, String(port), namespace, "ada"]
            ])
          )
          yield* Effect.gen(function* () {
            const beginLogIn = Effect.tap(AccountSession.open(), (session) => session.set({ user: "ada" }))
            const openPage = Effect.flatMap(beginLogIn, (session) => Effect.as(session.commit, session))
            const pages = yield* Effect.replicateEffect(openPage, 3)
            const slow = yield* beginLogIn
            const { stdout } = yield* inSecond
            assert.strictEqual(stdout.trim(), "3")
            for (const page of pages) {
              assert.strictEqual(yield* page.ended, "destroyed")
              const token = Option.getOrThrow(yield* page.token)
              assert.deepStrictEqual(yield* (yield* AccountSession.open(token)).get, {})
            }
            assert.deepStrictEqual(yield* slow.commit, Option.none())
            assert.strictEqual(yield* Stream.runCount(AccountSession.sessionsOf("user", "ada")), 0)
            assert.isTrue(Option.isSome(yield* (yield* beginLogIn).commit))
          }).pipe(Effect.provide(options.store(namespace)))
        })
      )

      /**
       * Puts a store under load, does something to its server in the middle of it, and then checks every answer: what
       * was confirmed holds, and nothing failed but with a `SessionStoreError`.
       */
      const survives = (incident: (server: RedisServer["Service"]) => Effect.Effect<void>) =>
        Effect.gen(function* () {
          const server = yield* options.Server
          const store = yield* SessionStore
          const expiry = yield* inAnHour
          const committed = new Set<string>()
          const deleted = new Set<string>()
          const running = yield* Ref.make(true)
          let failures = 0
          let increments = 0
          let failedIncrements = 0

          /** Not even a defect may come of it but an answer or a `SessionStoreError`. */
          const attempt = <A>(effect: Effect.Effect<A, SessionStoreError>) =>
            Effect.matchEffect(effect, {
              onFailure: () => {
                failures++
                return Effect.as(Effect.sleep("5 millis"), Option.none<A>())
              },
              onSuccess: (answer) => Effect.succeedSome(answer)
            })

          const visitor = Effect.fnUntraced(function* (name: number) {
            for (let i = 0; yield* Ref.get(running); i++) {
              const token = `${name} ${i}`
              const isWritten = yield* attempt(
                i % 2 === 0 ? store.commit(token, token, expiry) : store.create(token, token, expiry)
              )
              if (Option.isSome(isWritten)) committed.add(token)
              if (i % 3 === 0) {
                committed.delete(token)
                if (Option.isSome(yield* attempt(store.delete(token)))) deleted.add(token)
              }
              const found = Option.flatten(yield* attempt(store.find("counter")))
              if (Option.isNone(found)) continue
              const next = `${Number(found.value) + 1}`
              const replaced = yield* attempt(store.replace("counter", found.value, next, expiry))
              if (Option.isNone(replaced)) failedIncrements++
              else if (replaced.value) increments++
            }
          })

          yield* store.commit("counter", "0", expiry)
          const load = yield* Effect.forkChild(
            Effect.forEach([1, 2, 3, 4, 5, 6, 7, 8], visitor, { concurrency: "unbounded", discard: true })
          )
          yield* Effect.sleep("300 millis")
          const confirmedBefore = committed.size
          yield* incident(server)
          const incidentsEnd = committed.size
          yield* Effect.sleep("10 millis").pipe(
            Effect.repeat({ until: () => committed.size > incidentsEnd + 100 }),
            Effect.timeout("20 seconds")
          )
          yield* Ref.set(running, false)
          yield* Fiber.join(load)

          assert.isAbove(confirmedBefore, 10, "the load must have begun")
          assert.isAbove(failures, 0, "the incident must have come in the middle of the load")
          const all = yield* store.all
          for (const token of committed) {
            assert.deepStrictEqual(HashMap.get(all, token), Option.some(token), `${token} was confirmed`)
          }
          for (const token of deleted) assert.isFalse(HashMap.has(all, token), `${token} was deleted`)
          const count = Number(HashMap.getUnsafe(all, "counter"))
          assert.isAtLeast(count, increments)
          assert.isAtMost(count, increments + failedIncrements)
        }).pipe(Effect.provide(newStore))

      it.effect(
        "loses nothing that was confirmed when the server is killed under load, and works on when it is back",
        () =>
          survives(({ kill, start }) => kill.pipe(Effect.andThen(Effect.sleep("200 millis")), Effect.andThen(start)))
      )

      it.effect("loses nothing that was confirmed when connections are cut under load, and works on", () =>
        survives(({ cut }) => Effect.repeat(Effect.andThen(cut, Effect.sleep("50 millis")), { times: 4 }))
      )

      it.effect("can be given a timeout and retries by the application, and then bridges a restart of the server", () =>
        Effect.gen(function* () {
          const { kill, start } = yield* options.Server
          const store = yield* SessionStore
          yield* store.commit("token", "data", yield* inAnHour)
          yield* kill
          const impatient = Effect.timeout(store.find("token"), "200 millis")
          const outcome = yield* Effect.result(impatient)
          assert.isTrue(Result.isFailure(outcome))
          const patient = yield* Effect.forkChild(
            Effect.retry(impatient, { schedule: Schedule.spaced("50 millis"), times: 200 })
          )
          yield* start
          assert.deepStrictEqual(yield* Fiber.join(patient), Option.some("data"))
        }).pipe(Effect.provide(newStore))
      )

      it.effect("agrees with MemStore, whatever is done to both", () =>
        Effect.gen(function* () {
          const memStore = yield* MemStore
          const store = yield* SessionStore
          const now = yield* DateTime.now
          const below = makeBelow()
          const someText = () =>
            below(2) === 0
              ? "\u00e9base64:\u{1F36A}\ufeff\u0000".repeat(below(9))
              : String.fromCodePoint(...Array.from({ length: below(300) }, () => below(0xd800)))
          for (let step = 0; step < 600; step++) {
            const token = `${"*?[]\\:%"[below(7)]}${below(30)}`
            const expiry = DateTime.add(now, { hours: below(4) === 0 ? -1 : 1 })
            yield* doToBoth(store, memStore, below, { token, expiry, someText })
          }
          const expected = new Map(yield* memStore.all)
          assert.isAbove(expected.size, 30)
          assert.deepStrictEqual(new Map(yield* store.all), expected)
          assert.deepStrictEqual(new Map(yield* Stream.runCollect(store.entries)), expected)
          assert.deepStrictEqual(new Map(yield* Stream.runCollect(memStore.entries)), expected)
        }).pipe(
          Effect.provide(
            Layer.merge(
              // MemStore's layer provides both tags; here SessionStore is the other store.
              Layer.effect(MemStore, MemStore.makeWithCleanupInterval(0)),
              newStore
            )
          )
        )
      )
    })
  })
}

sharedStoreTest({
  kind: "redis",
  describe: describeRedis,
  Server: RedisServer,
  // Otherwise Redis may confirm a write before the kernel has it, and a kill would lose it.
  server: RedisServer.layerWith("--appendfsync", "always"),
  store: (prefix) => Layer.provide(RedisStore.layerWith({ prefix }), redisClient)
})

sharedStoreTest({
  kind: "postgres",
  describe: describePostgres,
  Server: PostgresServer,
  server: PostgresServer.layer,
  store: (table) => Layer.provide(SqlStore.layerWith({ table }), postgresClient)
})
