/**
 * Runs `worker.ts` in workerd, and asks it for what a browser would: `check.ts path/to/workerd`.
 */
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { build } from "esbuild"

const [, , program] = process.argv
assert(program !== undefined, "The path of workerd is missing")

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const folder = mkdtempSync(join(tmpdir(), "workerd-"))
process.on("exit", () => rmSync(folder, { recursive: true, force: true }))

// Bundled as for a browser, and without `nodejs_compat`: Node's modules are not available.
await build({
  entryPoints: [here("worker.ts")],
  tsconfig: here("../../tsconfig.json"),
  outfile: join(folder, "worker.js"),
  bundle: true,
  platform: "browser",
  format: "esm",
  logLevel: "error"
})

const freePort = async () => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  server.close()
  return typeof address === "object" && address !== null ? address.port : assert.fail("no port")
}

const port = await freePort()
const config = join(folder, "config.capnp")
writeFileSync(
  config,
  `using Workerd = import "/workerd/workerd.capnp";
const worker :Workerd.Worker = (
  modules = [(name = "worker", esModule = embed "worker.js")],
  compatibilityDate = "2026-01-01"
);
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker)],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "main")]
);
`
)
const workerd = spawn(program, ["serve", config], { stdio: "inherit" })
process.on("exit", () => workerd.kill("SIGKILL"))

const ask = async (path: string, cookie = "", method = "GET") => {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { method, headers: { cookie } })
  assert(response.ok, `${path}: ${response.status}`)
  return { text: await response.text(), setCookie: response.headers.getSetCookie()[0] }
}

const start = async (): ReturnType<typeof ask> => {
  for (let tries = 0; tries < 200; tries++) {
    try {
      return await ask("/")
    } catch (error) {
      // It does not listen yet.
      if (!(error instanceof TypeError)) throw error
      await setTimeout(50)
    }
  }
  return assert.fail("workerd does not answer")
}

interface Report {
  readonly active: number
  readonly metrics: { readonly [name: string]: { readonly count: number } }
}
const report = async (): Promise<Report> => JSON.parse((await ask("/report")).text)

let passed = 0
const check = (what: string, isSo: boolean) => {
  assert(isSo, what)
  console.log(`✓ ${what}`)
  passed++
}

const first = await start()
const cookie = first.setCookie?.split(";")[0] ?? ""
check("a first visit gets a session and a cookie", first.text === "1" && cookie !== "")

const visits = await Promise.all(Array.from({ length: 20 }, async () => Number((await ask("/", cookie)).text)))
const twenty = visits.toSorted((a, b) => a - b).join()
check("twenty visits at once all count", twenty === Array.from({ length: 20 }, (_, i) => i + 2).join())

await ask("/flood")
await setTimeout(2_500)
const later = await report()
check("sessions that have expired are not there", later.active === 1)
// If this fails, good: then docs/runtimes.md can say so.
check("timers stand still between requests, and so does the sweep", later.metrics.sessions_swept === undefined)

for (let i = 0; i < 3; i++) await ask("/flood")
const { active, metrics } = await report()
check(
  "a capacity bounds the memory, and what has expired makes room",
  active <= 1_000 && metrics.sessions_swept?.count === 600
)

const left = await ask("/", (await ask("/")).setCookie?.split(";")[0])
check("a session that was made when the store was full is kept", left.text === "2")

const other = (await ask("/")).setCookie?.split(";")[0] ?? ""
await ask("/leave", other, "POST")
check("a session that has ended is not found", (await ask("/", other)).text === "1")

console.log(`${passed} checks passed in workerd`)
process.exit(0)
