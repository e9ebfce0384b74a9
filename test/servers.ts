/**
 * Real servers for the tests: each on a free port of the loopback, with its files in a separate folder, stopped and
 * removed with its scope.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync } from "node:fs"
import { chown, readdir, readFile } from "node:fs/promises"
import { createServer } from "node:net"
import { userInfo } from "node:os"
import { delimiter, join } from "node:path"
import { promisify } from "node:util"
import { NodeRedis } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { describe } from "@effect/vitest"
import { Context, Effect, Layer, Schedule, type Scope } from "effect"
import * as Redis from "effect/persistence/Redis"
import * as SqlClient from "effect/sql/SqlClient"
import { createCluster, type RedisClusterOptions } from "redis"
import { temporaryFolder } from "./temporary.ts"

const run = promisify(execFile)

/** What a test can do to a server, in addition to using it. */
interface Server {
  readonly port: number
  /** Kills it, like a crash. */
  readonly kill: Effect.Effect<void>
  /** Restarts it, on the same port and with the same files. */
  readonly start: Effect.Effect<void>
  /** Cuts the connections of all clients. */
  readonly cut: Effect.Effect<void>
}

// Not a port of the system's choice: from the range of those that clients get, another may take it while the server is
// down.
const freePort = Effect.tryPromise(async () => {
  const port = 10_000 + Math.floor(Math.random() * 10_000)
  // That of the bus of a Redis Cluster is 10,000 above.
  for (const needed of [port, port + 10_000]) {
    const server = createServer().listen(needed, "127.0.0.1")
    await once(server, "listening")
    server.close()
    await once(server, "close")
  }
  return port
}).pipe(Effect.retry({ times: 20 }), Effect.orDie)

const debianPostgres = "/usr/lib/postgresql"

const findBinary = async (name: string): Promise<string | undefined> => {
  const versions = existsSync(debianPostgres)
    ? (await readdir(debianPostgres)).sort((a, b) => Number(b) - Number(a))
    : []
  const folders = [
    ...(process.env.PATH ?? "").split(delimiter),
    ...versions.map((version) => join(debianPostgres, version, "bin"))
  ]
  return folders.map((folder) => join(folder, name)).find(existsSync)
}

const redisServer = await findBinary("redis-server")
const redisCli = await findBinary("redis-cli")
const initdb = await findBinary("initdb")
const pgCtl = await findBinary("pg_ctl")

/** Ends a child process and waits for its end. */
const end = (child: ChildProcess, signal: NodeJS.Signals) =>
  Effect.promise(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exit = once(child, "exit")
    child.kill(signal)
    await exit
  })

const redisCommand = (port: number, ...args: ReadonlyArray<string>) =>
  Effect.tryPromise(() => run(redisCli ?? "redis-cli", ["-p", String(port), ...args]))

/** A Redis server that stores confirmed writes in an append-only file. */
const startRedis = Effect.fnUntraced(function* (...options: ReadonlyArray<string>) {
  const folder = yield* temporaryFolder
  const port = yield* freePort
  let child: ChildProcess | undefined
  const isUp = Effect.filterOrFail(redisCommand(port, "PING"), ({ stdout }) => stdout.includes("PONG"))
  const start = Effect.sync(() => {
    child = spawn(
      redisServer ?? "redis-server",
      [
        ...["--port", String(port), "--bind", "127.0.0.1", "--dir", folder],
        ...["--save", "", "--appendonly", "yes", ...options]
      ],
      { stdio: "ignore" }
    )
  }).pipe(
    Effect.andThen(Effect.retry(isUp, { schedule: Schedule.spaced("20 millis"), times: 250 })),
    Effect.orDie,
    Effect.asVoid
  )
  const stop = (signal: NodeJS.Signals) =>
    Effect.suspend(() => (child === undefined ? Effect.void : end(child, signal)))
  yield* Effect.addFinalizer(() => stop("SIGKILL"))
  yield* start
  // Pause it first, so commands are in flight when it dies.
  const kill = Effect.gen(function* () {
    // Not the child's own method: Deno treats a child that got any signal as dead, and would send no other.
    if (child?.pid !== undefined) process.kill(child.pid, "SIGSTOP")
    yield* Effect.sleep("20 millis")
    yield* stop("SIGKILL")
  })
  const cut = Effect.orDie(Effect.asVoid(redisCommand(port, "CLIENT", "KILL", "TYPE", "normal")))
  return { port, start, kill, cut } satisfies Server
})

export class RedisServer extends Context.Service<RedisServer, Server>()("test/RedisServer") {
  static readonly layerWith = (...options: ReadonlyArray<string>): Layer.Layer<RedisServer> =>
    Layer.effect(RedisServer, startRedis(...options))

  static readonly layer = RedisServer.layerWith()
}

/** Three masters, each with so many replicas, which take a master's place a second after it has died. */
export class RedisCluster extends Context.Service<RedisCluster, { readonly nodes: ReadonlyArray<Server> }>()(
  "test/RedisCluster"
) {
  static readonly layerWith = ({ replicas }: { readonly replicas: number }): Layer.Layer<RedisCluster> =>
    Layer.effect(
      RedisCluster,
      Effect.gen(function* () {
        const nodes = yield* Effect.replicateEffect(
          startRedis(
            ...["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"],
            // A replica that is new, or back, need not wait for others.
            ...["--repl-diskless-sync-delay", "0"]
          ),
          3 * (1 + replicas)
        )
        const ports = nodes.map(({ port }) => port)
        const addresses = ports.map((port) => `127.0.0.1:${port}`)
        const how = ["--cluster-replicas", String(replicas), "--cluster-yes"]
        yield* Effect.orDie(redisCommand(ports[0] ?? 0, "--cluster", "create", ...addresses, ...how))
        // A node that has not heard of it yet refuses.
        const isUp = (port: number) =>
          Effect.filterOrFail(redisCommand(port, "CLUSTER", "INFO"), ({ stdout }) =>
            stdout.includes("cluster_state:ok")
          )
        yield* Effect.forEach(ports, (port) =>
          Effect.orDie(Effect.retry(isUp(port), { schedule: Schedule.spaced("20 millis"), times: 500 }))
        )
        return RedisCluster.of({ nodes })
      })
    )
}

/** The key by which a cluster client chooses a node. It takes those of `SCAN`, `MGET` and `SCRIPT` out of them itself. */
const keyOf = (command: string, args: ReadonlyArray<string>): string | undefined => {
  if (command === "SCAN" || command === "MGET" || command === "SCRIPT") return undefined
  return command === "EVALSHA" ? args[2] : args[0]
}

const newCluster = (options: RedisClusterOptions) => createCluster(options)

/**
 * Waits until a replica has every write to a key. Another key is written on the same master and connection, and waited
 * for: a replica gets everything in the order in which its master did it.
 */
const untilReplicated = async (cluster: ReturnType<typeof newCluster>, key: string) => {
  const slot = await cluster.sendCommand<number>(undefined, true, ["CLUSTER", "KEYSLOT", key])
  const shard = cluster.slots[slot]
  if (shard === undefined) throw new Error("The client knows no master for it")
  const master = await cluster.nodeClient(shard.master)
  const [, replicas] = await Promise.all([
    master.sendCommand(["SET", `{${key}}`, "", "PX", "1000"]),
    master.sendCommand<number>(["WAIT", "1", "400"])
  ])
  if (replicas < 1) throw new Error("No replica has it")
}

/** Effect's `Redis` on the cluster client of `redis`, as docs/stores.md has it; it may wait for replicas. */
const makeRedisOfCluster = (
  options: RedisClusterOptions & { readonly waitsForReplicas?: boolean }
): Effect.Effect<Redis.Redis["Service"], Redis.RedisError, Scope.Scope> =>
  Effect.gen(function* () {
    const cluster = yield* Effect.acquireRelease(
      Effect.sync(() => newCluster(options)),
      (cluster) => Effect.ignoreCause(Effect.promise(() => cluster.close()))
    )
    // Without a listener an error that no command gets would end the process.
    cluster.on("error", () => {})
    const attempt = <A>(run: () => Promise<A>) =>
      Effect.tryPromise({ try: run, catch: (cause) => new Redis.RedisError({ cause }) })
    yield* attempt(() => cluster.connect())
    return yield* Redis.make({
      send: <A>(command: string, ...args: ReadonlyArray<string>) =>
        attempt(async () => {
          const key = keyOf(command, args)
          const answer = await cluster.sendCommand<A>(key, false, [command, ...args])
          if (options.waitsForReplicas && key !== undefined) await untilReplicated(cluster, key)
          return answer
        }),
      subscribe: (channel, onMessage) =>
        Effect.as(
          Effect.acquireRelease(
            attempt(() => cluster.subscribe(channel, (message, channel) => onMessage({ channel, message }))),
            () => Effect.ignoreCause(Effect.promise(() => cluster.unsubscribe(channel)))
          ),
          Effect.never
        ),
      connect: Effect.fail(new Redis.RedisError({ cause: new Error("A cluster has no connection to reserve") }))
    })
  })

const clusterClient = (waitsForReplicas: boolean) =>
  Layer.effect(
    Redis.Redis,
    Effect.flatMap(RedisCluster, ({ nodes }) =>
      makeRedisOfCluster({
        rootNodes: nodes.map(({ port }) => ({ socket: { host: "127.0.0.1", port } })),
        defaults: { disableOfflineQueue: true },
        topologyRefreshOnReconnectionAttemptStrategy: 200,
        waitsForReplicas
      })
    )
  )

/** A client of the cluster in the context, whose commands fail at once while their node is away. */
export const redisClusterClient = clusterClient(false)

/** The same, but it answers once a replica has what the answer is about, also if that was only read. */
export const replicatedClusterClient = clusterClient(true)

export const redisClientOn = (port: number) => NodeRedis.layer({ socket: { host: "127.0.0.1", port } })

/** A client of the server in the context. */
export const redisClient = Layer.unwrap(Effect.map(RedisServer, ({ port }) => redisClientOn(port)))

// PostgreSQL refuses to run as root.
const isRoot = userInfo().uid === 0
const asUser = (command: string, args: ReadonlyArray<string>) =>
  isRoot ? run("runuser", ["-u", "postgres", "--", command, ...args]) : run(command, [...args])

export class PostgresServer extends Context.Service<PostgresServer, Server>()("test/PostgresServer") {
  static readonly layer: Layer.Layer<PostgresServer> = Layer.effect(
    PostgresServer,
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const port = yield* freePort
      const data = join(folder, "data")
      const control = (...args: ReadonlyArray<string>) =>
        Effect.tryPromise(() => asUser(pgCtl ?? "pg_ctl", ["--pgdata", data, "--silent", ...args]))
      // What a killed process has written is safe with the operating system, synced or not.
      const settings = { port, listen_addresses: "127.0.0.1", unix_socket_directories: "", fsync: "off" }
      const options = Object.entries(settings)
        .map(([name, value]) => `-c ${name}=${value}`)
        .join(" ")
      const log = join(folder, "log")
      // After a crash, the processes that served the clients have to be gone first.
      const start = control("start", "--wait", "--log", log, "--options", options).pipe(
        Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 50 }),
        Effect.orDie,
        Effect.asVoid
      )
      // Those that serve the clients would live on for a moment after their parent.
      const kill = Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const children = yield* sql<{ readonly pid: number }>`SELECT pid FROM pg_stat_activity`
        const parent = yield* Effect.promise(() => readFile(join(data, "postmaster.pid"), "utf8"))
        for (const pid of [Number.parseInt(parent, 10), ...children.map(({ pid }) => pid)]) {
          // It may be gone already.
          yield* Effect.ignore(Effect.try(() => process.kill(pid, "SIGKILL")))
        }
      }).pipe(Effect.provide(postgresClientOn(port)), Effect.orDie)
      yield* Effect.promise(async () => {
        if (isRoot) {
          const ids = await Promise.all(["-u", "-g"].map((flag) => run("id", [flag, "postgres"])))
          await chown(folder, Number(ids[0]?.stdout), Number(ids[1]?.stdout))
        }
        const how = ["--username", "sessions", "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync"]
        await asUser(initdb ?? "initdb", ["--pgdata", data, ...how])
      })
      yield* Effect.addFinalizer(() => Effect.exit(control("stop", "--mode", "immediate")))
      yield* start
      const cut = Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()`
      }).pipe(Effect.provide(postgresClientOn(port)), Effect.orDie)
      return PostgresServer.of({ port, start, kill, cut })
    })
  )
}

/** A client with a pool of ten connections. */
export const postgresClientOn = (port: number) =>
  PgClient.layer({ host: "127.0.0.1", port, username: "sessions", database: "postgres" })

/** A client of the server in the context. */
export const postgresClient = Layer.unwrap(Effect.map(PostgresServer, ({ port }) => postgresClientOn(port)))

export const isRedisInstalled = redisServer !== undefined && redisCli !== undefined
export const isPostgresInstalled = initdb !== undefined && pgCtl !== undefined

const describeWith =
  (binaries: Readonly<Record<string, string | undefined>>) =>
  (name: string, tests: () => void): void => {
    const missing = Object.keys(binaries).filter((binary) => binaries[binary] === undefined)
    if (missing.length > 0 && process.env.CI === "true") throw new Error(`CI needs ${missing.join(", ")}`)
    if (missing.length > 0) console.warn(`Skipped: ${name}, for want of ${missing.join(", ")}`)
    describe.skipIf(missing.length > 0)(name, tests)
  }

/** Like `describe`. If the server is not installed, the tests are skipped with a message; under CI they fail. */
export const describeRedis = describeWith({ "redis-server": redisServer, "redis-cli": redisCli })
export const describePostgres = describeWith({ initdb, pg_ctl: pgCtl })
