/**
 * The example application on each of its stores, chosen as its user would.
 */
import { join } from "node:path"
import process from "node:process"
import { assert, describe, it } from "@effect/vitest"
import { Cause, ConfigProvider, Effect, Layer, Ref } from "effect"
import { SessionTest } from "effect-sessions/testing"
import { Routes } from "../examples/web/Routes.ts"
import { Store } from "../examples/web/Store.ts"
import { describePostgres, describeRedis, PostgresServer, RedisServer } from "./servers.ts"
import { temporaryFolder } from "./temporary.ts"

const start = (environment: Record<string, string>) =>
  SessionTest.browser(
    Routes.pipe(
      Layer.provide(Store),
      Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(environment))),
      Layer.orDie
    )
  )

/** Logs in, restarts the application, and returns whether the account page still opens. */
const survivesRestart = Effect.fnUntraced(function* (environment: Record<string, string>) {
  const jar = yield* Effect.scoped(
    Effect.gen(function* () {
      const browser = yield* start(environment)
      const response = yield* browser.submit("/log-in", { name: "Ada" })
      assert.strictEqual(response.headers.location, "/account")
      assert.lengthOf(yield* browser.cookies, 1)
      return yield* Ref.get(browser.jar)
    })
  )
  const browser = yield* start(environment)
  yield* Ref.set(browser.jar, jar)
  const response = yield* browser.get("/account")
  return response.status === 200 && (yield* response.text).includes("Ada")
}, Effect.scoped)

describe("the example on the store in memory", () => {
  it.live("forgets its sessions when it starts anew", () =>
    Effect.gen(function* () {
      assert.isFalse(yield* survivesRestart({}))
    })
  )
})

const hasSqlite = process.getBuiltinModule("node:sqlite") !== undefined
if (!hasSqlite) console.warn(`Skipped: the example on SQLite, for want of node:sqlite in Node.js ${process.version}`)

describe("the example on SQLite", () => {
  it.live.skipIf(!hasSqlite)("keeps its sessions when it starts anew", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      assert.isTrue(yield* survivesRestart({ SESSION_STORE: "sqlite", SQLITE_FILE: join(folder, "sessions.db") }))
    })
  )

  if (hasSqlite) return

  it.live("says what it needs where Node.js has none", () =>
    Effect.gen(function* () {
      const environment = ConfigProvider.layer(ConfigProvider.fromUnknown({ SESSION_STORE: "sqlite" }))
      const cause = yield* Effect.flip(Effect.sandbox(Layer.build(Layer.provide(Store, environment))))
      assert.include(Cause.pretty(cause), "effect-sessions/sqlite needs Node.js 22.13 or later")
    })
  )
})

describeRedis("the example on Redis", () => {
  it.live("keeps its sessions when it starts anew", () =>
    Effect.gen(function* () {
      const { port } = yield* RedisServer
      assert.isTrue(yield* survivesRestart({ SESSION_STORE: "redis", REDIS_URL: `redis://127.0.0.1:${port}` }))
    }).pipe(Effect.provide(RedisServer.layer))
  )
})

describePostgres("the example on PostgreSQL", () => {
  it.live("keeps its sessions when it starts anew", () =>
    Effect.gen(function* () {
      const { port } = yield* PostgresServer
      const url = `postgres://sessions@127.0.0.1:${port}/postgres`
      assert.isTrue(yield* survivesRestart({ SESSION_STORE: "postgres", DATABASE_URL: url }))
    }).pipe(Effect.provide(PostgresServer.layer))
  )
})
