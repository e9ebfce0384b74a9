/**
 * The example application on each of its stores, chosen as its user would.
 */
import { join } from "node:path"
import process from "node:process"
import { assert, describe, it } from "@effect/vitest"
import { Cause, ConfigProvider, Effect, Layer } from "effect"
import { HttpRouter } from "effect/http"
import { Routes } from "../examples/web/Routes.ts"
import { Store } from "../examples/web/Store.ts"
import { describePostgres, describeRedis, PostgresServer, RedisServer } from "./servers.ts"
import { temporaryFolder } from "./temporary.ts"

const start = (environment: Record<string, string>) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      HttpRouter.toWebHandler(
        Routes.pipe(
          Layer.provide(Store),
          Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(environment))),
          Layer.orDie
        ),
        { disableLogger: true }
      )
    ),
    ({ dispose }) => Effect.promise(dispose)
  )

/** Logs in, restarts the application, and returns whether the account page still opens. */
const survivesRestart = Effect.fnUntraced(function* (environment: Record<string, string>) {
  const cookie = yield* Effect.scoped(
    Effect.gen(function* () {
      const { handler } = yield* start(environment)
      const body = new URLSearchParams({ name: "Ada" })
      const request = new Request("http://localhost/log-in", { method: "POST", body })
      const response = yield* Effect.promise(() => handler(request))
      assert.strictEqual(response.headers.get("location"), "/account")
      return response.headers.getSetCookie()[0]?.split(";")[0] ?? assert.fail("no cookie")
    })
  )
  const { handler } = yield* start(environment)
  const request = new Request("http://localhost/account", { headers: { cookie } })
  const response = yield* Effect.promise(() => handler(request))
  return response.status === 200 && (yield* Effect.promise(() => response.text())).includes("Ada")
})

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
