/** The part of the bench that starts servers: built, in production mode, each in a process of its own. */
import { readdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { Console, Effect, FileSystem, Path } from "effect"
import { build } from "esbuild"
import { isPostgresInstalled, isRedisInstalled, PostgresServer, RedisServer } from "../test/servers.ts"
import { measureByScript } from "./child.ts"
import { connections, type HttpPart, type HttpSubject, httpSubjects } from "./httpSubjects.ts"

/** Compiles the servers to a folder from which they find their packages, and nothing else: those run as installed. */
const buildServers = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const sources = fileURLToPath(new URL("servers/", import.meta.url))
  const outdir = yield* fs.makeTempDirectoryScoped({
    directory: fileURLToPath(new URL("node_modules", import.meta.url)),
    prefix: ".servers-"
  })
  yield* Effect.promise(() =>
    build({
      entryPoints: readdirSync(sources).map((file) => path.join(sources, file)),
      outdir,
      outExtension: { ".js": ".mjs" },
      bundle: true,
      packages: "external",
      platform: "node",
      format: "esm",
      target: "node20",
      logLevel: "warning"
    })
  )
  return (script: string) => path.join(outdir, `${script}.mjs`)
})

/** A new server for the sessions, as long as a measurement takes. */
const stores = {
  redis: {
    isInstalled: isRedisInstalled,
    withPort: <A, E, R>(use: (port: number) => Effect.Effect<A, E, R>) =>
      Effect.provide(
        Effect.flatMap(RedisServer, ({ port }) => use(port)),
        RedisServer.layer
      )
  },
  postgres: {
    isInstalled: isPostgresInstalled,
    withPort: <A, E, R>(use: (port: number) => Effect.Effect<A, E, R>) =>
      Effect.provide(
        Effect.flatMap(PostgresServer, ({ port }) => use(port)),
        PostgresServer.layer
      )
  }
}

const measureServer = ({ store, ...subject }: HttpSubject, file: string, seconds: number) => {
  const measureWith = (storePort: number | undefined) =>
    measureByScript(subject.subject, "load.ts", [
      JSON.stringify({ file, path: subject.path, hasSession: subject.hasSession, seconds, storePort })
    ])
  return store === undefined ? measureWith(undefined) : stores[store].withPort(measureWith)
}

export const httpPlans = Effect.fnUntraced(function* (parts: ReadonlyArray<HttpPart>, seconds: number) {
  const isMissing = ({ store }: HttpSubject) => store !== undefined && !stores[store].isInstalled
  const subjects = httpSubjects.filter(({ part }) => parts.includes(part))
  for (const { subject } of subjects.filter(isMissing)) {
    yield* Console.error(`${subject} is left out: its store is not installed`)
  }
  if (subjects.length === 0) return []
  const built = yield* buildServers
  return subjects
    .filter((subject) => !isMissing(subject))
    .map((subject) => ({
      part: subject.part,
      subject: subject.subject,
      sessions: connections,
      measure: measureServer(subject, built(subject.script), seconds)
    }))
})
