/** A server, two clients of it that act as two servers of an application, and the faults that it can have. */
import { readFileSync } from "node:fs"
import { NodeRedis } from "@effect/platform-node"
import { Context, Effect, Layer, Random } from "effect"
import * as Redis from "effect/persistence/Redis"
import { SqlClient } from "effect/sql"
import { SessionStore } from "effect-sessions"
import { RedisStore } from "effect-sessions/redis"
import { SqlStore } from "effect-sessions/sql"
import { PostgresServer, postgresClientOn, RedisServer, redisClientOn } from "../servers.ts"
import type { PlantedFault } from "./clients.ts"
import { type Gateway, makeProxy } from "./proxy.ts"

export const faults = ["kill", "stop", "cut", "proxy", "clock"] as const
export type Fault = (typeof faults)[number]

export interface Rig {
  readonly stores: ReadonlyArray<SessionStore["Service"]>
  /** Does to the server what the fault is, and mends it. */
  readonly inject: (fault: Fault) => Effect.Effect<void>
}

/** Longer than the timeout of docs/stores.md. */
const longerThanTheTimeout = 1_300

// A process that serves a client may be gone when its turn comes.
const send = (pids: ReadonlyArray<number>, signal: NodeJS.Signals) =>
  Effect.forEach(pids, (pid) => Effect.ignore(Effect.try(() => process.kill(pid, signal))), { discard: true })

/** Stops processes for a while. */
export const pause = (pids: ReadonlyArray<number>) =>
  Effect.acquireUseRelease(
    send(pids, "SIGSTOP"),
    () => Effect.sleep(longerThanTheTimeout),
    () => send(pids, "SIGCONT")
  )

const moment = Effect.flatMap(Random.nextIntBetween(0, 200), (millis) => Effect.sleep(millis))

interface Server {
  readonly kill: Effect.Effect<void>
  readonly start: Effect.Effect<void>
  readonly cut: Effect.Effect<void>
}

const injectInto =
  (server: Server, pids: Effect.Effect<ReadonlyArray<number>>, proxy: Gateway): Rig["inject"] =>
  (fault) => {
    switch (fault) {
      case "kill":
        return Effect.andThen(server.kill, Effect.andThen(moment, server.start))
      case "stop":
        return Effect.flatMap(pids, pause)
      case "cut":
        return Effect.gen(function* () {
          for (const way of [server.cut, proxy.cutAll, server.cut, proxy.cutAll]) yield* Effect.andThen(moment, way)
          yield* proxy.behave({ name: "silence" }, longerThanTheTimeout)
        })
      case "proxy":
        return Effect.gen(function* () {
          yield* proxy.behave({ name: "drop", share: 0.05 }, 600)
          yield* proxy.behave({ name: "delay", millis: yield* Random.nextIntBetween(20, 200) }, 400)
          yield* proxy.behave({ name: "drop", share: 0.05 }, 300)
        })
      case "clock":
        return Effect.sleep("500 millis")
    }
  }

const redisPids = (port: number) =>
  Effect.gen(function* () {
    const info = yield* (yield* Redis.Redis).send<string>("INFO", "server")
    return [Number(/process_id:(\d+)/.exec(info)?.[1])]
  }).pipe(Effect.provide(redisClientOn(port)), Effect.orDie)

export const redisRig = (planted: PlantedFault | undefined) =>
  Effect.gen(function* () {
    const persistence =
      planted === "no append-only file" ? (["--appendonly", "no"] as const) : (["--appendfsync", "always"] as const)
    const server = Context.get(yield* Layer.build(RedisServer.layerWith(...persistence)), RedisServer)
    const proxy = yield* makeProxy(server.port)
    // One keeps a queue of what it was asked for while Redis is away, and one does not.
    const stores = yield* Effect.forEach([true, false], (disableOfflineQueue) => {
      const client = NodeRedis.layer({ socket: { host: "127.0.0.1", port: proxy.port }, disableOfflineQueue })
      return Effect.map(Layer.build(Layer.provide(RedisStore.layer, client)), Context.get(SessionStore))
    })
    return { stores, inject: injectInto(server, redisPids(server.port), proxy) } satisfies Rig
  })

/** Those that serve the clients, and their parent. */
const postgresPids = (port: number) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const children = (yield* sql<{ readonly pid: number }>`SELECT pid FROM pg_stat_activity`).map(({ pid }) => pid)
    const parent = /^PPid:\s*(\d+)$/m.exec(readFileSync(`/proc/${children[0]}/status`, "utf8"))?.[1]
    return [Number(parent), ...children].filter((pid) => pid > 1)
  }).pipe(Effect.provide(postgresClientOn(port)), Effect.orDie)

export const postgresRig = Effect.gen(function* () {
  const server = Context.get(yield* Layer.build(PostgresServer.layer), PostgresServer)
  const proxy = yield* makeProxy(server.port)
  const store = Effect.map(
    Layer.build(Layer.fresh(Layer.provide(SqlStore.layer, postgresClientOn(proxy.port)))),
    Context.get(SessionStore)
  )
  const stores = [yield* store, yield* store]
  return { stores, inject: injectInto(server, postgresPids(server.port), proxy) } satisfies Rig
})
