/**
 * What becomes of a session over real HTTP when its token is renewed in the middle of other requests, when it goes
 * unused, and when many requests commit it at the same time.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber, Layer, Option, Redacted, type Scope, Stream } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { type MemStore, Session, type SessionStore } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"
import { draw } from "./explorer/draw.ts"
import {
  add,
  IdleSession,
  IdleSessionElsewhere,
  keyOf,
  logIn,
  nobody,
  User,
  type UserHandle,
  UserSession,
  UserSessionElsewhere,
  visit
} from "./session/fixtures.ts"
import { type Fault, type Operation, settle, VirtualStore } from "./session/virtualStore.ts"
import { type Answer, listen, send, tokenOf } from "./site.ts"

type Services = VirtualStore | SessionStore | MemStore | Scope.Scope

const live = (name: string, body: () => Generator<Effect.Effect<unknown, unknown, Services>, void, never>): void =>
  it.live(name, () => Effect.provide(Effect.gen(body), VirtualStore.layer), 60_000)

const { text } = HttpServerResponse

const done = text("done")

const show = ({ userId = "nobody", visits }: User) => `${userId} ${visits}`

type Handler = (
  session: UserHandle
) => Effect.Effect<HttpServerResponse.HttpServerResponse, unknown, HttpRouter.Provided>

const read: Handler = ({ get }) => Effect.map(get, (user) => text(show(user)))

const write: Handler = ({ update }) => Effect.as(update(visit), done)

const enter: Handler = ({ renewToken, update }) =>
  renewToken.pipe(Effect.andThen(update(logIn("ada"))), Effect.as(done))

const leave: Handler = ({ destroy }) => Effect.as(destroy, done)

const mergeOther: Handler = ({ merge }) =>
  Effect.gen(function* () {
    const { headers } = yield* HttpServerRequest.HttpServerRequest
    yield* merge(Redacted.make(headers["x-other"] ?? ""), add)
    return done
  })

/** The same handler, but it commits by itself, and again if that fails. */
const insist =
  (handler: Handler): Handler =>
  (session) =>
    Effect.tap(handler(session), Effect.retry(session.commit, { times: 1 }))

const pages = { "/": read, "/write": write, "/enter": enter, "/leave": leave, "/merge": mergeOther }

/** A place that a handler or the store comes to, and waits at. */
const makeGate = Effect.sync(() => {
  const [reached, opened, left] = [
    Deferred.makeUnsafe<void>(),
    Deferred.makeUnsafe<void>(),
    Deferred.makeUnsafe<void>()
  ]
  return {
    reached: Deferred.await(reached),
    open: Deferred.succeed(opened, undefined),
    /** When the waiting request was interrupted. */
    left: Deferred.await(left),
    pass: Deferred.succeed(reached, undefined).pipe(
      Effect.andThen(Deferred.await(opened)),
      Effect.onInterrupt(() => Deferred.succeed(left, undefined))
    )
  }
})

/** Has the `n`th of such operations from now on wait, the first being 1. */
const park = Effect.fnUntraced(function* (n: number, isMeant: (operation: Operation) => boolean) {
  const gate = yield* makeGate
  let asked = 0
  const store = yield* VirtualStore
  store.gate = (operation) => Effect.suspend(() => (isMeant(operation) && ++asked === n ? gate.pass : Effect.void))
  return gate
})

const isWrite = (operation: Operation) => operation !== "find"

/** The same handler, but it waits at a gate before it continues. */
const behind =
  (gate: { readonly pass: Effect.Effect<void> }, handler: Handler): Handler =>
  (session) =>
    Effect.andThen(gate.pass, handler(session))

const routesOf = <Self, Id extends string>(
  session: Session.ServiceClass<Self, Id, User>,
  handlers: Record<`/${string}`, Handler>,
  options?: HttpSession.RouteOptions
) =>
  Layer.mergeAll(
    Layer.empty,
    ...Object.entries(handlers).map(([path, handler]) =>
      HttpRouter.add("*", path as `/${string}`, Effect.flatMap(session, handler))
    )
  ).pipe(Layer.provide(HttpSession.middleware(session, options).layer))

const clientOf =
  (port: number) =>
  (request: string, token?: string, headers: ReadonlyArray<string> = []) =>
    send(port, request, token === undefined ? headers : [`Cookie: session=${token}`, ...headers])

/** Two sites on one store. They are as two processes: what commits by one takes no turns with what commits by the other. */
const serve = Effect.fnUntraced(function* (handlers: Record<`/${string}`, Handler> = {}) {
  return clientOf(yield* listen(routesOf(UserSession, { ...pages, ...handlers })))
})

const serveElsewhere = Effect.fnUntraced(function* (handlers: Record<`/${string}`, Handler> = {}) {
  return clientOf(yield* listen(routesOf(UserSessionElsewhere, { ...pages, ...handlers })))
})

type Client = ReturnType<typeof clientOf>

/** A visitor who has made one change. */
const arrive = Effect.fnUntraced(function* (request: Client) {
  return tokenOf(yield* request("POST /write"), "session")
})

/** What a page shows for a token. It must not set a cookie. */
const pageOf = Effect.fnUntraced(function* (request: Client, token: string) {
  const { body, cookies, status } = yield* request("GET /", token)
  assert.strictEqual(status, 200)
  assert.deepStrictEqual(cookies, [])
  return body
})

/** The ids that `sessions` lists. */
const listed = UserSession.sessions.pipe(
  Stream.mapEffect(({ id }) => Effect.map(id, Option.getOrThrow)),
  Stream.runCollect
)

const faults: ReadonlyArray<Fault> = [
  { when: "before", how: "fails" },
  { when: "after", how: "fails" }
]

describe("over real HTTP", () => {
  describe("a renewal in the middle of other requests", () => {
    live("logs nobody out by his own page: a late write gets no cookie and saves nothing", function* () {
      const [entering, reading, writing] = [yield* makeGate, yield* makeGate, yield* makeGate]
      const request = yield* serve({
        "/enter": behind(entering, enter),
        "/late-read": behind(reading, read),
        "/late-write": behind(writing, write)
      })
      const t0 = yield* arrive(request)
      const fire = (what: string) => Effect.forkChild(request(what, t0))
      const [one, two, three] = [
        yield* fire("POST /enter"),
        yield* fire("GET /late-read"),
        yield* fire("POST /late-write")
      ]
      yield* Effect.all([entering.reached, reading.reached, writing.reached])
      yield* entering.open
      const t1 = tokenOf(yield* Fiber.join(one), "session")
      assert.notStrictEqual(t1, t0)
      yield* reading.open
      const late = yield* Fiber.join(two)
      assert.deepStrictEqual([late.status, late.body, late.cookies], [200, "nobody 1", []])
      yield* writing.open
      const lost = yield* Fiber.join(three)
      assert.deepStrictEqual([lost.status, lost.cookies], [200, []])
      // Nor if it comes when all is over.
      assert.deepStrictEqual((yield* request("POST /write", t0)).cookies, [])
      assert.strictEqual(yield* pageOf(request, t1), "ada 1")
      assert.strictEqual(yield* pageOf(request, t0), "nobody 0")
      assert.deepStrictEqual(yield* listed, [keyOf(Redacted.make(t1))])
    })

    live("takes along what was written before it", function* () {
      const entering = yield* makeGate
      const request = yield* serve({ "/enter": behind(entering, enter) })
      const elsewhere = yield* serveElsewhere()
      const t0 = yield* arrive(request)
      const entered = yield* Effect.forkChild(request("POST /enter", t0))
      yield* entering.reached
      yield* request("POST /write", t0)
      yield* elsewhere("POST /write", t0)
      yield* entering.open
      assert.strictEqual(yield* pageOf(request, tokenOf(yield* Fiber.join(entered), "session")), "ada 3")
    })

    live("does not happen if the handler dies, or the client goes away before it is done", function* () {
      const entering = yield* makeGate
      const request = yield* serve({
        "/die": (session) => Effect.andThen(enter(session), Effect.die(new Error("a defect"))),
        "/slow": (session) => Effect.tap(enter(session), () => entering.pass)
      })
      const t0 = yield* arrive(request)
      const { cookies, status } = yield* request("POST /die", t0)
      assert.deepStrictEqual([status, cookies], [500, []])
      assert.strictEqual(yield* pageOf(request, t0), "nobody 1")
      const fiber = yield* Effect.forkChild(request("POST /slow", t0))
      yield* entering.reached
      yield* Fiber.interrupt(fiber)
      yield* entering.left
      assert.strictEqual(yield* pageOf(request, t0), "nobody 1")
    })

    live(
      "of a handler that fails with an error is handed out by the response to it, as any change is saved",
      function* () {
        const request = yield* serve({ "/fail": (session) => Effect.andThen(enter(session), Effect.fail("an error")) })
        const t0 = yield* arrive(request)
        const failed = yield* request("POST /fail", t0)
        assert.strictEqual(failed.status, 500)
        assert.strictEqual(yield* pageOf(request, tokenOf(failed, "session")), "ada 1")
      }
    )

    for (const n of [1, 2, 3]) {
      live(`is undone if the client goes away at write ${n} of its commit`, function* () {
        const store = yield* VirtualStore
        const request = yield* serve()
        const t0 = yield* arrive(request)
        const gate = yield* park(n, isWrite)
        const fiber = yield* Effect.forkChild(request("POST /enter", t0))
        yield* gate.reached
        yield* Fiber.interrupt(fiber)
        yield* gate.left
        yield* settle
        store.heal()
        assert.strictEqual(yield* pageOf(request, t0), "nobody 1")
        assert.deepStrictEqual(yield* listed, [keyOf(Redacted.make(t0))])
        const t1 = tokenOf(yield* request("POST /enter", t0), "session")
        assert.strictEqual(yield* pageOf(request, t1), "ada 1")
      })

      live(`never shows by a list what may still be called off, at write ${n} of its commit`, function* () {
        const store = yield* VirtualStore
        const request = yield* serve()
        const t0 = yield* arrive(request)
        const gate = yield* park(n, isWrite)
        const fiber = yield* Effect.forkChild(request("POST /enter", t0))
        yield* gate.reached
        // Under its old id until a tombstone is there, and then not at all until the new token can be handed out.
        assert.deepStrictEqual(yield* listed, n < 3 ? [keyOf(Redacted.make(t0))] : [])
        yield* gate.open
        const t1 = tokenOf(yield* Fiber.join(fiber), "session")
        store.heal()
        assert.deepStrictEqual(yield* listed, [keyOf(Redacted.make(t1))])
      })
    }
  })

  describe("a log-out by the token of before a renewal", () => {
    live("ends the session that took over, whichever token of the line it comes by", function* () {
      const request = yield* serve()
      for (const by of [0, 1, 2]) {
        const t0 = yield* arrive(request)
        const t1 = tokenOf(yield* request("POST /enter", t0), "session")
        const t2 = tokenOf(yield* request("POST /enter", t1), "session")
        const line = [t0, t1, t2]
        assert.strictEqual(yield* pageOf(request, t2), "ada 1")
        const { cookies } = yield* request("POST /leave", line[by])
        assert.include(cookies[0], "session=; Max-Age=0;")
        for (const token of line) assert.strictEqual(yield* pageOf(request, token), "nobody 0")
      }
      assert.deepStrictEqual(yield* listed, [])
    })

    live("ends it also if it had opened the session before the renewal", function* () {
      const leaving = yield* makeGate
      const request = yield* serve({ "/leave": behind(leaving, leave) })
      const t0 = yield* arrive(request)
      const left = yield* Effect.forkChild(request("POST /leave", t0))
      yield* leaving.reached
      const t1 = tokenOf(yield* request("POST /enter", t0), "session")
      yield* leaving.open
      assert.include((yield* Fiber.join(left)).cookies[0], "session=; Max-Age=0;")
      assert.strictEqual(yield* pageOf(request, t1), "nobody 0")
      assert.deepStrictEqual(yield* listed, [])
    })

    for (const n of [1, 2, 3]) {
      live(`counts while the renewing commit is at its write ${n}, in another process`, function* () {
        const store = yield* VirtualStore
        const request = yield* serve()
        const elsewhere = yield* serveElsewhere()
        const t0 = yield* arrive(request)
        const gate = yield* park(n, isWrite)
        const entered = yield* Effect.forkChild(request("POST /enter", t0))
        yield* gate.reached
        assert.include((yield* elsewhere("POST /leave", t0)).cookies[0], "session=; Max-Age=0;")
        yield* gate.open
        assert.deepStrictEqual((yield* Fiber.join(entered)).cookies, [])
        store.heal()
        assert.strictEqual(yield* pageOf(request, t0), "nobody 0")
        assert.deepStrictEqual(yield* listed, [])
      })

      live(`counts while the renewing commit is at its write ${n}, in this process`, function* () {
        const leaving = yield* makeGate
        const store = yield* VirtualStore
        const request = yield* serve({ "/leave": (session) => Effect.tap(behind(leaving, leave)(session), settle) })
        const t0 = yield* arrive(request)
        const left = yield* Effect.forkChild(request("POST /leave", t0))
        yield* leaving.reached
        const gate = yield* park(n, isWrite)
        const entered = yield* Effect.forkChild(request("POST /enter", t0))
        yield* gate.reached
        yield* leaving.open
        yield* gate.open
        const { cookies } = yield* Fiber.join(entered)
        assert.include((yield* Fiber.join(left)).cookies[0], "session=; Max-Age=0;")
        store.heal()
        for (const token of [t0, ...cookies.map((cookie) => cookie.slice("session=".length, "session=".length + 43))]) {
          assert.strictEqual(yield* pageOf(request, token), "nobody 0")
        }
        assert.deepStrictEqual(yield* listed, [])
      })
    }
  })

  describe("a handler that holds its session for long", () => {
    for (const [what, meanwhile, reloaded, shown] of [
      ["a write", "POST /write", "true unmodified", "nobody 2"],
      ["a log-out", "POST /leave", "false ended", "nobody 1"],
      ["a renewal", "POST /enter", "false ended", "nobody 1"]
    ] as const) {
      live(`sees ${what} of another request if it reloads`, function* () {
        const holding = yield* makeGate
        const long: Handler = ({ get, reload, status }) =>
          Effect.gen(function* () {
            const isActive = yield* reload
            return text(`${isActive} ${yield* status} ${show(yield* get)}`)
          })
        const request = yield* serve({ "/long": behind(holding, long) })
        const t0 = yield* arrive(request)
        const fiber = yield* Effect.forkChild(request("GET /long", t0))
        yield* holding.reached
        yield* request(meanwhile, t0)
        yield* holding.open
        const { body, cookies } = yield* Fiber.join(fiber)
        assert.strictEqual(body, `${reloaded} ${shown}`)
        assert.deepStrictEqual(cookies, [])
      })
    }

    live("applies its own changes to what it reloads, and saves them once", function* () {
      const holding = yield* makeGate
      const long: Handler = ({ get, reload, update }) =>
        Effect.gen(function* () {
          yield* update(visit)
          yield* holding.pass
          yield* reload
          return text(show(yield* get))
        })
      const request = yield* serve({ "/long": long })
      const t0 = yield* arrive(request)
      const fiber = yield* Effect.forkChild(request("POST /long", t0))
      yield* holding.reached
      yield* request("POST /write", t0)
      yield* holding.open
      assert.strictEqual((yield* Fiber.join(fiber)).body, "nobody 3")
      assert.strictEqual(yield* pageOf(request, t0), "nobody 3")
    })

    live("knows from its commit that the session has ended", function* () {
      const holding = yield* makeGate
      const long: Handler = ({ commit, status, update }) =>
        Effect.gen(function* () {
          yield* update(visit)
          yield* holding.pass
          const committed = yield* commit
          return text(`${committed._tag} ${yield* status}`)
        })
      const request = yield* serve({ "/long": long })
      const t0 = yield* arrive(request)
      const fiber = yield* Effect.forkChild(request("POST /long", t0))
      yield* holding.reached
      yield* request("POST /leave", t0)
      yield* holding.open
      const { body, cookies } = yield* Fiber.join(fiber)
      assert.deepStrictEqual([body, cookies], ["None ended", []])
      assert.deepStrictEqual(yield* listed, [])
    })
  })

  live("a request that reads costs one look-up", function* () {
    const { calls } = yield* VirtualStore
    const request = yield* serve()
    const t0 = yield* arrive(request)
    calls.length = 0
    assert.strictEqual(yield* pageOf(request, t0), "nobody 1")
    assert.deepStrictEqual(calls, ["find"])
  })

  describe("a store that fails", () => {
    const both: Handler = (session) => Effect.andThen(write(session), enter(session))

    const insisting = { "/insist": insist(write), "/insist-enter": insist(both) }

    for (const fault of faults) {
      for (const n of [1, 2, 3]) {
        const where = `${fault.when} write ${n} is done`

        live(`${where}: a renewal is off, and the response is an error`, function* () {
          const store = yield* VirtualStore
          const request = yield* serve()
          const t0 = yield* arrive(request)
          const { hasCome } = store.plan(1 + n, fault)
          const { cookies, status } = yield* request("POST /enter", t0)
          assert.deepStrictEqual([status, cookies, hasCome()], [500, [], true])
          assert.strictEqual(yield* pageOf(request, t0), "nobody 1")
          assert.deepStrictEqual(yield* listed, [keyOf(Redacted.make(t0))])
        })

        live(`${where}: a handler that commits again renews, and loses and doubles nothing`, function* () {
          const store = yield* VirtualStore
          const request = yield* serve(insisting)
          const t0 = yield* arrive(request)
          const { hasCome } = store.plan(1 + n, fault)
          const answer = yield* request("POST /insist-enter", t0)
          assert.deepStrictEqual([answer.status, hasCome()], [200, true])
          const t1 = tokenOf(answer, "session")
          assert.strictEqual(yield* pageOf(request, t1), "ada 2")
          assert.strictEqual(yield* pageOf(request, t0), "nobody 0")
          assert.deepStrictEqual(yield* listed, [keyOf(Redacted.make(t1))])
        })
      }

      live(`${fault.when} a write is done: a handler that commits again writes once`, function* () {
        const store = yield* VirtualStore
        const request = yield* serve(insisting)
        const t0 = yield* arrive(request)
        const { hasCome } = store.plan(2, fault)
        const { cookies, status } = yield* request("POST /insist", t0)
        assert.deepStrictEqual([status, cookies, hasCome()], [200, [], true])
        assert.strictEqual(yield* pageOf(request, t0), "nobody 2")
      })

      live(`${fault.when} a new session is there: a handler that commits again starts one, not two`, function* () {
        const store = yield* VirtualStore
        const request = yield* serve(insisting)
        const { hasCome } = store.plan(1, fault)
        const answer = yield* request("POST /insist")
        assert.isTrue(hasCome())
        const token = tokenOf(answer, "session")
        assert.strictEqual(yield* pageOf(request, token), "nobody 1")
        assert.deepStrictEqual(yield* listed, [keyOf(Redacted.make(token))])
      })
    }
  })

  describe("a merge", () => {
    const two = Effect.fnUntraced(function* (request: Client) {
      const [mine, other] = [yield* arrive(request), yield* arrive(request)]
      yield* request("POST /write", other)
      return { mine, other }
    })

    live("takes the other value in, and ends the other session", function* () {
      const request = yield* serve()
      const { mine, other } = yield* two(request)
      assert.deepStrictEqual((yield* request("POST /merge", mine, [`X-Other: ${other}`])).cookies, [])
      assert.strictEqual(yield* pageOf(request, mine), "nobody 3")
      assert.strictEqual(yield* pageOf(request, other), "nobody 0")
    })

    live("takes in what others write before it is committed", function* () {
      const merging = yield* makeGate
      const request = yield* serve({ "/merge": (session) => Effect.tap(mergeOther(session), () => merging.pass) })
      const { mine, other } = yield* two(request)
      const merged = yield* Effect.forkChild(request("POST /merge", mine, [`X-Other: ${other}`]))
      yield* merging.reached
      yield* request("POST /write", other)
      yield* request("POST /write", mine)
      yield* merging.open
      yield* Fiber.join(merged)
      assert.strictEqual(yield* pageOf(request, mine), "nobody 5")
    })

    live("leaves the other as it was if this session ends before its commit", function* () {
      const merging = yield* makeGate
      const request = yield* serve({ "/merge": (session) => Effect.tap(mergeOther(session), () => merging.pass) })
      const { mine, other } = yield* two(request)
      const merged = yield* Effect.forkChild(request("POST /merge", mine, [`X-Other: ${other}`]))
      yield* merging.reached
      yield* request("POST /leave", mine)
      yield* merging.open
      assert.deepStrictEqual((yield* Fiber.join(merged)).cookies, [])
      assert.strictEqual(yield* pageOf(request, mine), "nobody 0")
      assert.strictEqual(yield* pageOf(request, other), "nobody 2")
    })

    for (const fault of faults) {
      live(
        `loses and doubles nothing if its commit fails ${fault.when} an operation, and is tried again`,
        function* () {
          const store = yield* VirtualStore
          const request = yield* serve({ "/merge": insist(mergeOther) })
          for (let n = 1, hasCome = true; hasCome; n++) {
            const { mine, other } = yield* two(request)
            // After the look-ups of the one and the other.
            const planned = store.plan(2 + n, fault)
            const { status } = yield* request("POST /merge", mine, [`X-Other: ${other}`])
            hasCome = planned.hasCome()
            store.heal()
            assert.strictEqual(status, 200, `operation ${n}`)
            assert.strictEqual(yield* pageOf(request, mine), "nobody 3", `operation ${n}`)
            assert.strictEqual(yield* pageOf(request, other), "nobody 0", `operation ${n}`)
          }
        }
      )

      live(`loses nothing if its commit fails ${fault.when} an operation, and is not tried again`, function* () {
        const store = yield* VirtualStore
        const request = yield* serve()
        for (let n = 1, hasCome = true; hasCome; n++) {
          const { mine, other } = yield* two(request)
          const planned = store.plan(2 + n, fault)
          yield* request("POST /merge", mine, [`X-Other: ${other}`])
          hasCome = planned.hasCome()
          store.heal()
          const shown = `${yield* pageOf(request, mine)}, ${yield* pageOf(request, other)}`
          // In the last case, the write of this session arrived, but was not confirmed: then the other session is put
          // back.
          assert.include(["nobody 1, nobody 2", "nobody 3, nobody 0", "nobody 3, nobody 2"], shown, `operation ${n}`)
        }
      })
    }

    live("of two sessions into each other at once loses neither", function* () {
      const gates = [yield* makeGate, yield* makeGate] as const
      const [one, two] = gates.map(
        (gate) =>
          ({ "/merge": (session) => Effect.tap(mergeOther(session), () => gate.pass) }) as const satisfies Record<
            string,
            Handler
          >
      )
      const [request, elsewhere] = [yield* serve(one), yield* serveElsewhere(two)]
      const [mine, other] = [yield* arrive(request), yield* arrive(elsewhere)]
      const merged = [
        yield* Effect.forkChild(request("POST /merge", mine, [`X-Other: ${other}`])),
        yield* Effect.forkChild(elsewhere("POST /merge", other, [`X-Other: ${mine}`]))
      ]
      for (const gate of gates) yield* gate.reached
      for (const gate of gates) yield* gate.open
      yield* Effect.forEach(merged, Fiber.join)
      const shown = [yield* pageOf(request, mine), yield* pageOf(request, other)]
      assert.deepStrictEqual(shown.sort(), ["nobody 0", "nobody 2"])
    })
  })

  describe("an idle timeout", () => {
    class LongSession extends Session.Service<LongSession>()("test/LongSession", {
      schema: User,
      initial: nobody,
      lifetime: "365 days",
      idleTimeout: "20 minutes",
      touchInterval: "5 minutes"
    }) {}

    const minute = 60_000

    /** A clock whose minutes pass only on demand, and whose sleep is real. */
    const withClock = (
      name: string,
      body: (pass: (minutes: number) => void) => Generator<Effect.Effect<unknown, unknown, Services>, void, never>
    ) =>
      live(name, function* () {
        const real = yield* Clock.Clock
        let now = real.currentTimeMillisUnsafe()
        const currentTimeMillisUnsafe = () => now
        const clock: Clock.Clock = {
          currentTimeMillisUnsafe,
          currentTimeMillis: Effect.sync(currentTimeMillisUnsafe),
          currentTimeNanosUnsafe: () => BigInt(now) * 1_000_000n,
          currentTimeNanos: Effect.sync(() => BigInt(now) * 1_000_000n),
          monotonicTimeNanosUnsafe: () => real.monotonicTimeNanosUnsafe(),
          monotonicTimeNanos: real.monotonicTimeNanos,
          sleep: (duration) => real.sleep(duration)
        }
        const pass = (minutes: number) => {
          now += minutes * minute
        }
        yield* Effect.provideService(
          Effect.gen(() => body(pass)),
          Clock.Clock,
          clock
        )
      })

    const expiryOf = ({ cookies }: Answer) => Date.parse(/Expires=([^;]+)/.exec(cookies[0] ?? "")?.[1] ?? assert.fail())

    withClock(
      "is moved on by a read once in a touch interval: the others write nothing and set no cookie",
      function* (pass) {
        const { calls } = yield* VirtualStore
        const request = clientOf(yield* listen(routesOf(IdleSession, pages)))
        const begun = yield* request("POST /write")
        const token = tokenOf(begun, "session")
        calls.length = 0
        for (let n = 0; n < 10; n++) assert.strictEqual(yield* pageOf(request, token), "nobody 1")
        pass(1 - 1 / minute)
        assert.strictEqual(yield* pageOf(request, token), "nobody 1")
        assert.deepStrictEqual(calls, Array(11).fill("find"))
        pass(1 / minute)
        calls.length = 0
        const touched = yield* request("GET /", token)
        assert.deepStrictEqual(calls, ["find", "replace"])
        assert.strictEqual(tokenOf(touched, "session"), token)
        assert.strictEqual(expiryOf(touched), expiryOf(begun) + minute)
        assert.strictEqual(yield* pageOf(request, token), "nobody 1")
      }
    )

    withClock("ends a session after it, and not before it is short of it by the touch interval", function* (pass) {
      const request = clientOf(yield* listen(routesOf(LongSession, pages)))
      let token = yield* arrive(request)
      let [kept, ended] = [0, 0]
      for (let n = 0; n < 400; n++) {
        const idle = Math.floor(draw(13, n) * 24 * minute) / minute
        pass(idle)
        const { body } = yield* request("GET /", token)
        const isKept = body === "nobody 1"
        if (idle <= 15) assert.isTrue(isKept, `${n}: ended after ${idle} minutes`)
        if (idle > 20) assert.isFalse(isKept, `${n}: kept for ${idle} minutes`)
        if (isKept) kept++
        else {
          ended++
          token = yield* arrive(request)
        }
      }
      assert.isAbove(Math.min(kept, ended), 50)
    })

    withClock("is not moved on by routes that do not touch, whose changes are saved all the same", function* (pass) {
      const { calls } = yield* VirtualStore
      const quiet = routesOf(IdleSession, { "/poll": read, "/poll-write": write }, { touch: false })
      const request = clientOf(yield* listen(Layer.merge(routesOf(IdleSession, pages), quiet)))
      const token = yield* arrive(request)
      calls.length = 0
      for (let n = 0; n < 3; n++) {
        pass(5)
        const { body, cookies } = yield* request("GET /poll", token)
        assert.deepStrictEqual([body, cookies], ["nobody 1", []])
      }
      assert.deepStrictEqual(calls, ["find", "find", "find"])
      assert.deepStrictEqual((yield* request("POST /poll-write", token)).cookies, [])
      pass(5)
      assert.strictEqual((yield* request("GET /poll", token)).body, "nobody 2")
      pass(1 / minute)
      assert.strictEqual((yield* request("GET /poll", token)).body, "nobody 0")
    })

    withClock("never moves back by a request that is slower than another", function* (pass) {
      const store = yield* VirtualStore
      const request = clientOf(yield* listen(routesOf(IdleSession, pages)))
      const elsewhere = clientOf(yield* listen(routesOf(IdleSessionElsewhere, pages)))
      const token = yield* arrive(request)
      pass(2)
      const gate = yield* park(1, isWrite)
      const slow = yield* Effect.forkChild(request("POST /write", token))
      yield* gate.reached
      pass(10)
      const fast = yield* elsewhere("POST /write", token)
      yield* gate.open
      const late = yield* Fiber.join(slow)
      store.heal()
      assert.strictEqual(expiryOf(late), expiryOf(fast))
      pass(20)
      assert.strictEqual((yield* request("GET /", token)).body, "nobody 3")
    })
  })

  describe("many requests of one session at once", () => {
    live("lose no write, be they of one process or of two", function* () {
      const [request, elsewhere] = [yield* serve(), yield* serveElsewhere()]
      const token = yield* arrive(request)
      yield* Effect.forEach(
        Array.from({ length: 100 }, () => [request, elsewhere]).flat(),
        (request) => request("POST /write", token),
        { concurrency: "unbounded", discard: true }
      )
      assert.strictEqual(yield* pageOf(request, token), "nobody 201")
    })

    live("are refused with a 503 while a thousand wait, and another session's is served", function* () {
      const store = yield* VirtualStore
      const request = yield* serve()
      const [token, other] = [yield* arrive(request), yield* arrive(request)]
      const gate = yield* park(1, isWrite)
      const answered = yield* Deferred.make<Answer>()
      const one = Effect.tap(request("POST /write", token), (answer) => Deferred.succeed(answered, answer))
      const fibers = yield* Effect.replicateEffect(Effect.forkChild(one), 1002)
      yield* gate.reached
      // One is being written, and a thousand wait.
      const { cookies, status } = yield* Deferred.await(answered)
      assert.deepStrictEqual([status, cookies], [503, []])
      assert.strictEqual((yield* request("POST /write", other)).status, 200)
      assert.strictEqual(yield* pageOf(request, other), "nobody 2")
      assert.strictEqual(yield* pageOf(request, token), "nobody 1")
      yield* gate.open
      const answers = yield* Effect.forEach(fibers, Fiber.join)
      store.heal()
      assert.lengthOf(
        answers.filter(({ status }) => status === 503),
        1
      )
      assert.strictEqual(yield* pageOf(request, token), "nobody 1002")
    })

    live("give up their place if the client goes away while they wait", function* () {
      const store = yield* VirtualStore
      const waiting = yield* makeGate
      const request = yield* serve({
        "/wait": (session) =>
          write(session).pipe(
            // Ends with the request.
            Effect.tap(() => Effect.forkChild(waiting.pass, { startImmediately: true })),
            Effect.tap(session.commit)
          )
      })
      const token = yield* arrive(request)
      const gate = yield* park(1, isWrite)
      const first = yield* Effect.forkChild(request("POST /write", token))
      yield* gate.reached
      const second = yield* Effect.forkChild(request("POST /wait", token))
      yield* waiting.reached
      yield* Fiber.interrupt(second)
      // While the first still has its turn.
      yield* waiting.left
      yield* gate.open
      yield* Fiber.join(first)
      store.heal()
      yield* request("POST /write", token)
      assert.strictEqual(yield* pageOf(request, token), "nobody 3")
    })
  })
})
