/**
 * Loads a server from this process and prints the figures: `load.ts <port> <seconds> <session | none>`.
 *
 * Each of 64 connections has a session of its own, as each visitor has. Afterwards every session must have counted the
 * requests of its connection: who did not read and change it, or did not get the cookie, has no figures.
 */
import autocannon from "autocannon"
import { Schema } from "effect"
import { timesOf } from "./eventLoop.ts"
import { Figures } from "./results.ts"

const [port, seconds, kept] = Schema.decodeUnknownSync(
  Schema.Tuple([Schema.FiniteFromString, Schema.FiniteFromString, Schema.Literals(["session", "none"])])
)(process.argv.slice(2))
const url = `http://127.0.0.1:${port}`
const connections = 64

const visit = async (cookie = "") => {
  const response = await fetch(url, { headers: { cookie } })
  const visits = Number((await response.text()).replace("Visit ", ""))
  return { visits, cookie: response.headers.getSetCookie()[0]?.split(";")[0] ?? cookie }
}

const load = async (cookies: ReadonlyArray<string>, duration: number) => {
  const latencies: Array<number> = []
  let connected = 0
  const result = await new Promise<autocannon.Result>((resolve, reject) => {
    const setupClient = (client: autocannon.Client) => client.setHeaders({ cookie: cookies[connected++] ?? "" })
    autocannon({ url, connections, duration, setupClient }, (error, result) =>
      error ? reject(error) : resolve(result)
    ).on("response", (_client, _status, _bytes, millis) => latencies.push(millis))
  })
  if (result.errors + result.non2xx > 0) throw new Error(`${result.errors} errors, ${result.non2xx} bad responses`)
  return { requests: result["2xx"], seconds: result.duration, times: timesOf(latencies) }
}

const visitors = await Promise.all(Array.from({ length: connections }, () => visit()))
const cookies = visitors.map(({ cookie }) => cookie)
const warmUp = await load(cookies, Math.min(1, seconds))
const { requests, times, ...measured } = await load(cookies, seconds)

if (kept === "session") {
  const last = await Promise.all(cookies.map(visit))
  const counted = last.reduce((sum, { visits }) => sum + visits, 0)
  const made = warmUp.requests + requests + 2 * connections
  if (counted < made) throw new Error(`The sessions counted ${counted} requests of ${made}`)
}

const figures: Figures = { requests: requests / measured.seconds, latency50: times.p50, latency99: times.p99 }
console.log(Schema.encodeSync(Schema.fromJsonString(Figures))(figures))
process.exit(0)
