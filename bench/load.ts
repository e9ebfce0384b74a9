/**
 * Starts a server in a separate process, loads it and prints the figures. The argument, in JSON, says which.
 *
 * Each connection has its own session, like a visitor. Afterwards every session must have counted the requests of its
 * connection: a server that did not read and change it, or did not get the cookie, has no figures.
 */
import { fork } from "node:child_process"
import { once } from "node:events"
import { Schema } from "effect"
import { connections } from "./httpSubjects.ts"
import { generateLoad, type Load } from "./loadGenerator.ts"
import { Figures } from "./results.ts"
import { countRoundTrips } from "./roundTrips.ts"

const Argument = Schema.Struct({
  /** The built server. */
  file: Schema.String,
  path: Schema.Literals(["/", "/read"]),
  hasSession: Schema.Boolean,
  seconds: Schema.Int,
  storePort: Schema.optional(Schema.Int)
})

const { file, hasSession, path, seconds, storePort } = Schema.decodeUnknownSync(Schema.fromJsonString(Argument))(
  process.argv[2]
)

const Port = Schema.Struct({ port: Schema.Int })
const Usage = Schema.Struct({ user: Schema.Finite, system: Schema.Finite })

const startServer = async (port: number | undefined) => {
  const child = fork(file, {
    execArgv: [],
    env: { ...process.env, NODE_ENV: "production", STORE_PORT: `${port}` },
    stdio: ["ignore", "inherit", "inherit", "ipc"]
  })
  child.once("exit", (code) => {
    throw new Error(`${file} ended with ${code}`)
  })
  const message = async () => (await once(child, "message"))[0]
  const { port: ownPort } = Schema.decodeUnknownSync(Port)(await message())
  return {
    url: `http://127.0.0.1:${ownPort}`,
    /** Microseconds of the processor until now. */
    usage: async () => {
      const answer = message()
      child.send("usage")
      return Schema.decodeUnknownSync(Usage)(await answer)
    },
    stop: () => {
      child.removeAllListeners("exit")
      child.kill("SIGKILL")
    }
  }
}

const visit = async (url: string, cookie = "") => {
  const response = await fetch(url, { headers: { cookie }, signal: AbortSignal.timeout(10_000) })
  const visits = Number((await response.text()).replace("Visit ", ""))
  if (!response.ok || Number.isNaN(visits)) throw new Error(`${url} answered ${response.status}`)
  const set = response.headers.getSetCookie().map((header) => header.split(";")[0])
  return { visits, cookie: set.length === 0 ? cookie : set.join("; ") }
}

/** Each session must hold what its connection sent: all of each load, except requests in flight at the end. */
const assertCounted = async (url: string, cookies: ReadonlyArray<string>, loads: ReadonlyArray<Load>) => {
  for (const [index, cookie] of cookies.entries()) {
    const counted = (await visit(`${url}/`, cookie)).visits - 2
    const sent = loads.reduce((sum, load) => sum + (load.sent[index] ?? Number.NaN), 0)
    const [least, most] = path === "/read" ? [0, 0] : [sent - loads.length * 2, sent]
    if (!(counted >= least && counted <= most)) {
      throw new Error(`Session ${index} counted ${counted} of ${sent} requests to ${path}`)
    }
  }
}

const measure = async (): Promise<Figures> => {
  const { url, usage, stop } = await startServer(storePort)
  const visitors = await Promise.all(Array.from({ length: connections }, () => visit(`${url}/`)))
  const cookies = visitors.map(({ cookie }) => cookie)
  if (hasSession && new Set(cookies).size !== connections) throw new Error("Not every visitor got a cookie")
  // As long as V8 needs to compile a server: what its compiler takes is processor time, too.
  const warmUps = seconds < 2 ? [] : [await generateLoad(url + path, cookies, 5)]
  const before = await usage()
  const load = await generateLoad(url + path, cookies, seconds)
  const after = await usage()
  if (load.errors > 0) throw new Error(`${load.errors} requests got no good answer`)
  if (hasSession) await assertCounted(url, cookies, [...warmUps, load])
  stop()
  const [user, system] = [after.user - before.user, after.system - before.system].map(
    (micros) => micros / load.requests
  )
  return {
    cpu: (user ?? 0) + (system ?? 0),
    user,
    system,
    requests: load.requests / load.seconds,
    latency50: load.latency50,
    latency99: load.latency99
  }
}

/** How often a request waits for the store: of many, one after another. */
const measureRoundTrips = async (port: number): Promise<number> => {
  const requests = 50
  const trips = await countRoundTrips(port)
  const { url, stop } = await startServer(trips.port)
  const { cookie } = await visit(`${url}/`)
  for (let i = 0; i < 5; i++) await visit(url + path, cookie)
  const before = trips.count()
  for (let i = 0; i < requests; i++) await visit(url + path, cookie)
  stop()
  return (trips.count() - before) / requests
}

const figures: Figures = {
  ...(await measure()),
  ...(storePort === undefined ? {} : { roundTrips: await measureRoundTrips(storePort) })
}
console.log(Schema.encodeSync(Schema.fromJsonString(Figures))(figures))
process.exit(0)
