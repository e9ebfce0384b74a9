/**
 * A session store in Redis, on Effect's own `Redis` service.
 *
 * A session is one key. The value is the data, and the expiry is that of the key: Redis removes expired sessions
 * itself, by its own clock, so there is no cleanup. Every operation on one session is one command on one key.
 *
 * @module
 */
import { DateTime, Effect, Layer, Option, Stream } from "effect"
import * as Redis from "effect/persistence/Redis"
import {
  SessionStore,
  SessionStoreError,
  type SessionStoreOperation,
  type SessionStorePrimitives
} from "../SessionStore.ts"

// Redis accepts only whole, positive milliseconds. A time before 1970 is as much in the past as 1970.
const encodeExpiry = (expiry: DateTime.DateTime): string =>
  String(Math.max(1, Math.floor(DateTime.toEpochMillis(expiry))))

const replaceScript = Redis.script(
  (key: string, expected: string, data: string, expiry: string) => [key, expected, data, expiry],
  {
    numberOfKeys: 1,
    lua: `
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return 0 end
redis.call("SET", KEYS[1], ARGV[2], "PXAT", ARGV[3])
return 1`
  }
).withReturnType<number>()

/** The keys of the sessions under a prefix. Different prefixes never share a key. */
interface Keys {
  readonly of: (token: string) => string
  /** The pattern for `SCAN`: it matches all keys of these sessions, and perhaps others. */
  readonly pattern: string
  /** The token of a key; none if it is not a session of this store. */
  readonly token: (key: string) => Option.Option<string>
}

// The length shows where the token begins. Without it, the token `admin:x` under `session:` and the token `x` under
// `session:admin:` would be the same key, and a client with one as its cookie would get the session of the other.
const makeKeys = (prefix: string): Keys => {
  const of = (token: string) => `${prefix}${token}:${token.length}`
  return {
    of,
    pattern: `${prefix.replace(/[*?[\]\\]/g, "\\$&")}*`,
    token: (key) => {
      const token = key.slice(prefix.length, key.lastIndexOf(":"))
      return of(token) === key ? Option.some(token) : Option.none()
    }
  }
}

// The error of Redis for an unknown command quotes its arguments, and with them token and data.
const withoutArguments = (cause: unknown): unknown => {
  const message = String(cause)
  const end = message.indexOf(", with args beginning with")
  return end < 0 ? cause : new Error(message.slice(0, end))
}

const toError = (operation: SessionStoreOperation, { cause }: Redis.RedisError): SessionStoreError =>
  new SessionStoreError({ operation, cause: withoutArguments(cause) })

type Primitives = SessionStorePrimitives<Redis.RedisError>

// How many keys Redis scans at a time, and about how many it returns. It is blocked during each scan.
const pageSize = 500

/**
 * The options of a {@link RedisStore}.
 */
export interface RedisStoreOptions {
  /**
   * The prefix of the keys. Default: `session:`. It may have any characters.
   */
  readonly prefix?: string | undefined
}

/** The sessions under a prefix, page by page as `SCAN` returns them. */
const readEntries = (redis: Redis.Redis["Service"], keys: Keys): Primitives["entries"] =>
  Stream.suspend(() => {
    const seen = new Set<string>()

    const page = Effect.fnUntraced(function* (cursor: string) {
      const [next, found] = yield* redis.send<readonly [cursor: string, keys: ReadonlyArray<string>]>(
        ...["SCAN", cursor, "MATCH", keys.pattern, "COUNT", String(pageSize)]
      )
      const tokens = [...new Set(found)]
        .flatMap((key) => Option.toArray(keys.token(key)))
        .filter((token) => !seen.has(token))
      const values =
        tokens.length === 0 ? [] : yield* redis.send<ReadonlyArray<string | null>>("MGET", ...tokens.map(keys.of))
      const entries: Array<readonly [token: string, data: string]> = []
      for (const [i, token] of tokens.entries()) {
        const data = values[i]
        // Expired or deleted since `SCAN` returned it.
        if (data == null) continue
        seen.add(token)
        entries.push([token, data])
      }
      return [entries, next === "0" ? Option.none<string>() : Option.some(next)] as const
    })

    return Stream.paginate("0", page)
  })

const make = Effect.fnUntraced(function* (prefix: string) {
  const redis = yield* Redis.Redis
  const keys = makeKeys(prefix)
  const evalReplace = redis.eval(replaceScript)

  const find: Primitives["find"] = (token) =>
    Effect.map(redis.send<string | null>("GET", keys.of(token)), Option.fromNullishOr)

  // For `NX`, a key whose expiry has passed does not exist. A session with an expiry in the past is set, and gone
  // immediately.
  const create: Primitives["create"] = (token, data, expiry) =>
    Effect.map(
      redis.send<string | null>("SET", keys.of(token), data, "NX", "PXAT", encodeExpiry(expiry)),
      (reply) => reply !== null
    )

  const commit: Primitives["commit"] = (token, data, expiry) =>
    Effect.asVoid(redis.send("SET", keys.of(token), data, "PXAT", encodeExpiry(expiry)))

  const replace: Primitives["replace"] = (token, expected, data, expiry) =>
    Effect.map(evalReplace(keys.of(token), expected, data, encodeExpiry(expiry)), (replaced) => replaced === 1)

  const remove: Primitives["delete"] = (token) => Effect.asVoid(redis.send("DEL", keys.of(token)))

  const entries = readEntries(redis, keys)

  return SessionStore.make({ find, create, commit, replace, delete: remove, entries }, toError)
})

const layerWith = ({ prefix = "session:" }: RedisStoreOptions = {}): Layer.Layer<SessionStore, never, Redis.Redis> =>
  Layer.effect(SessionStore, make(prefix))

/**
 * A session store in Redis: layers that need Effect's `Redis` service and provide `SessionStore`.
 *
 * **When to use**: for several server processes, and for sessions that survive a restart of the application. Whether
 * they survive a restart of Redis depends on its persistence.
 *
 * **Details**: the key of a session is the prefix, the token, a colon and the length of the token; no two prefixes
 * share a key. The value is the unchanged data. An expiry is exact to the millisecond, and the clock of Redis decides
 * when it has passed, so synchronize the clocks of your machines. `find`, `create`, `commit` and `delete` are one
 * command each, and `replace` is a script. All of them use one key, so they work in Redis Cluster.
 *
 * **Gotchas**: `all` and `entries` walk every key of the database with `SCAN`, page by page. They include each session
 * that exists from beginning to end, and may or may not include one that begins or ends in the meantime. In Redis
 * Cluster they need a client that walks every master, such as `redis` 6.3; docs/stores.md shows it. If memory may run
 * out, `maxmemory-policy` decides: with `noeviction`, `create` and `commit` fail; `volatile-ttl` drops the sessions
 * that would end first; other policies drop any session.
 *
 * **Errors**: every operation can fail with a `SessionStoreError`, whose `cause` is the error of the Redis client.
 * While Redis is down, clients queue their commands, and run them when Redis is back, even if the caller has given up:
 * add a timeout, or turn the queue off (`disableOfflineQueue` of `NodeRedis`).
 *
 * @example
 * ```ts
 * import { NodeRedis } from "@effect/platform-node"
 * import { Layer } from "effect"
 * import { RedisStore } from "effect-sessions/redis"
 *
 * const Sessions = RedisStore.layer.pipe(Layer.provide(NodeRedis.layer({ url: "redis://localhost:6379" })))
 * ```
 */
export const RedisStore: {
  /**
   * Provides `SessionStore` from Redis, with keys that begin with `session:`.
   */
  readonly layer: Layer.Layer<SessionStore, never, Redis.Redis>

  /**
   * Provides `SessionStore` from Redis, with keys that begin with the given prefix. Applications with different
   * prefixes can share one Redis without seeing each other's sessions.
   *
   * @example
   * ```ts
   * import { RedisStore } from "effect-sessions/redis"
   *
   * const Sessions = RedisStore.layerWith({ prefix: "shop:session:" })
   * ```
   */
  readonly layerWith: (options?: RedisStoreOptions) => Layer.Layer<SessionStore, never, Redis.Redis>
} = { layer: layerWith(), layerWith }
