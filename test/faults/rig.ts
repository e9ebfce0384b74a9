/** A server, two clients of it that act as two servers of an application, and the faults that it can have. */
import { readFileSync } from "node:fs"
import { NodeRedis } from "@effect/platform-node"
import { Context, Effect, Layer, Option, Random, Schedule } from "effect"
import * as Redis from "effect/persistence/Redis"
import { SqlClient } from "effect/sql"
import { SessionStore } from "effect-sessions"
import { RedisStore } from "effect-sessions/redis"
import { SqlStore } from "effect-sessions/sql"
import {
  PostgresServer,
  postgresClientOn,
  RedisCluster,
  RedisServer,
  redisClientOn,
  redisClusterClient,
  replicatedClusterClient
} from "../servers.ts"
import { choose, type PlantedFault } from "./clients.ts"
import { type Gateway, makeProxy } from "./proxy.ts"

const faultsOfServers = ["kill", "stop", "cut", "proxy", "clock"] as const
const faultsOfClusters = ["kill", "failover"] as const
export const faults = [...new Set([...faultsOfServers, ...faultsOfClusters])]
export type Fault = (typeof faults)[number]

export interface Rig<F extends Fault = Fault> {
  readonly stores: ReadonlyArray<SessionStore["Service"]>
  readonly faults: ReadonlyArray<F>
  /** Does to the server what the fault is, and mends it. */
  readonly inject: (fault: F) => Effect.Effect<void>
}

type ServerRig = Rig<(typeof faultsOfServers)[number]>
type ClusterRig = Rig<(typeof faultsOfClusters)[number]>

/** Longer than the timeout of docs/stores.md. */
const longerThanTheTimeout = 1_300

// A process that serves a client may be gone when its turn comes.
const send = (pids: ReadonlyArray<number>, signal: NodeJS.Signals) =>
  Effect.forEach(pids, (pid) => Effect.ignore(Effect.try(() => process.kill(pid, signal))), { discard: true })

const whileStopped = (pids: ReadonlyArray<number>, use: Effect.Effect<void>) =>
  Effect.acquireUseRelease(
    send(pids, "SIGSTOP"),
    () => use,
    () => send(pids, "SIGCONT")
  )

/** Stops processes for a while. */
export const pause = (pids: ReadonlyArray<number>) => whileStopped(pids, Effect.sleep(longerThanTheTimeout))

const moment = Effect.flatMap(Random.nextIntBetween(0, 200), (millis) => Effect.sleep(millis))

interface Server {
  readonly kill: Effect.Effect<void>
  readonly start: Effect.Effect<void>
  readonly cut: Effect.Effect<void>
}

const injectInto =
  (server: Server, pids: Effect.Effect<ReadonlyArray<number>>, proxy: Gateway): ServerRig["inject"] =>
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
    // One queues commands while Redis is down, and one does not.
    const stores = yield* Effect.forEach([true, false], (disableOfflineQueue) => {
      const client = NodeRedis.layer({ socket: { host: "127.0.0.1", port: proxy.port }, disableOfflineQueue })
      return Effect.map(Layer.build(Layer.provide(RedisStore.layer, client)), Context.get(SessionStore))
    })
    const inject = injectInto(server, redisPids(server.port), proxy)
    return { stores, faults: faultsOfServers, inject } satisfies ServerRig
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
  const inject = injectInto(server, postgresPids(server.port), proxy)
  return { stores, faults: faultsOfServers, inject } satisfies ServerRig
})

const sendTo = (port: number, command: string, ...args: ReadonlyArray<string>) =>
  Effect.flatMap(Redis.Redis, (redis) => redis.send<string>(command, ...args)).pipe(
    Effect.provide(redisClientOn(port)),
    Effect.orDie
  )

/** The port of an up-to-date replica of a master; none for other nodes. */
const replicaOf = (master: number) =>
  Effect.map(sendTo(master, "INFO", "replication"), (info) =>
    Option.map(Option.fromNullOr(/^role:master.*^slave0:ip=[^,]*,port=(\d+),state=online/ms.exec(info)), ([, port]) =>
      Number(port)
    )
  )

const isMaster = (port: number) =>
  Effect.map(sendTo(port, "INFO", "replication"), (info) => info.includes("role:master"))

const often = Schedule.spaced("20 millis")

/**
 * Three masters, each with a replica, and clients that are answered once the replica has it. If a master is killed, or its
 * replica is told to take over, the replica is the master, and the other one comes back as its replica.
 */
export const clusterRig = (planted: PlantedFault | undefined) =>
  Effect.gen(function* () {
    const cluster = yield* Layer.build(RedisCluster.layerWith({ replicas: 1 }))
    const { nodes } = Context.get(cluster, RedisCluster)
    const client = planted === "answers without a replica" ? redisClusterClient : replicatedClusterClient
    const store = Layer.build(Layer.fresh(Layer.provide(RedisStore.layer, client))).pipe(
      Effect.map(Context.get(SessionStore)),
      Effect.provide(cluster)
    )
    const stores = [yield* store, yield* store]

    const inject: ClusterRig["inject"] = Effect.fnUntraced(function* (fault) {
      const withReplica = Effect.filter(nodes, ({ port }) => Effect.map(replicaOf(port), Option.isSome))
      const masters = yield* Effect.repeat(withReplica, { schedule: often, until: ({ length }) => length === 3 })
      const master = yield* choose(masters)
      const replica = Option.getOrThrow(yield* replicaOf(master.port))
      if (fault === "failover") yield* sendTo(replica, "CLUSTER", "FAILOVER")
      else {
        // The replica cannot reconnect, so everything that the master does from now on is lost with it.
        const cutOff = sendTo(master.port, "CLIENT", "KILL", "TYPE", "replica")
        const killing = Effect.andThen(cutOff, Effect.andThen(moment, master.kill))
        yield* whileStopped(yield* redisPids(replica), killing)
      }
      yield* Effect.repeat(isMaster(replica), { schedule: often, until: (isMaster) => isMaster })
      if (fault === "kill") yield* master.start
      yield* Effect.repeat(replicaOf(replica), { schedule: often, until: Option.isSome })
    })
    return { stores, faults: faultsOfClusters, inject } satisfies ClusterRig
  })
