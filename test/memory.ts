/**
 * A memory of secrets, for every test: what leaves the library in any way is searched for each token that was made in the
 * process, and for the values that the tests keep in sessions to this end. At the end of a test file none may have been found.
 *
 * It is the setup file of vitest.config.ts, and no test has to call it: it watches the places that everything passes
 * through: log messages, by what a fiber asks for its loggers; failures and defects, by how they go through a fiber;
 * spans, when they end; metrics, at the end; the console; and responses, of which none may have a token outside of
 * `Set-Cookie`, and one of an error no secret at all.
 */
import { ServerResponse } from "node:http"
import { inspect } from "node:util"
import { Cause, Effect, Exit, Logger, Metric, Tracer } from "effect"
import { HttpServerResponse } from "effect/http"
import { afterAll, expect } from "vitest"

/** Values that no test contains by chance. A test only has to keep them in a session. */
export const secretValues = ["Xq7-secret-value-41927", "Xq7-secret-user-58163"] as const

export interface Leak {
  readonly by: "log" | "failure" | "span" | "metric" | "console" | "response"
  readonly test: string | undefined
  readonly text: string
}

const tokens = new Set<string>()
let leaks: Array<Leak> = []

/** Hands over the leaks that were found, which no longer count. */
export const takeLeaks = (): ReadonlyArray<Leak> => {
  const taken = leaks
  leaks = []
  return taken
}

const tokenIn = (text: string): string | undefined => {
  for (const [run] of text.matchAll(/[\w-]{43,}/g)) {
    for (let at = 0; at + 43 <= run.length; at++) {
      const part = run.slice(at, at + 43)
      if (tokens.has(part)) return part
    }
  }
  return undefined
}

const secretIn = (text: string): string | undefined =>
  secretValues.find((value) => text.includes(value)) ?? tokenIn(text)

// Bytes are read as the text that they may be: a list of a million numbers takes seconds, and shows no secret.
for (const { prototype } of [Uint8Array, Buffer]) {
  Object.defineProperty(prototype, inspect.custom, {
    value(this: Uint8Array) {
      return Buffer.from(this.buffer, this.byteOffset, this.byteLength).toString("latin1")
    },
    configurable: true
  })
}

const show = (input: unknown): string =>
  typeof input === "string" ? input : inspect(input, { depth: 8, maxStringLength: null, maxArrayLength: null })

// The recipe for form_post hands over by a code in a URL, which is the token of a session that lives for a minute.
const handover = "/log-in?code="

// Looking must not be looked at.
let isLooking = false

const look = (by: Leak["by"], input: unknown, find: (text: string) => string | undefined = secretIn): void => {
  if (isLooking) return
  isLooking = true
  try {
    const text = show(input)
    const secret = find(text)
    if (secret === undefined || text.includes(handover)) return
    leaks.push({ by, test: expect.getState().currentTestName, text: text.replaceAll(secret, "<SECRET>") })
  } finally {
    isLooking = false
  }
}

/** Puts a function around a method. */
const around = (
  owner: object,
  name: string,
  before: (self: unknown, args: ReadonlyArray<unknown>) => void,
  after: (args: ReadonlyArray<unknown>, result: unknown) => unknown = (_args, result) => result
): void => {
  const method: unknown = Reflect.get(owner, name)
  if (typeof method !== "function") throw new Error(`${name} is no method any more: the memory of secrets sees nothing`)
  const replacement = function (this: unknown, ...args: ReadonlyArray<unknown>) {
    before(this, args)
    return after(args, Reflect.apply(method, this, args))
  }
  Object.defineProperty(owner, name, { value: replacement, writable: true, configurable: true })
}

const nothing = () => {}

const prototypeOf = (value: object): object => Object.getPrototypeOf(value)

// Tokens are made of bytes that are drawn for sixteen at a time.
around(globalThis.crypto, "getRandomValues", nothing, (_args, bytes) => {
  if (bytes instanceof Uint8Array && bytes.length === 512) {
    for (let at = 0; at < 512; at += 32) tokens.add(Buffer.from(bytes.subarray(at, at + 32)).toString("base64url"))
  }
  return bytes
})

// One more logger reads along with those of a test. Hand-written, because every operation of a fiber asks for this.
const recorder = Logger.make(({ cause, message }) => look("log", [message, Cause.pretty(cause), cause]))
const fiber = prototypeOf(Effect.runFork(Effect.void))
const getRef: (this: unknown, reference: unknown) => unknown = Reflect.get(fiber, "getRef")
Object.defineProperty(fiber, "getRef", {
  value: function (this: unknown, reference: unknown) {
    const found = getRef.call(this, reference)
    return reference === Logger.CurrentLoggers && found instanceof Set ? new Set([...found, recorder]) : found
  }
})

// An error goes through many steps of a fiber.
const seen = new WeakSet<object>()

const isNews = (reason: Cause.Reason<unknown>): boolean => {
  if (Cause.isInterruptReason(reason)) return false
  const error = Cause.isFailReason(reason) ? reason.error : reason.defect
  if (typeof error !== "object" || error === null) return true
  if (seen.has(error)) return false
  seen.add(error)
  return true
}

around(prototypeOf(Exit.fail("")), "~effect/Effect/evaluate", (exit) => {
  if (!Exit.isExit(exit) || !Exit.isFailure(exit) || !exit.cause.reasons.some(isNews)) return
  look("failure", [exit.cause, Cause.pretty(exit.cause)])
})

around(Tracer.NativeSpan.prototype, "end", (span, [, exit]) => {
  if (!(span instanceof Tracer.NativeSpan)) return
  // The span of a server ends with the response, whose body may be the token that its handler hands out.
  const isResponse = Exit.isExit(exit) && Exit.isSuccess(exit) && HttpServerResponse.isHttpServerResponse(exit.value)
  look("span", [span.name, span.attributes, span.events, isResponse ? undefined : exit])
})

for (const method of ["log", "info", "warn", "error", "debug"]) {
  around(console, method, (_self, args) => look("console", args))
}

const bodyOf = (body: unknown): string => {
  if (body instanceof Uint8Array) return new TextDecoder().decode(body)
  return typeof body === "string" ? body : ""
}

const lookAtResponse = (status: number, headers: Iterable<readonly [string, unknown]>, body: unknown): void => {
  const others = [...headers].filter(([name]) => name.toLowerCase() !== "set-cookie")
  look("response", others, tokenIn)
  if (status >= 400) look("response", [others, bodyOf(body)])
}

globalThis.Response = new Proxy(globalThis.Response, {
  construct: (target, args, newTarget) => {
    const response: Response = Reflect.construct(target, args, newTarget)
    lookAtResponse(response.status, response.headers, args[0])
    return response
  }
})

around(ServerResponse.prototype, "end", (response, [body]) => {
  if (response instanceof ServerResponse) {
    lookAtResponse(response.statusCode, Object.entries(response.getHeaders()), body)
  }
})

/** Searches all metrics. They are read at the end of a test file, when each has been counted. */
export const lookAtMetrics: Effect.Effect<void> = Effect.map(Metric.snapshot, (metrics) => look("metric", metrics))

afterAll(async () => {
  await Effect.runPromise(lookAtMetrics)
  const found = takeLeaks()
  if (found.length === 0) return
  const list = found.slice(0, 5).map(({ by, test, text }) => `by a ${by}, in "${test}":\n${text.slice(0, 2_000)}`)
  throw new Error(`Secrets got out ${found.length} times\n${list.join("\n\n")}`)
})
