/** Loads a server over as many connections as there are cookies: by wrk if it is installed, by autocannon if not. */
import { execFile, spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import autocannon from "autocannon"
import { Schema } from "effect"
import { timesOf } from "./eventLoop.ts"

const Load = Schema.Struct({
  requests: Schema.Int,
  seconds: Schema.Finite,
  errors: Schema.Int,
  /** In milliseconds. */
  latency50: Schema.Finite,
  latency99: Schema.Finite,
  /** How many requests each connection sent; the last may have got no answer. */
  sent: Schema.Array(Schema.Int)
})
export type Load = typeof Load.Type

const decode = Schema.decodeUnknownPromise(Schema.fromJsonString(Load))

/** wrk takes a fraction of the processor that autocannon takes, and so leaves more of it to the server. */
export const generator: "wrk" | "autocannon" =
  spawnSync("wrk", ["--version"]).error === undefined ? "wrk" : "autocannon"

const byWrk = async (url: string, cookies: ReadonlyArray<string>, seconds: number): Promise<Load> => {
  const script = fileURLToPath(new URL("load.lua", import.meta.url))
  const count = String(cookies.length)
  const { stdout } = await promisify(execFile)("wrk", [
    ...["--threads", count, "--connections", count, "--duration", `${seconds}s`, "--script", script, url],
    ...["--", ...cookies]
  ])
  return decode(stdout.slice(stdout.lastIndexOf("\n{")))
}

const byAutocannon = async (url: string, cookies: ReadonlyArray<string>, seconds: number): Promise<Load> => {
  const latencies: Array<number> = []
  const clients: Array<autocannon.Client> = []
  const answered = new Map<autocannon.Client, number>()
  const result = await new Promise<autocannon.Result>((resolve, reject) => {
    const setupClient = (client: autocannon.Client) => {
      client.setHeaders({ cookie: cookies[clients.push(client) - 1] ?? "" })
    }
    autocannon({ url, connections: cookies.length, duration: seconds, setupClient }, (error, result) =>
      error ? reject(error) : resolve(result)
    ).on("response", (client, _status, _bytes, millis) => {
      answered.set(client, (answered.get(client) ?? 0) + 1)
      latencies.push(millis)
    })
  })
  const { p50, p99 } = timesOf(latencies)
  return {
    requests: latencies.length,
    seconds: result.duration,
    errors: result.errors + result.non2xx,
    latency50: p50,
    latency99: p99,
    sent: clients.map((client) => (answered.get(client) ?? 0) + 1)
  }
}

export const generateLoad = generator === "wrk" ? byWrk : byAutocannon
