/**
 * Sessions that hold secrets, in success and failure. memory.ts searches all output for the secrets, as for every other
 * test. The last tests plant leaks, and it has to find each of them.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Metric, Option, Redacted, Schema, Stream } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { MemStore, Session, SessionStore, SessionStoreError } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"
import { SessionTest } from "effect-sessions/testing"
import { type Leak, lookAtMetrics, secretValues, takeLeaks } from "./memory.ts"
import { withLog, withSpans } from "./telemetry.ts"

const [note, userId] = secretValues

const User = Schema.Struct({
  userId: Schema.optionalKey(Schema.String),
  notes: Schema.Array(Schema.String.check(Schema.isMaxLength(40)))
})

const options = {
  schema: User,
  initial: (): typeof User.Type => ({ notes: [] }),
  indexes: { user: ({ userId }: typeof User.Type) => userId },
  idleTimeout: "20 minutes"
} as const

class UserSession extends Session.Service<UserSession>()("secrets/UserSession", options) {}

class NewerSession extends Session.Service<NewerSession>()("secrets/UserSession", {
  ...options,
  schema: Schema.Struct({ userId: Schema.Int, notes: Schema.Literals(["one", "other"]) }),
  initial: () => ({ userId: 0, notes: "one" as const }),
  indexes: {},
  undecodable: "fail"
}) {}

const logIn = ({ notes }: typeof User.Type) => ({ userId, notes: [...notes, note] })

const memory = MemStore.layerWithCleanupInterval(0)

const down = (operation: "find" | "create" | "replace" | "delete") =>
  Effect.fail(new SessionStoreError({ operation, cause: new Error("the cable is out") }))

/** A store that loses the answer to every third operation, which was done all the same. */
const Failing = Layer.effect(
  SessionStore,
  Effect.map(SessionStore, (store) => {
    let count = 0
    const sometimes = <A>(operation: Parameters<typeof down>[0], effect: Effect.Effect<A, SessionStoreError>) =>
      Effect.suspend(() => (++count % 3 === 0 ? Effect.andThen(effect, down(operation)) : effect))
    return SessionStore.of({
      ...store,
      find: (token) => sometimes("find", store.find(token)),
      create: (...args) => sometimes("create", store.create(...args)),
      replace: (...args) => sometimes("replace", store.replace(...args)),
      delete: (token) => sometimes("delete", store.delete(token))
    })
  })
).pipe(Layer.provide(memory))

/** All that an application does with a session, one after the other. */
const useAll = Effect.gen(function* () {
  const session = yield* UserSession.open()
  yield* session.update(logIn)
  const committed = yield* session.commit
  if (Option.isNone(committed)) return
  const { token } = committed.value
  const again = yield* UserSession.open(token)
  yield* again.renewToken
  yield* again.update(logIn)
  yield* again.commit
  const other = yield* UserSession.open()
  yield* other.update(logIn)
  yield* other.merge(token, (mine) => mine)
  yield* other.commit
  yield* Stream.runDrain(UserSession.sessions)
  yield* Stream.runDrain(UserSession.sessionsOf("user", userId))
  yield* UserSession.destroyAllOf("user", userId)
  yield* again.destroy
})

/** Records logs and spans like an application; memory.ts reads all of them. */
const watched = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  withLog(() => withSpans(() => Effect.withSpan(Effect.exit(effect), "an application")))

describe("no secret gets out", () => {
  it.effect("of what goes well", () => watched(Effect.provide(useAll, memory)))

  it.effect("of what fails in the store, at whatever operation", () =>
    Effect.forEach(Array.from({ length: 12 }), () => watched(useAll)).pipe(Effect.provide(Failing))
  )

  it.effect("of data that does not decode", () =>
    Effect.gen(function* () {
      const session = yield* UserSession.open()
      yield* session.update(logIn)
      const { token } = Option.getOrThrow(yield* session.commit)
      const error = yield* Effect.flip(NewerSession.open(token))
      assert.strictEqual(error._tag, "SessionDecodeError")
      yield* watched(NewerSession.open(token))
      yield* watched(Stream.runDrain(NewerSession.sessions))
    }).pipe(Effect.provide(memory))
  )

  it.effect("of a value that does not fit its schema", () =>
    Effect.gen(function* () {
      const session = yield* UserSession.open()
      yield* session.set({ userId, notes: [`${note} that is longer than forty characters`] })
      const exit = yield* watched(session.commit)
      assert.strictEqual(exit._tag, "Failure")
    }).pipe(Effect.provide(memory))
  )

  for (const [what, store] of [
    ["what fails", memory],
    ["what fails, in the store too", Failing]
  ] as const) {
    it.effect(`of an answer over HTTP to ${what}`, () =>
      Effect.gen(function* () {
        const handlers = {
          "/fails": Effect.fail("no"),
          "/dies": Effect.die(new Error("no")),
          "/unfit": Effect.flatMap(UserSession, (session) =>
            Effect.as(session.set({ userId, notes: [note.repeat(3)] }), HttpServerResponse.text("done"))
          ),
          "/works": Effect.flatMap(UserSession, (session) =>
            Effect.as(session.update(logIn), HttpServerResponse.text("done"))
          )
        }
        // With a cookie that goes with requests of other sites.
        const { layer } = HttpSession.middleware(UserSession, { cookie: { sameSite: "none" } })
        const browser = yield* SessionTest.browser(
          Layer.mergeAll(
            Layer.empty,
            ...Object.entries(handlers).map(([path, handler]) => HttpRouter.add("*", path as `/${string}`, handler))
          ).pipe(Layer.provide(layer))
        )
        for (const path of ["/works", ...Object.keys(handlers), "/works", "/nowhere"]) {
          for (const site of ["same-origin", "cross-site"]) {
            yield* browser.post(path, { headers: { "sec-fetch-site": site } })
          }
        }
        if (store === memory) assert.match((yield* browser.cookies)[0]?.value ?? "", /^[\w-]{43}$/)
      }).pipe(Effect.provide(store))
    )
  }
})

/** What the memory finds of an effect, with a session that holds secrets. */
const leaksOf = (
  leak: (session: { readonly token: string; readonly value: unknown }) => Effect.Effect<unknown, unknown>
) =>
  Effect.gen(function* () {
    assert.deepStrictEqual(takeLeaks(), [])
    const session = yield* UserSession.open()
    yield* session.update(logIn)
    const { token } = Option.getOrThrow(yield* session.commit)
    const secrets = { token: Redacted.value(token), value: yield* session.get }
    // A failure that no fiber runs does not count.
    yield* watched(Effect.suspend(() => leak(secrets)))
    return takeLeaks()
  }).pipe(Effect.provide(memory))

const respond = (response: () => Response) => Effect.sync(response)

describe("a secret that gets out is found", () => {
  const planted: Readonly<Record<string, readonly [Leak["by"], Parameters<typeof leaksOf>[0]]>> = {
    "a token in a log message": ["log", ({ token }) => Effect.logInfo(`opened ${token}`)],
    "a token between other characters of base64url": ["log", ({ token }) => Effect.logInfo(`id-${token}_1`)],
    "a value in an object that is logged": ["log", ({ value }) => Effect.logWarning("session", { session: { value } })],
    "a token in the annotation of a cause": [
      "log",
      ({ token }) => Effect.logError(new Error("failed", { cause: { args: ["GET", token] } }))
    ],
    "a value in a failure": ["failure", ({ value }) => Effect.fail({ reason: value })],
    "a token in the cause of an error": [
      "failure",
      ({ token }) => Effect.fail(new SessionStoreError({ operation: "find", cause: new Error(`GET ${token}`) }))
    ],
    "a token in a defect": ["failure", ({ token }) => Effect.die(new Error(token))],
    "a token in an attribute of a span": [
      "span",
      ({ token }) => Effect.withSpan(Effect.void, "open", { attributes: { token } })
    ],
    "a value that a span ends with": ["span", ({ value }) => Effect.withSpan(Effect.succeed(value), "open")],
    "a token in an attribute of a metric": [
      "metric",
      // In a separate registry, or it would be found again at the end of this file.
      ({ token }) =>
        Effect.andThen(Metric.update(Metric.counter("planted", { attributes: { token } }), 1), lookAtMetrics).pipe(
          Effect.provideService(Metric.MetricRegistry, new Map())
        )
    ],
    "a token on the console": ["console", ({ token }) => Effect.sync(() => console.debug(token))],
    "a token in a header other than Set-Cookie": [
      "response",
      ({ token }) => respond(() => new Response("", { headers: { location: `/?session=${token}` } }))
    ],
    "a value in the answer to an error": [
      "response",
      ({ value }) => respond(() => new Response(JSON.stringify(value), { status: 500 }))
    ]
  }
  for (const [what, [by, leak]] of Object.entries(planted)) {
    it.effect(what, () =>
      Effect.gen(function* () {
        const leaks = yield* leaksOf(leak)
        assert.include(
          leaks.map(({ by }) => by),
          by
        )
        for (const { text } of leaks) assert.include(text, "<SECRET>")
      })
    )
  }

  it.effect("but not what is no secret: an id, or a token on its way to the browser", () =>
    Effect.gen(function* () {
      const leaks = yield* leaksOf(({ token }) =>
        Effect.gen(function* () {
          const session = yield* UserSession.open(Redacted.make(token))
          yield* Effect.logInfo("opened", yield* session.id, Redacted.make(token), session)
          yield* respond(() => new Response(userId, { headers: { "set-cookie": `session=${token}` } }))
        }).pipe(Effect.provide(memory))
      )
      assert.deepStrictEqual(leaks, [])
    })
  )
})
