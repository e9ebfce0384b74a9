/**
 * One cookie cannot bring a store down: the cost of many simultaneous commits of one session, on every store.
 */
import { spawn } from "node:child_process"
import { createServer } from "node:http"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Option, Redacted, Schema, type Scope } from "effect"
import { HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { MemStore, Session, SessionStore, SessionStoreError } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"
import { RedisStore } from "effect-sessions/redis"
import { SqlStore } from "effect-sessions/sql"
import { Counter, changed, commitAtOnce, countOperations, flood, newCounter, numberIn } from "./contended.ts"
import { describePostgres, describeRedis, PostgresServer, postgresClient, RedisServer, redisClient } from "./servers.ts"

const contender = fileURLToPath(new URL("contender.ts", import.meta.url))

const namespace = "contention"

class Places extends Session.Service<Places>()("test/Places", {
  schema: Schema.Array(Schema.Int),
  initial: () => []
}) {}

const counted = Effect.map(SessionStore, countOperations)

/** Waits until nothing is left of a flood. */
const drained = ({ left }: { readonly left: () => number }) =>
  Effect.sleep("20 millis").pipe(Effect.repeat({ until: () => left() === 0 }))

const contentionTest = (store: Layer.Layer<SessionStore, unknown>) => {
  it.live(
    "1,000 commits at once lose nothing, and take three operations each at the most",
    () =>
      Effect.gen(function* () {
        const count = yield* counted
        const value = yield* Effect.gen(function* () {
          const token = yield* newCounter
          const commit = yield* commitAtOnce(token, 1_000)
          count.operations = 0
          yield* commit
          return yield* numberIn(token)
        }).pipe(Effect.provideService(SessionStore, count.store))
        assert.strictEqual(value, 1_000)
        assert.isAtMost(count.operations, 3_001)
      }).pipe(Effect.provide(store)),
    60_000
  )

  it.live(
    "first come, first served",
    () =>
      Effect.gen(function* () {
        const first = yield* Places.open()
        yield* first.set([0])
        yield* first.commit
        const token = Option.getOrThrow(yield* first.token)
        const sessions = yield* Effect.replicateEffect(Places.open(token), 200)
        yield* Effect.forEach(
          sessions,
          (session, place) =>
            Effect.andThen(
              session.update((places) => [...places, place + 1]),
              session.commit
            ),
          { concurrency: "unbounded", discard: true }
        )
        const places = yield* Effect.flatMap(Places.open(token), ({ get }) => get)
        assert.deepStrictEqual(
          places,
          Array.from({ length: 201 }, (_, place) => place)
        )
      }).pipe(Effect.provide(store)),
    60_000
  )

  it.live(
    "a flood is served or refused to the last request, and no confirmed change is lost",
    () =>
      Effect.gen(function* () {
        const token = yield* newCounter
        const result = yield* flood(token, { perSecond: 2_000, seconds: 2 })
        yield* drained({ left: () => result.left })
        assert.strictEqual(result.confirmed + result.busy, 4_000)
        assert.isAbove(result.confirmed, 0)
        assert.strictEqual(yield* numberIn(token), result.confirmed)
      }).pipe(Effect.provide(store)),
    60_000
  )
}

const twoProcessesTest = <R>(
  kind: "redis" | "postgres",
  Server: Effect.Effect<{ readonly port: number }, never, R>,
  layer: Layer.Layer<SessionStore | R, unknown>
) => {
  it.live(
    "1,000 commits from two processes lose nothing, and take six operations each at the most",
    () =>
      Effect.gen(function* () {
        const { port } = yield* Server
        const count = yield* counted
        yield* Effect.gen(function* () {
          const token = yield* newCounter
          const args = [kind, String(port), namespace, Redacted.value(token), "500"]
          const second = yield* startContender(args)
          const commit = yield* commitAtOnce(token, 500)
          assert.strictEqual(yield* second.line, "ready")
          count.operations = 0
          second.go()
          const [, operations] = yield* Effect.all([commit, second.line], { concurrency: 2 })
          assert.strictEqual(yield* numberIn(token), 1_000)
          assert.isAbove(Number(operations), 0)
          assert.isAtMost(count.operations + Number(operations), 6_001)
        }).pipe(Effect.provideService(SessionStore, count.store))
      }).pipe(Effect.scoped, Effect.provide(layer)),
    60_000
  )
}

const startContender = (args: ReadonlyArray<string>): Effect.Effect<Contender, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, ["--import", "tsx", contender, ...args], { stdio: ["pipe", "pipe", "inherit"] })
      ),
      (child) => Effect.sync(() => child.kill())
    ),
    (child) => {
      const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
      return {
        line: Effect.promise(async () => (await lines.next()).value),
        go: () => child.stdin.write("go\n")
      }
    }
  )

interface Contender {
  readonly line: Effect.Effect<string>
  readonly go: () => void
}

const increment = Effect.gen(function* () {
  yield* (yield* Counter).update((n) => n + 1)
  return HttpServerResponse.empty()
})

/** The address of a server that adds one to a session with each request. */
const serve = Effect.gen(function* () {
  const routes = HttpRouter.add("POST", "/", increment).pipe(Layer.provide(HttpSession.middleware(Counter).layer))
  const server = NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" })
  const context = yield* Layer.build(
    HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(Layer.provideMerge(server))
  )
  return HttpServer.formatAddress((yield* Effect.provide(HttpServer.HttpServer, context)).address)
})

const overHttpTest = (store: Layer.Layer<SessionStore, unknown>) => {
  it.live(
    "500 requests at once with one cookie are all served, in three operations each, and so is everybody else",
    () =>
      Effect.gen(function* () {
        const count = yield* counted
        yield* Effect.gen(function* () {
          const url = yield* serve
          const [one, another] = [yield* newCounter, yield* newCounter]
          const send = (token: Redacted.Redacted<string>) =>
            Effect.promise(async (signal) => {
              const headers = { cookie: `session=${Redacted.value(token)}` }
              const response = await fetch(url, { method: "POST", headers, signal })
              await response.arrayBuffer()
              return response.status
            })
          count.operations = 0
          const [many, few] = yield* Effect.all(
            [
              Effect.replicateEffect(send(one), 500, { concurrency: "unbounded" }),
              Effect.replicateEffect(send(another), 20)
            ],
            { concurrency: 2 }
          )
          assert.isAtMost(count.operations, 3 * 520)
          assert.deepStrictEqual(new Set([...many, ...few]), new Set([204]))
          assert.strictEqual(yield* numberIn(one), 500)
          assert.strictEqual(yield* numberIn(another), 20)
        }).pipe(Effect.provideService(SessionStore, count.store))
      }).pipe(Effect.scoped, Effect.provide(store)),
    60_000
  )
}

describe("MemStore", () => {
  contentionTest(MemStore.layer)
})

describeRedis("Redis", () => {
  const layer = RedisStore.layerWith({ prefix: namespace }).pipe(
    Layer.provide(redisClient),
    Layer.provideMerge(RedisServer.layer)
  )
  contentionTest(layer)
  twoProcessesTest("redis", RedisServer, layer)
  overHttpTest(layer)
})

describePostgres("PostgreSQL", () => {
  const layer = SqlStore.layerWith({ table: namespace }).pipe(
    Layer.provide(postgresClient),
    Layer.provideMerge(PostgresServer.layer)
  )
  contentionTest(layer)
  twoProcessesTest("postgres", PostgresServer, layer)
})

/** A store whose operations of one kind wait until they are let go, one after another or all together. */
const makeGate = Effect.map(SessionStore, (store) => {
  const waiting: Array<Deferred.Deferred<void, SessionStoreError>> = []
  const gate = {
    finds: 0,
    closed: undefined as "find" | "replace" | undefined,
    /** How many wait. */
    size: () => waiting.length,
    next: (exit: Exit.Exit<void, SessionStoreError> = Exit.void) => {
      const first = waiting.shift()
      if (first !== undefined) Deferred.doneUnsafe(first, exit)
    },
    open: () => {
      gate.closed = undefined
      while (waiting.length > 0) gate.next()
    }
  }
  const pass = (kind: "find" | "replace") =>
    Effect.suspend((): Effect.Effect<void, SessionStoreError> => {
      if (gate.closed !== kind) return Effect.void
      const deferred = Deferred.makeUnsafe<void, SessionStoreError>()
      waiting.push(deferred)
      return Deferred.await(deferred)
    })
  return Object.assign(gate, {
    store: SessionStore.of({
      ...store,
      find: (token) =>
        Effect.suspend(() => {
          gate.finds++
          return Effect.andThen(pass("find"), store.find(token))
        }),
      replace: (...args) => Effect.andThen(pass("replace"), store.replace(...args))
    })
  })
})

const withGate = <A, E>(
  test: (gate: Effect.Success<typeof makeGate>) => Effect.Effect<A, E, SessionStore | Scope.Scope>
) =>
  Effect.gen(function* () {
    const gate = yield* makeGate
    return yield* Effect.provideService(test(gate), SessionStore, gate.store)
  }).pipe(Effect.scoped, Effect.provide(MemStore.layer))

/** Lets all fibers run until they wait. */
const settle = Effect.replicateEffect(Effect.yieldNow, 20, { discard: true })

describe("While a commit is under way", () => {
  /** Sessions of one token: the first is being committed, and the others wait for it. */
  const queue = Effect.fnUntraced(function* (gate: { closed: "find" | "replace" | undefined }, waiting: number) {
    const token = yield* newCounter
    const sessions = yield* Effect.replicateEffect(changed(token), waiting + 1)
    gate.closed = "replace"
    const fibers = yield* Effect.forEach(sessions, ({ commit }) => Effect.forkChild(Effect.exit(commit)))
    yield* settle
    return { token, fibers }
  })

  it.live("1,000 may wait, and the next fails with a SessionBusyError and keeps its changes", () =>
    withGate((gate) =>
      Effect.gen(function* () {
        const { fibers, token } = yield* queue(gate, 1_000)
        const late = yield* changed(token)
        assert.strictEqual((yield* Effect.flip(late.commit))._tag, "SessionBusyError")
        assert.strictEqual(yield* late.status, "modified")
        gate.open()
        const exits = yield* Effect.forEach(fibers, Fiber.join)
        assert.isTrue(exits.every(Exit.isSuccess))
        yield* late.commit
        assert.strictEqual(yield* numberIn(token), 1_002)
      })
    )
  )

  it.live("one that is interrupted leaves at once, and makes room", () =>
    withGate((gate) =>
      Effect.gen(function* () {
        const { fibers, token } = yield* queue(gate, 1_000)
        yield* Fiber.interruptAll(fibers.slice(500, 600))
        const late = yield* Effect.replicateEffect(changed(token), 101)
        const lateFibers = yield* Effect.forEach(late, ({ commit }) => Effect.forkChild(Effect.exit(commit)))
        yield* settle
        gate.open()
        const exits = yield* Effect.forEach([...fibers.slice(0, 500), ...fibers.slice(600), ...lateFibers], Fiber.join)
        assert.strictEqual(exits.filter(Exit.isSuccess).length, 1_001)
        assert.strictEqual(yield* numberIn(token), 1_001)
      })
    )
  )

  it.live("the one that is under way passes its turn on if it is interrupted", () =>
    withGate((gate) =>
      Effect.gen(function* () {
        const { fibers, token } = yield* queue(gate, 2)
        yield* Fiber.interruptAll(fibers.slice(0, 1))
        gate.open()
        yield* Effect.forEach(fibers.slice(1), Fiber.join)
        assert.strictEqual(yield* numberIn(token), 2)
      })
    )
  )

  it.live("a log-out is not refused", () =>
    withGate((gate) =>
      Effect.gen(function* () {
        const { fibers, token } = yield* queue(gate, 1_000)
        const last = yield* Counter.open(token)
        const logOut = yield* Effect.forkChild(last.destroy)
        yield* settle
        gate.open()
        yield* Fiber.join(logOut)
        yield* Effect.forEach(fibers, Fiber.join)
        assert.strictEqual(yield* numberIn(token), 0)
      })
    )
  )
})

describe("Who opens a session while it is changed", () => {
  /** A session that is being committed, with one running look-up and some that came later. */
  const openers = Effect.fnUntraced(function* (gate: Effect.Success<typeof makeGate>, count: number) {
    const token = yield* newCounter
    const busy = yield* changed(token)
    gate.closed = "replace"
    yield* Effect.forkChild(busy.commit)
    yield* settle
    gate.closed = "find"
    gate.finds = 0
    const open = Effect.flatMap(Counter.open(token), ({ get }) => get)
    const first = yield* Effect.forkChild(open)
    yield* settle
    const others = yield* Effect.forEach(Array.from({ length: count }), () => Effect.forkChild(open))
    yield* settle
    // The commit ends, and only the look-ups are left.
    gate.next()
    yield* settle
    return { first, others }
  })

  it.live("shares a look with all who came before it began, and with nobody who came later", () =>
    withGate((gate) =>
      Effect.gen(function* () {
        const { first, others } = yield* openers(gate, 500)
        assert.strictEqual(gate.finds, 1)
        gate.next()
        yield* Fiber.join(first)
        yield* settle
        assert.strictEqual(gate.finds, 2)
        gate.open()
        assert.deepStrictEqual(new Set(yield* Effect.forEach(others, Fiber.join)), new Set([1]))
        assert.strictEqual(gate.finds, 2)
      })
    )
  )

  it.live("is not kept waiting by one that was interrupted, before it looked or while it did", () =>
    withGate((gate) =>
      Effect.gen(function* () {
        const { first, others } = yield* openers(gate, 10)
        const [beforeItLooked, whileItDid, ...rest] = others
        if (beforeItLooked === undefined || whileItDid === undefined) return assert.fail()
        yield* Fiber.interrupt(beforeItLooked)
        yield* settle
        yield* Fiber.interrupt(first)
        yield* settle
        assert.strictEqual(gate.finds, 2)
        yield* Fiber.interrupt(whileItDid)
        yield* settle
        gate.open()
        assert.deepStrictEqual(new Set(yield* Effect.forEach(rest, Fiber.join)), new Set([1]))
      })
    )
  )

  it.live("fails as the look that it shares fails", () =>
    withGate((gate) =>
      Effect.gen(function* () {
        const { first, others } = yield* openers(gate, 3)
        gate.next()
        yield* Fiber.join(first)
        yield* settle
        gate.next(Exit.fail(new SessionStoreError({ operation: "find", cause: new Error("away") })))
        const errors = yield* Effect.forEach(others, (fiber) => Effect.flip(Fiber.join(fiber)))
        assert.deepStrictEqual(new Set(errors.map(({ _tag }) => _tag)), new Set(["SessionStoreError"]))
        gate.open()
      })
    )
  )
})
