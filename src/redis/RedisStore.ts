/**
 * A session store in Redis, on Effect's own `Redis` service.
 *
 * A session is one key, whose value is the data and whose expiry is Redis' own: Redis removes what has expired, so that
 * there is no cleanup, and Redis' clock decides when that is. Every operation on one session is one command on one key.
 *
 * @module
 */
import { Buffer, isUtf8 } from "node:buffer"
import { DateTime, Effect, HashMap, Layer, Option, Stream } from "effect"
import * as Redis from "effect/persistence/Redis"
import { SessionStore, SessionStoreError, type SessionStoreOperations } from "../SessionStore.ts"

// The service sends and receives strings. Text goes as it is; base64 would take a third more room, and one character a
// byte, read as UTF-8, twice the room and up to eight times the time for what is not ASCII. One array of bytes has one
// encoding, so that Redis can compare the strings.
const binaryMark = "base64:"

const encode = (data: Uint8Array): string => {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
  const text = isUtf8(bytes) ? bytes.toString("utf8") : undefined
  return text === undefined || text.startsWith(binaryMark) ? binaryMark + bytes.toString("base64") : text
}

const encoder = new TextEncoder()

// A small Buffer is a window on memory that it shares with others, hence the copy.
const decode = (value: string): Uint8Array =>
  value.startsWith(binaryMark)
    ? new Uint8Array(Buffer.from(value.slice(binaryMark.length), "base64"))
    : encoder.encode(value)

// Redis takes whole milliseconds and refuses what is not positive, which is as much in the past as 1970 is.
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

/** The keys of the sessions under a prefix, none of which is a key under any other prefix. */
interface Keys {
  readonly of: (token: string) => string
  /** What `SCAN` has to match: all keys of these sessions, and perhaps others. */
  readonly pattern: string
  /** The token of a key; none for a key of something else. */
  readonly token: (key: string) => Option.Option<string>
}

// The length tells where the token begins. Without it, the token `admin:x` under `session:` and the token `x` under
// `session:admin:` would be one key, and who brings the one as a cookie would get the other's session.
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

// Redis repeats the arguments of a command that it does not know, and with them token and data.
const withoutArguments = (cause: unknown): unknown => {
  const message = String(cause)
  const end = message.indexOf(", with args beginning with")
  return end < 0 ? cause : new Error(message.slice(0, end))
}

const failure =
  (operation: SessionStoreError["operation"]) =>
  ({ cause }: Redis.RedisError): SessionStoreError =>
    new SessionStoreError({ operation, cause: withoutArguments(cause) })

// How many keys Redis looks at, and about as many as it returns, at a time. It does nothing else meanwhile.
const pageSize = 500

/**
 * What a {@link RedisStore} may be told.
 */
export interface RedisStoreOptions {
  /**
   * What the keys begin with, `session:` by default. It may have any characters.
   */
  readonly prefix?: string | undefined
}

const make = Effect.fnUntraced(function* (prefix: string) {
  const redis = yield* Redis.Redis
  const keys = makeKeys(prefix)
  const evalReplace = redis.eval(replaceScript)

  const find: SessionStoreOperations["find"] = (token) =>
    redis.send<string | null>("GET", keys.of(token)).pipe(
      Effect.map((value) => Option.map(Option.fromNullishOr(value), decode)),
      Effect.mapError(failure("find"))
    )

  const commit: SessionStoreOperations["commit"] = (token, data, expiry) =>
    redis
      .send("SET", keys.of(token), encode(data), "PXAT", encodeExpiry(expiry))
      .pipe(Effect.asVoid, Effect.mapError(failure("commit")))

  const replace: SessionStoreOperations["replace"] = (token, expected, data, expiry) =>
    evalReplace(keys.of(token), encode(expected), encode(data), encodeExpiry(expiry)).pipe(
      Effect.map((replaced) => replaced === 1),
      Effect.mapError(failure("replace"))
    )

  const remove: SessionStoreOperations["delete"] = (token) =>
    redis.send("DEL", keys.of(token)).pipe(Effect.asVoid, Effect.mapError(failure("delete")))

  const read = (operation: "all" | "entries"): SessionStoreOperations["entries"] =>
    Stream.suspend(() => {
      const seen = new Set<string>()

      const page = Effect.fnUntraced(function* (cursor: string) {
        const [next, found] = yield* redis.send<readonly [cursor: string, keys: ReadonlyArray<string>]>(
          "SCAN",
          cursor,
          "MATCH",
          keys.pattern,
          "COUNT",
          String(pageSize)
        )
        const tokens = [...new Set(found)]
          .flatMap((key) => Option.toArray(keys.token(key)))
          .filter((token) => !seen.has(token))
        const values =
          tokens.length === 0 ? [] : yield* redis.send<ReadonlyArray<string | null>>("MGET", ...tokens.map(keys.of))
        const entries: Array<readonly [token: string, data: Uint8Array]> = []
        for (const [i, token] of tokens.entries()) {
          const value = values[i]
          // Expired or deleted since `SCAN` saw it.
          if (value == null) continue
          seen.add(token)
          entries.push([token, decode(value)])
        }
        return [entries, next === "0" ? Option.none<string>() : Option.some(next)] as const
      })

      return Stream.mapError(Stream.paginate("0", page), failure(operation))
    })

  const entries = read("entries")

  const all: SessionStoreOperations["all"] = Stream.runFold(
    read("all"),
    () => HashMap.beginMutation(HashMap.empty<string, Uint8Array>()),
    (found, [token, data]) => HashMap.set(found, token, data)
  ).pipe(Effect.map(HashMap.endMutation))

  return SessionStore.of({ find, commit, replace, delete: remove, all, entries })
})

const layerWith = ({ prefix = "session:" }: RedisStoreOptions = {}): Layer.Layer<SessionStore, never, Redis.Redis> =>
  Layer.effect(SessionStore, make(prefix))

/**
 * A session store in Redis: its layers, which need Effect's `Redis` service and provide `SessionStore`.
 *
 * **When to use**: for several server processes, and for sessions that are to survive a restart of the application.
 * Whether they survive one of Redis is a matter of Redis' own persistence.
 *
 * **Details**: a session's key is the prefix, the token, a colon and the token's length; no two prefixes share a key.
 * The value is the data where that is UTF-8, else `base64:` and the data in base64. An expiry is kept to the millisecond
 * and Redis' clock decides when it is past, so keep the clocks of your machines together. `commit`, `find` and `delete`
 * are one command each and `replace` is a script, all of them on one key, and so at home in Redis Cluster.
 *
 * **Gotchas**: `all` and `entries` walk every key of the database with `SCAN`, page by page: they have each session that
 * is there from beginning to end, and may or may not have one that comes or goes meanwhile. They read from one Redis
 * server, and do not work in Redis Cluster. Where memory may run out, `maxmemory-policy` decides: `noeviction` makes
 * `commit` fail, `volatile-ttl` drops the sessions that would end first, and others any session.
 *
 * **Errors**: every operation can fail with a `SessionStoreError`, whose `cause` is what the client of Redis said.
 * While Redis is out of reach, clients queue what they are asked for, and do it when Redis is back, even if the caller
 * has given up: add a timeout, or tell the client to keep no queue (`disableOfflineQueue` of `NodeRedis`).
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
   * Provides `SessionStore` from Redis, with keys that begin with the given prefix. Applications with a prefix of their
   * own share one Redis and see nothing of each other.
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
