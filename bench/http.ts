/** The part of the bench that starts servers: built, in production mode, each in a separate process. */
import { Console, Effect, type Layer } from "effect"
import { isPostgresInstalled, isRedisInstalled, PostgresServer, RedisServer } from "../test/servers.ts"
import { measureByScript } from "./child.ts"
import { connections, type HttpPart, type HttpSubject, httpSubjects } from "./httpSubjects.ts"

/** A new server for the sessions, as long as a measurement takes. */
const withServer =
  <Server, E>(server: Effect.Effect<{ readonly port: number }, never, Server>, layer: Layer.Layer<Server, E>) =>
  <A, E2, R>(use: (port: number) => Effect.Effect<A, E2, R>) =>
    Effect.provide(
      Effect.flatMap(server, ({ port }) => use(port)),
      layer
    )

const stores = {
  redis: { isInstalled: isRedisInstalled, withPort: withServer(RedisServer, RedisServer.layer) },
  postgres: { isInstalled: isPostgresInstalled, withPort: withServer(PostgresServer, PostgresServer.layer) }
}

type Built = (script: string) => string

const measureServer = (built: Built, { store, script, subject, ...how }: HttpSubject, seconds: number) => {
  const measureWith = (storePort: number | undefined) =>
    measureByScript(subject, built("load"), [
      JSON.stringify({ ...how, file: built(`servers/${script}`), seconds, storePort })
    ])
  return store === undefined ? measureWith(undefined) : stores[store].withPort(measureWith)
}

export const httpPlans = Effect.fnUntraced(function* (parts: ReadonlyArray<HttpPart>, built: Built, seconds: number) {
  const isMissing = ({ store }: HttpSubject) => store !== undefined && !stores[store].isInstalled
  const subjects = httpSubjects.filter(({ part }) => parts.includes(part))
  for (const { subject } of subjects.filter(isMissing)) {
    yield* Console.error(`${subject} is left out: its store is not installed`)
  }
  return subjects
    .filter((subject) => !isMissing(subject))
    .map((subject) => ({
      part: subject.part,
      subject: subject.subject,
      sessions: connections,
      measure: measureServer(built, subject, seconds)
    }))
})
