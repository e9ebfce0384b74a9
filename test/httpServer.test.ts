/**
 * Sessions over real sockets, and what an attacker may send: cookies, origins, upgrades, bearer tokens.
 */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Option, Redacted, Schema, Stream } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { MemStore, Session, SessionStore } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"
import { activeFields } from "./session/fixtures.ts"
import { listen, send, tokenOf } from "./site.ts"
import { withLog } from "./telemetry.ts"

class Visits extends Session.Service<Visits>()("test/Visits", { schema: Schema.Int, initial: () => 0 }) {}

const visit = Effect.gen(function* () {
  const visits = yield* Visits
  yield* visits.update((n) => n + 1)
  return HttpServerResponse.text(String(yield* visits.get))
})

const read = Visits.use((visits) => Effect.map(visits.get, (n) => HttpServerResponse.text(String(n))))

const logOut = Visits.use((visits) => Effect.as(visits.destroy, HttpServerResponse.empty()))

/** A new log-in, which hands the token out by itself. */
const logIn = Effect.gen(function* () {
  const visits = yield* Visits
  yield* visits.renewToken
  yield* visits.update((n) => n + 1)
  return HttpServerResponse.text(
    Option.match(yield* visits.commit, { onNone: () => "none", onSome: ({ token }) => Redacted.value(token) })
  )
})

type Handler = Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  unknown,
  Visits | SessionStore | HttpRouter.Provided
>

const routes = (sessions: HttpSession.Middleware<Visits, number>, handlers: Record<`/${string}`, Handler>) =>
  Layer.mergeAll(
    Layer.empty,
    ...Object.entries(handlers).map(([path, handler]) => HttpRouter.add("*", path as `/${string}`, handler))
  ).pipe(Layer.provide(sessions.layer))

const memory = MemStore.layerWithCleanupInterval(0)

const cookieOf = (name: string, ...tokens: ReadonlyArray<string>) =>
  `Cookie: ${tokens.map((token) => `${name}=${token}`).join("; ")}`

const size = Effect.map(activeFields, ({ length }) => length)

const pages = { "/": read, "/visit": visit, "/log-out": logOut, "/log-in": logIn }

describe("over real sockets", () => {
  describe("the cookie", () => {
    const host = HttpSession.middleware(Visits, { cookie: { name: "__Host-session" } })

    it.live("is of its own name alone, so that no sibling host can set it by a space that only Unicode knows", () =>
      Effect.gen(function* () {
        const port = yield* listen(routes(host, pages))
        const victim = tokenOf(yield* send(port, "POST /visit"), "__Host-session")
        const attacker = tokenOf(yield* send(port, "POST /visit"), "__Host-session")
        yield* send(port, "POST /visit", [cookieOf("__Host-session", attacker)])
        for (const space of ["\xa0", "\x85", "\xef\xbb\xbf", "\xe2\x80\x80"]) {
          const tossed = `${space}__Host-session=${attacker}`
          assert.strictEqual((yield* send(port, "GET /", [`Cookie: ${tossed}`])).body, "0")
          assert.strictEqual((yield* send(port, "GET /", [`Cookie: ${tossed}; __Host-session=${victim}`])).body, "1")
        }
      }).pipe(Effect.provide(memory))
    )

    it.live("is found in whatever header it comes", () =>
      Effect.gen(function* () {
        const port = yield* listen(routes(host, pages))
        const token = tokenOf(yield* send(port, "POST /visit"), "__Host-session")
        const own = `__Host-session=${token}`
        for (const headers of [
          [`Cookie: a=b`, `Cookie: ${own}`],
          [`Cookie: ${own}`, "Cookie: a=b"],
          [`cookie:\t${own}\t`],
          [`COOKIE: ${"a=%;".repeat(3400)}${own}`]
        ]) {
          assert.strictEqual((yield* send(port, "GET /", headers)).body, "1")
        }
      }).pipe(Effect.provide(memory))
    )

    it.live("that is there twice locks nobody out, and a log-out ends the session of each", () =>
      Effect.gen(function* () {
        const port = yield* listen(routes(host, pages))
        const token = tokenOf(yield* send(port, "POST /visit"), "__Host-session")
        const other = tokenOf(yield* send(port, "POST /visit"), "__Host-session")
        const garbage = "x".repeat(43)
        assert.strictEqual((yield* send(port, "GET /", [cookieOf("__Host-session", garbage, token)])).body, "1")
        const out = yield* send(port, "POST /log-out", [cookieOf("__Host-session", garbage, token, other)])
        assert.include(out.cookies[0], "__Host-session=; Max-Age=0;")
        assert.strictEqual(yield* size, 0)
      }).pipe(Effect.provide(memory))
    )
  })

  describe("a request of another origin", () => {
    // Each row: how it is sent, the headers, and whether it is let through.
    const rows = (
      port: number
    ): ReadonlyArray<readonly [request: string, headers: ReadonlyArray<string>, passes: boolean]> => [
      ["POST /", [], true],
      ["POST /", ["Sec-Fetch-Site: same-origin"], true],
      ["POST /", ["Sec-Fetch-Site: none"], true],
      ["POST /", ["Sec-Fetch-Site: same-site"], false],
      ["POST /", ["Sec-Fetch-Site: cross-site"], false],
      ["POST /", ["Sec-Fetch-Site: whatever"], false],
      ["POST /", ["Sec-Fetch-Site: same-origin", "Origin: https://evil.example"], true],
      ["POST /", ["Sec-Fetch-Site: cross-site", `Origin: http://127.0.0.1:${port}`], false],
      ["POST /", [`Origin: http://127.0.0.1:${port}`], true],
      ["POST /", [`Origin: https://127.0.0.1:${port}`], true],
      ["POST /", ["Sec-Fetch-Site: ", `Origin: http://127.0.0.1:${port}`], true],
      ["POST /", ["Host: app.example", "Origin: https://app.example"], true],
      ["POST /", ["Host: APP.example", "Origin: https://app.example"], true],
      ["POST /", ["Host: app.example:8443", "Origin: https://app.example:8443"], true],
      ["POST /", ["Host: app.example", "Origin: https://app.example:8443"], false],
      ["POST /", ["Host: app.example", "Origin: https://app.example.evil.example"], false],
      ["POST /", ["Host: app.example", "Origin: https://evil.example/app.example"], false],
      ["POST /", ["Host: app.example", "Origin: https://evil.example://app.example"], false],
      ["POST /", ["Host: app.example", "Origin: app.example"], false],
      ["POST /", ["Origin: https://evil.example"], false],
      ["POST /", ["Host: app.example", "Origin: https://app.example/path"], false],
      ["POST /", ["Origin:"], true],
      ["POST /", ["Origin: null"], false],
      ["POST http://app.example/", ["Origin: https://app.example"], true],
      ["POST http://app.example/", ["Host: evil.example", "Origin: https://evil.example"], false],
      ["POST /", ["Sec-Fetch-Site: cross-site", "Origin: https://partner.example"], true],
      ["POST /", ["Origin: https://partner.example"], true],
      ["POST /", ["Origin: https://partner.example:8443"], false],
      ["POST /", ["Sec-Fetch-Site: cross-site", "Origin: app://mobile"], true],
      ["POST /exempt", ["Sec-Fetch-Site: cross-site", "Origin: https://idp.example"], true],
      ["POST /exempt", ["Origin: https://idp.example"], true],
      ...["PUT", "PATCH", "DELETE", "PROPFIND"].map(
        (method) => [`${method} /`, ["Sec-Fetch-Site: cross-site"], false] as const
      ),
      ...["GET", "HEAD", "OPTIONS"].map((method) => [`${method} /`, ["Sec-Fetch-Site: cross-site"], true] as const),
      ["GET /", ["Upgrade: websocket", "Origin: https://evil.example"], false],
      ["GET /", ["Upgrade: WebSocket, foo", "Origin: https://evil.example"], false],
      ["GET /", ["Upgrade: websocket", "Sec-Fetch-Site: cross-site", "Origin: https://evil.example"], false],
      ["GET /", ["Upgrade: websocket", "Origin: https://partner.example"], true],
      ["GET /", ["Upgrade: websocket", `Origin: http://127.0.0.1:${port}`], true],
      ["GET /", ["Upgrade: websocket"], true]
    ]

    it.live("is refused before the handler runs and the store is asked, and only then", () =>
      Effect.gen(function* () {
        const store = yield* SessionStore
        let [runs, finds] = [0, 0]
        const counted = Effect.suspend(() => {
          runs++
          return visit
        })
        const find = (token: string) =>
          Effect.suspend(() => {
            finds++
            return store.find(token)
          })
        const sessions = HttpSession.middleware(Visits, {
          crossOrigin: {
            trusted: ["https://partner.example", "app://mobile"],
            exempt: (request) => request.url === "/exempt"
          }
        })
        const port = yield* listen(
          Layer.provide(
            routes(sessions, { "/": counted, "/exempt": counted }),
            Layer.succeed(SessionStore, { ...store, find })
          )
        )
        const token = tokenOf(yield* send(port, "POST /"), "session")
        for (const [request, headers, passes] of rows(port)) {
          ;[runs, finds] = [0, 0]
          const answer = yield* send(port, request, [cookieOf("session", token), ...headers])
          const what = `${request} ${headers.join(" ")}`
          assert.strictEqual(answer.status, passes ? 200 : 403, what)
          assert.deepStrictEqual([runs, finds], passes ? [1, 1] : [0, 0], what)
          assert.deepStrictEqual(answer.cookies, [], what)
        }
      }).pipe(Effect.provide(memory))
    )

    it.live("is let through if the application says so", () =>
      Effect.gen(function* () {
        const port = yield* listen(routes(HttpSession.middleware(Visits, { crossOrigin: false }), pages))
        const { status } = yield* send(port, "POST /visit", [
          "Sec-Fetch-Site: cross-site",
          "Origin: https://evil.example"
        ])
        assert.strictEqual(status, 200)
      }).pipe(Effect.provide(memory))
    )

    it.live("is refused on some routes, and let through on others", () =>
      Effect.gen(function* () {
        const sessions = HttpSession.middleware(Visits)
        const open = sessions.with({ crossOrigin: { trusted: ["https://partner.example"] } })
        const port = yield* listen(Layer.merge(routes(sessions, { "/own": visit }), routes(open, { "/shared": visit })))
        const headers = ["Origin: https://partner.example"]
        assert.strictEqual((yield* send(port, "POST /own", headers)).status, 403)
        const answer = yield* send(port, "POST /shared", headers)
        assert.strictEqual(answer.status, 200)
        const own = yield* send(port, "POST /own", [cookieOf("session", tokenOf(answer, "session"))])
        assert.strictEqual(own.body, "2")
      }).pipe(Effect.provide(memory))
    )
  })

  describe("a request from another site that has no cookie, since the browser kept it back", () => {
    for (const [sameSite, request, headers, isSet] of [
      ["strict", "GET /visit", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document"], false],
      ["strict", "GET /visit", ["Sec-Fetch-Site: same-site", "Sec-Fetch-Dest: document"], true],
      ["strict", "GET /visit", ["Sec-Fetch-Site: none", "Sec-Fetch-Dest: document"], true],
      ["strict", "GET /visit", [], true],
      ["lax", "GET /visit", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document"], true],
      ["lax", "HEAD /visit", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document"], true],
      ["lax", "GET /visit", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: iframe"], false],
      ["lax", "GET /visit", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: image"], false],
      ["lax", "POST /visit", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document"], false],
      ["lax", "POST /visit", ["Sec-Fetch-Site: same-site", "Sec-Fetch-Dest: document"], true],
      ["none", "POST /visit", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document"], true]
    ] as const) {
      it.live(`${isSet ? "starts a" : "starts no"} session: ${sameSite}, ${request}, ${headers.join(", ")}`, () =>
        Effect.gen(function* () {
          const sessions = HttpSession.middleware(Visits, { cookie: { sameSite }, crossOrigin: false })
          const port = yield* listen(routes(sessions, pages))
          const answer = yield* send(port, request, headers)
          assert.strictEqual(answer.status, 200)
          assert.lengthOf(answer.cookies, isSet ? 1 : 0)
          assert.strictEqual(yield* size, isSet ? 1 : 0)
          // Nor if the handler commits by itself.
          const committed = yield* send(port, request.replace("/visit", "/log-in"), headers)
          assert.lengthOf(committed.cookies, isSet ? 1 : 0)
          assert.strictEqual(yield* size, isSet ? 2 : 0)
          // A request with a cookie had none withheld, whatever the cookie contains.
          const garbage = yield* send(port, request, ["Cookie: session=garbage", ...headers])
          assert.lengthOf(garbage.cookies, 1)
        }).pipe(Effect.provide(memory))
      )
    }
  })

  describe("a WebSocket", () => {
    const sessions = HttpSession.middleware(Visits)

    /** Opens the socket, and then does something with the session. */
    const upgrade = (visits: Session.Session<number>, done: Deferred.Deferred<Option.Option<Session.Committed>>) =>
      Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        const socket = yield* request.upgrade
        yield* socket.reader
        yield* visits.update((n) => n + 10)
        yield* Deferred.succeed(done, yield* visits.commit)
        return HttpServerResponse.empty()
      })

    const handshake = ["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]

    type Make = (done: Deferred.Deferred<Option.Option<Session.Committed>>) => Parameters<typeof listen>[0]

    const ways: ReadonlyArray<readonly [how: string, make: Make]> = [
      [
        "that opens the session of its request",
        (done) =>
          HttpRouter.add(
            "GET",
            "/socket",
            Effect.flatMap(sessions.open, (visits) => upgrade(visits, done))
          )
      ],
      [
        "on a route with a session",
        (done) => routes(sessions, { "/socket": Effect.flatMap(Visits, (visits) => upgrade(visits, done)) })
      ]
    ]

    for (const [how, make] of ways) {
      it.live(`${how} has it, and its changes are saved`, () =>
        Effect.gen(function* () {
          const done = yield* Deferred.make<Option.Option<Session.Committed>>()
          const port = yield* listen(Layer.merge(routes(sessions, pages), make(done)))
          const token = tokenOf(yield* send(port, "POST /visit"), "session")
          const answer = yield* send(port, "GET /socket", [...handshake, cookieOf("session", token)])
          assert.strictEqual(answer.status, 101)
          assert.isTrue(Option.isSome(yield* Deferred.await(done)))
          assert.strictEqual((yield* send(port, "GET /", [cookieOf("session", token)])).body, "11")
        }).pipe(Effect.provide(memory))
      )

      it.live(`${how} starts none, and says so in the log`, () =>
        withLog((logged) =>
          Effect.gen(function* () {
            const done = yield* Deferred.make<Option.Option<Session.Committed>>()
            const port = yield* listen(make(done))
            assert.strictEqual((yield* send(port, "GET /socket", handshake)).status, 101)
            assert.deepStrictEqual(yield* Deferred.await(done), Option.none())
            assert.strictEqual(yield* size, 0)
            assert.isNotEmpty(logged)
            for (const message of logged) assert.match(message, /^Warn: .*a new token was not saved/)
          }).pipe(Effect.provide(memory))
        )
      )

      it.live(`${how} is refused to a page of another origin`, () =>
        Effect.gen(function* () {
          const done = yield* Deferred.make<Option.Option<Session.Committed>>()
          const port = yield* listen(Layer.merge(routes(sessions, pages), make(done)))
          const token = tokenOf(yield* send(port, "POST /visit"), "session")
          const headers = [...handshake, cookieOf("session", token)]
          const answer = yield* send(port, "GET /socket", [...headers, "Origin: https://evil.example"])
          assert.strictEqual(answer.status, 403)
          const own = yield* send(port, "GET /socket", [...headers, `Origin: http://127.0.0.1:${port}`])
          assert.strictEqual(own.status, 101)
        }).pipe(Effect.provide(memory))
      )
    }

    it.live("that logs out ends what every cookie of the name opens", () =>
      Effect.gen(function* () {
        const leave = (visits: Session.Session<number>) => Effect.as(visits.destroy, HttpServerResponse.empty())
        const port = yield* listen(
          Layer.mergeAll(
            routes(sessions, pages),
            HttpRouter.add("POST", "/leave", Effect.flatMap(sessions.open, leave))
          )
        )
        const [first, second] = [yield* send(port, "POST /visit"), yield* send(port, "POST /visit")]
        yield* send(port, "POST /leave", [cookieOf("session", tokenOf(first, "session"), tokenOf(second, "session"))])
        assert.strictEqual(yield* size, 0)
      }).pipe(Effect.provide(memory))
    )
  })

  describe("a request that opens its session by itself, such as one for Server-Sent Events", () => {
    const sessions = HttpSession.middleware(Visits)

    const change = Effect.gen(function* () {
      const visits = yield* sessions.open
      yield* visits.update((n) => n + 10)
      return HttpServerResponse.text(Option.isSome(yield* visits.commit) ? "saved" : "not saved")
    })

    it.live("changes the session that there is, and starts none", () =>
      withLog((logged) =>
        Effect.gen(function* () {
          const port = yield* listen(Layer.merge(routes(sessions, pages), HttpRouter.add("GET", "/change", change)))
          assert.strictEqual((yield* send(port, "GET /change")).body, "not saved")
          assert.strictEqual(yield* size, 0)
          assert.match(logged.join(), /^Warn: .*a new token was not saved/)
          const token = tokenOf(yield* send(port, "POST /visit"), "session")
          assert.strictEqual((yield* send(port, "GET /change", [cookieOf("session", token)])).body, "saved")
          assert.strictEqual((yield* send(port, "GET /", [cookieOf("session", token)])).body, "11")
        }).pipe(Effect.provide(memory))
      )
    )
  })

  describe("a token of before a renewal", () => {
    const sessions = HttpSession.middleware(Visits)

    const renewed = Effect.fnUntraced(function* () {
      const port = yield* listen(routes(sessions, pages))
      const before = tokenOf(yield* send(port, "POST /visit"), "session")
      const after = tokenOf(yield* send(port, "POST /log-in", [cookieOf("session", before)]), "session")
      assert.notStrictEqual(after, before)
      return { port, before, after }
    })

    it.live("changes nothing and gets no cookie, which would push the new one out, whatever the handler does", () =>
      Effect.gen(function* () {
        const { after, before, port } = yield* renewed()
        for (const request of ["GET /", "POST /visit", "POST /log-in"]) {
          const late = yield* send(port, request, [cookieOf("session", before)])
          assert.strictEqual(late.status, 200)
          assert.deepStrictEqual(late.cookies, [], request)
        }
        assert.strictEqual((yield* send(port, "GET /", [cookieOf("session", after)])).body, "2")
      }).pipe(Effect.provide(memory))
    )

    it.live("ends the session that took over at a log-out, and the cookie with it", () =>
      Effect.gen(function* () {
        const { after, before, port } = yield* renewed()
        const out = yield* send(port, "POST /log-out", [cookieOf("session", before)])
        assert.include(out.cookies[0], "session=; Max-Age=0;")
        assert.strictEqual((yield* send(port, "GET /", [cookieOf("session", after)])).body, "0")
      }).pipe(Effect.provide(memory))
    )

    it.live("yields to the new one, if both are sent; and starts no session beside an unknown one", () =>
      Effect.gen(function* () {
        const { after, before, port } = yield* renewed()
        const visited = yield* send(port, "POST /visit", [cookieOf("session", before, after)])
        assert.strictEqual(visited.body, "3")
        assert.deepStrictEqual(visited.cookies, [])
        for (const tokens of [
          ["a".repeat(43), before],
          [before, "a".repeat(43)]
        ]) {
          assert.deepStrictEqual((yield* send(port, "POST /visit", [cookieOf("session", ...tokens)])).cookies, [])
        }
        const out = yield* send(port, "POST /log-out", [cookieOf("session", "a".repeat(43), before)])
        assert.include(out.cookies[0], "session=; Max-Age=0;")
        assert.strictEqual((yield* send(port, "GET /", [cookieOf("session", after)])).body, "0")
      }).pipe(Effect.provide(memory))
    )

    it.live("gets no cookie for a write that was under way when it was renewed", () =>
      Effect.gen(function* () {
        const [started, done] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const slow = visit.pipe(
          Effect.tap(() => Deferred.succeed(started, undefined)),
          Effect.tap(() => Deferred.await(done))
        )
        const port = yield* listen(routes(sessions, { ...pages, "/slow": slow }))
        const before = tokenOf(yield* send(port, "POST /visit"), "session")
        const fiber = yield* Effect.forkChild(send(port, "POST /slow", [cookieOf("session", before)]))
        yield* Deferred.await(started)
        const after = tokenOf(yield* send(port, "POST /log-in", [cookieOf("session", before)]), "session")
        yield* Deferred.succeed(done, undefined)
        assert.deepStrictEqual((yield* Fiber.join(fiber)).cookies, [])
        assert.strictEqual((yield* send(port, "GET /", [cookieOf("session", after)])).body, "2")
      }).pipe(Effect.provide(memory))
    )
  })

  describe("a body that streams", () => {
    const sessions = HttpSession.middleware(Visits)

    const late = Effect.gen(function* () {
      const visits = yield* Visits
      const change = Effect.gen(function* () {
        yield* visits.update((n) => n + 10)
        return new TextEncoder().encode(Option.isSome(yield* visits.commit) ? "saved" : "not saved")
      })
      return HttpServerResponse.stream(Stream.fromEffect(Effect.orDie(change)))
    })

    it.live("starts no session, and says so in the log; one that was there is saved", () =>
      withLog((logged) =>
        Effect.gen(function* () {
          const port = yield* listen(routes(sessions, { ...pages, "/late": late }))
          const answer = yield* send(port, "GET /late")
          assert.include(answer.body, "not saved")
          assert.deepStrictEqual(answer.cookies, [])
          assert.strictEqual(yield* size, 0)
          assert.lengthOf(
            logged.filter((message) => message.startsWith("Warn")),
            1
          )
          const token = tokenOf(yield* send(port, "POST /visit"), "session")
          yield* send(port, "GET /late", [cookieOf("session", token)])
          assert.strictEqual((yield* send(port, "GET /", [cookieOf("session", token)])).body, "11")
          assert.lengthOf(logged, 1)
        }).pipe(Effect.provide(memory))
      )
    )
  })

  describe("a bearer token", () => {
    const sessions = HttpSession.middleware(Visits, { carrier: "bearer" })

    it.live("is handed out by the handler, and carries the session from then on, without a cookie", () =>
      Effect.gen(function* () {
        const port = yield* listen(routes(sessions, pages))
        const answer = yield* send(port, "POST /log-in")
        const token = /[\w-]{43}/.exec(answer.body)?.[0] ?? assert.fail("no token")
        assert.deepStrictEqual(answer.cookies, [])
        assert.strictEqual(answer.headers.vary, "Authorization")
        assert.isUndefined(answer.headers["cache-control"])
        for (const [authorization, n] of [
          [`Bearer ${token}`, "1"],
          [`bearer ${token}`, "1"],
          [`BEARER   ${token}`, "1"],
          [`Bearer ${token}x`, "0"],
          [`Bearer ${token} ${token}`, "0"],
          [`Bearer${token}`, "0"],
          [`Basic ${token}`, "0"],
          [`xBearer ${token}`, "0"],
          [token, "0"],
          [`Bearer${" ".repeat(8000)}x`, "0"]
        ] as const) {
          const { body, headers } = yield* send(port, "GET /", [`Authorization: ${authorization}`])
          assert.strictEqual(body, n, authorization.slice(0, 100))
          assert.strictEqual(headers.vary, "Authorization")
        }
        assert.strictEqual((yield* send(port, "GET /", [cookieOf("session", token)])).body, "0")
        const visited = yield* send(port, "POST /visit", [`Authorization: Bearer ${token}`])
        assert.strictEqual(visited.body, "2")
        assert.deepStrictEqual(visited.cookies, [])
        const out = yield* send(port, "POST /log-out", [`Authorization: Bearer ${token}`, "Cookie: session=a"])
        assert.deepStrictEqual(out.cookies, [])
        assert.strictEqual(yield* size, 0)
      }).pipe(Effect.provide(memory))
    )

    it.live("that no handler hands out is not made, with a warning", () =>
      withLog((logged) =>
        Effect.gen(function* () {
          const port = yield* listen(routes(sessions, pages))
          assert.strictEqual((yield* send(port, "POST /visit")).status, 200)
          assert.strictEqual(yield* size, 0)
          assert.lengthOf(
            logged.filter((message) => message.startsWith("Warn")),
            1
          )
        }).pipe(Effect.provide(memory))
      )
    )

    it.live("lets pages of other origins in, unless they are to be kept out", () =>
      Effect.gen(function* () {
        const closed = sessions.with({ crossOrigin: {} })
        const port = yield* listen(Layer.merge(routes(sessions, pages), routes(closed, { "/closed": read })))
        const headers = ["Sec-Fetch-Site: cross-site", "Origin: https://app.example"]
        assert.strictEqual((yield* send(port, "POST /", headers)).status, 200)
        assert.strictEqual((yield* send(port, "POST /closed", headers)).status, 403)
      }).pipe(Effect.provide(memory))
    )
  })
})
