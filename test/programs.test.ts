/**
 * The programs of the pages, each in a separate process, as a reader starts it: behind a real proxy, on real servers.
 * The port alone is another, which the system chooses.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createServer, type IncomingHttpHeaders, request } from "node:http"
import { join } from "node:path"
import process from "node:process"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { build } from "esbuild"
import { blocks, root } from "./blocks.ts"
import { describeRedis, RedisServer } from "./servers.ts"
import { type Answer, send, tokenOf } from "./site.ts"
import { temporaryFolder } from "./temporary.ts"

const programs = blocks.filter(({ kind }) => kind === "process")

interface Options {
  readonly environment?: Record<string, string>
  /** Replacements in the code, from one text to another. */
  readonly change?: readonly [from: string, to: string]
  /** The working directory. */
  readonly cwd?: string
}

const replace = (code: string, [from, to]: readonly [from: string, to: string]): string => {
  assert.lengthOf(code.split(from), 2, `the program has ${from} once`)
  return code.replace(from, to)
}

const codeOf = (page: string): string =>
  programs.find(({ name }) => name.startsWith(`${page}:`))?.code ?? assert.fail(`no program in ${page}`)

/** Runs a program until the scope closes, from one file, which starts sooner than by way of a loader. */
const run = Effect.fnUntraced(function* (code: string, { cwd, environment }: Options = {}) {
  const folder = yield* temporaryFolder
  const outfile = join(folder, "program.cjs")
  yield* Effect.promise(() =>
    build({
      stdin: { contents: code, resolveDir: fileURLToPath(root), sourcefile: "program.ts", loader: "ts" },
      outfile,
      bundle: true,
      platform: "node",
      logLevel: "error"
    })
  )
  return yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [outfile], { cwd: cwd ?? folder, env: { ...process.env, ...environment } })
    ),
    (child) =>
      Effect.promise(async () => {
        if (child.exitCode !== null || child.signalCode !== null) return
        const exit = once(child, "exit")
        child.kill()
        await exit
      })
  )
})

/** Starts a server, and returns its port and its output so far. */
const serve = Effect.fnUntraced(function* (page: string, options: Options = {}) {
  const code = replace(codeOf(page), ["port: 3000", "port: 0"])
  const child = yield* run(options.change === undefined ? code : replace(code, options.change), options)
  let said = ""
  const port = yield* Effect.callback<number>((resume) => {
    for (const output of [child.stdout, child.stderr]) {
      output.on("data", (data) => {
        said += String(data)
        const found = /Listening on http:\S*:(\d+)/.exec(said)?.[1]
        if (found !== undefined) resume(Effect.succeed(Number(found)))
      })
    }
    child.once("close", () => resume(Effect.die(new Error(`the program ended: ${said}`))))
  })
  return { port, said: () => said }
})

const withCookie = (answer: Answer, name: string) => `Cookie: ${name}=${tokenOf(answer, name)}`

it("each program has a test here", () => {
  assert.deepStrictEqual(
    programs.map(({ name }) => name.slice(0, name.indexOf(":"))),
    ["README.md", "docs/stores.md", "docs/recipes/proxy.md", "docs/recipes/stores.md"]
  )
})

describe("the first program", () => {
  it.live("counts the visits of each browser", () =>
    Effect.gen(function* () {
      const { port } = yield* serve("README.md")
      const first = yield* send(port, "GET /")
      assert.strictEqual(first.body, "Visit number 1")
      const second = yield* send(port, "GET /", [withCookie(first, "session")])
      assert.deepStrictEqual([second.body, second.cookies], ["Visit number 2", []])
      assert.strictEqual((yield* send(port, "GET /")).body, "Visit number 1")
    })
  )
})

describe("the contract by another test runner", () => {
  it.live("is held", () =>
    Effect.gen(function* () {
      const child = yield* run(codeOf("docs/stores.md"))
      let said = ""
      child.stdout.on("data", (data) => {
        said += String(data)
      })
      const [exitCode] = yield* Effect.promise(() => once(child, "close"))
      assert.strictEqual(exitCode, 0, said)
      assert.match(said, /^(#|ℹ) pass [1-9]\d*$/m)
      assert.match(said, /^(#|ℹ) fail 0$/m)
    })
  )
})

describe("behind a proxy", () => {
  const page = "docs/recipes/proxy.md"
  const host = "shop.example.com"
  const address = "203.0.113.9"

  /** A proxy in front of a port, which sets these headers. Returns its own port. */
  const proxyTo = Effect.fnUntraced(function* (port: number, headers: IncomingHttpHeaders) {
    const server = yield* Effect.acquireRelease(
      Effect.sync(() =>
        createServer((incoming, outgoing) => {
          const { method, url } = incoming
          const sent = request({ port, method, path: url, headers: { ...incoming.headers, ...headers } }, (answer) => {
            outgoing.writeHead(answer.statusCode ?? 502, answer.rawHeaders)
            answer.pipe(outgoing)
          })
          incoming.pipe(sent)
        }).listen(0, "127.0.0.1")
      ),
      (server) => Effect.sync(() => server.close())
    )
    yield* Effect.promise(() => once(server, "listening"))
    const bound = server.address()
    return typeof bound === "object" && bound !== null ? bound.port : assert.fail("the proxy listens on no port")
  })

  const tls = { "x-forwarded-proto": "https", "x-forwarded-for": address }
  const rewritten = { host: "127.0.0.1:3000" }

  /** A form of a page, in a browser that is too old for `Sec-Fetch-Site`; and by which the session is known. */
  const logIn = (port: number, origin = `https://${host}`, headers: ReadonlyArray<string> = []) =>
    send(port, "POST /log-in", [`Host: ${host}`, `Origin: ${origin}`, ...headers])

  const home = (port: number, loggedIn: Answer) =>
    Effect.map(send(port, "GET /", [`Host: ${host}`, withCookie(loggedIn, "__Host-session")]), ({ body }) => body)

  const warning = "a secure cookie was set over plain HTTP"

  for (const [what, headers] of [
    ["keeps the host", tls],
    ["rewrites the host and says so", { ...tls, ...rewritten, "x-forwarded-host": host }]
  ] as const) {
    it.live(`that ${what}, cookies work, and other sites are told from one's own`, () =>
      Effect.gen(function* () {
        const server = yield* serve(page)
        const port = yield* proxyTo(server.port, headers)
        const answer = yield* logIn(port)
        assert.strictEqual(answer.status, 303)
        assert.match(answer.cookies[0] ?? "", /^__Host-session=.*; Path=\/; .*; HttpOnly; Secure; SameSite=Lax$/)
        assert.strictEqual(yield* home(port, answer), `Logged in from ${address}`)
        assert.strictEqual((yield* logIn(port, "https://evil.example")).status, 403)
        assert.notInclude(server.said(), warning)
      })
    )
  }

  it.live("that rewrites the host and does not say so, a form of an old browser is refused", () =>
    Effect.gen(function* () {
      const server = yield* serve(page)
      const port = yield* proxyTo(server.port, { ...tls, ...rewritten })
      const refused = yield* logIn(port)
      assert.strictEqual(refused.status, 403)
      assert.strictEqual(refused.body, "Refused: a page of another origin made this request")
      const today = yield* logIn(port, `https://${host}`, ["Sec-Fetch-Site: same-origin"])
      assert.strictEqual(yield* home(port, today), `Logged in from ${address}`)
    })
  )

  it.live("that is not trusted, users have its address, and X-Forwarded-Host is not read", () =>
    Effect.gen(function* () {
      const server = yield* serve(page, { change: ["127.0.0.1/32", "192.0.2.0/24"] })
      const port = yield* proxyTo(server.port, { ...tls, "x-forwarded-host": "other.example" })
      const answer = yield* logIn(port)
      assert.match(yield* home(port, answer), /^Logged in from (::ffff:)?127\.0\.0\.1$/)
      const rewriting = yield* proxyTo(server.port, { ...tls, ...rewritten, "x-forwarded-host": host })
      assert.strictEqual((yield* logIn(rewriting)).status, 403)
    })
  )

  it.live("that does not speak of HTTPS, the server warns, and the session works", () =>
    Effect.gen(function* () {
      const server = yield* serve(page)
      const port = yield* proxyTo(server.port, { "x-forwarded-for": address })
      const answer = yield* logIn(port)
      assert.strictEqual(yield* home(port, answer), `Logged in from ${address}`)
      yield* logIn(port)
      assert.lengthOf(server.said().split(warning), 2)
    })
  )

  it.live("that appends to X-Forwarded-For alone, the address is right, and X-Forwarded-Host is not read", () =>
    Effect.gen(function* () {
      const server = yield* serve(page)
      const appended = { ...tls, "x-forwarded-for": `198.51.100.1, ${address}`, "x-forwarded-host": host }
      const keeping = yield* proxyTo(server.port, appended)
      assert.strictEqual(yield* home(keeping, yield* logIn(keeping)), `Logged in from ${address}`)
      const rewriting = yield* proxyTo(server.port, { ...appended, ...rewritten })
      assert.strictEqual((yield* logIn(rewriting)).status, 403)
    })
  )
})

const hasSqlite = process.getBuiltinModule("node:sqlite") !== undefined
if (!hasSqlite) console.warn(`Skipped: docs/recipes/stores.md, for want of node:sqlite in Node.js ${process.version}`)

describe.skipIf(!hasSqlite)("from store to store", () => {
  const page = "docs/recipes/stores.md"

  /** What a visitor sees on the second visit, after the program has restarted. */
  const visitAfterRestart = Effect.fnUntraced(function* (environment: Record<string, string>) {
    const cwd = yield* temporaryFolder
    const first = yield* Effect.scoped(
      Effect.flatMap(serve(page, { environment, cwd }), ({ port }) => send(port, "GET /"))
    )
    assert.strictEqual(first.body, "Visit number 1")
    const { port } = yield* serve(page, { environment, cwd })
    return (yield* send(port, "GET /", [withCookie(first, "session")])).body
  })

  it.live("a restart ends what is in memory", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* visitAfterRestart({}), "Visit number 1")
    })
  )

  it.live("a restart leaves alone what is in a file", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* visitAfterRestart({ SESSION_STORE: "sqlite" }), "Visit number 2")
    })
  )

  it.live("another store is not taken for one of them", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(serve(page, { environment: { SESSION_STORE: "mysql" } }))
      assert.include(String(exit), 'Expected "memory" | "sqlite" | "redis"')
    })
  )

  describeRedis("in Redis", () => {
    const start = Effect.map(RedisServer, ({ port }) => ({
      SESSION_STORE: "redis",
      REDIS_URL: `redis://127.0.0.1:${port}`
    }))

    it.live("a restart leaves sessions alone", () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* visitAfterRestart(yield* start), "Visit number 2")
      }).pipe(Effect.scoped, Effect.provide(RedisServer.layer))
    )

    it.live("sessions are those of every server, and come back with Redis", () =>
      Effect.gen(function* () {
        const environment = yield* start
        const [here, there] = [yield* serve(page, { environment }), yield* serve(page, { environment })]
        const first = yield* send(here.port, "GET /")
        const cookie = [withCookie(first, "session")]
        assert.strictEqual((yield* send(there.port, "GET /", cookie)).body, "Visit number 2")
        const redis = yield* RedisServer
        yield* redis.kill
        assert.strictEqual((yield* send(here.port, "GET /", cookie)).status, 500)
        yield* redis.start
        const answer = yield* Effect.repeat(send(here.port, "GET /", cookie), {
          until: ({ status }) => status === 200
        })
        assert.strictEqual(answer.body, "Visit number 3")
      }).pipe(Effect.scoped, Effect.provide(RedisServer.layerWith("--appendfsync", "always")))
    )
  })
})
