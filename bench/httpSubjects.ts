/** The servers to measure, and the requests for each. All benchmarks take them from here. */
import type { Part } from "./results.ts"

export type HttpPart = Extract<Part, "http" | "reads" | "remote">

export interface HttpSubject {
  readonly part: HttpPart
  readonly subject: string
  /** A file in `servers`. */
  readonly script: string
  /** `/` reads and changes the session, `/read` reads it. */
  readonly path: "/" | "/read"
  readonly hasSession: boolean
  /** The server that keeps the sessions, if it is another process. */
  readonly store: "redis" | "postgres" | undefined
}

const changing = (subject: string, script: string, hasSession = true): HttpSubject => ({
  part: "http",
  subject,
  script,
  path: "/",
  hasSession,
  store: undefined
})

const reading = (subject: string, script: string): HttpSubject => ({
  ...changing(subject, script),
  part: "reads",
  path: "/read"
})

const remote = (subject: string, script: string, store: "redis" | "postgres"): ReadonlyArray<HttpSubject> => [
  { ...changing(subject, script), part: "remote", store },
  { ...changing(`${subject}, only read`, script), part: "remote", path: "/read", store }
]

/** Connections of the load, each with its own session. */
export const connections = 32

export const plain = "Effect, no session"
export const ours = "Effect, HttpSession on MemStore"

/** An alternative, with the session library that it recommends, and its script. */
const rivalScripts = {
  "fastify, @fastify/session": "fastifySession",
  "hono, hono-sessions": "honoSessions",
  "koa, koa-session on a Map": "koaSession",
  "express, express-session on memorystore": "expressMemory"
}
export const rivals = Object.keys(rivalScripts)

export const readingIdle = "the same with an idle timeout"

export const httpSubjects: ReadonlyArray<HttpSubject> = [
  changing("Node, no session", "node", false),
  changing("fastify, no session", "fastify", false),
  changing(plain, "effect", false),
  changing(ours, "effectMemory"),
  ...Object.entries(rivalScripts).map(([subject, script]) => changing(subject, script)),
  { ...changing(plain, "effect", false), part: "reads" },
  reading(ours, "effectMemory"),
  reading(readingIdle, "effectIdle"),
  ...Object.entries(rivalScripts).map(([subject, script]) => reading(subject, script)),
  ...remote("Effect, HttpSession on Redis", "effectRedis", "redis"),
  ...remote("express, express-session on connect-redis", "expressRedis", "redis"),
  ...remote("Effect, HttpSession on PostgreSQL", "effectPostgres", "postgres"),
  ...remote("express, express-session on connect-pg-simple", "expressPostgres", "postgres")
]

/** The measurements of each. */
export const httpFigures = ["cpu", "user", "system", "requests", "latency50", "latency99"] as const
