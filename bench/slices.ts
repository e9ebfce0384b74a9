/**
 * `npm run bench:slices`: does MemStore keep a Cookie header or a request body in memory because a token or data was cut
 * out of it? Prints the heap a session, with strings that were made apart and with slices of large ones.
 *
 * V8 makes `slice` a reference to the whole string. A `Map` that is filled with slices shows what that takes.
 */
import { DateTime, Effect, Scope } from "effect"
import { MemStore } from "effect-sessions"
import { newToken, settle, textOf } from "./sessions.ts"

const sessions = Number(process.argv[2] ?? 1_000_000)
const padding = 2_000

const whole = (text: string): string => Buffer.from(text, "latin1").toString("latin1")

/** The text as a part of a string that is longer by `padding` characters, as a header or a body is. */
const cutOut = (text: string): string => whole(`${text}${"x".repeat(padding)}`).slice(0, text.length)

type Put = (token: string, data: string) => Effect.Effect<void>

const bytesEach = async (count: number, put: Put, made: (text: string) => string): Promise<number> => {
  await settle()
  const before = process.memoryUsage().heapUsed
  for (let i = 0; i < count; i++) await Effect.runPromise(put(made(newToken()), made(textOf(i))))
  await settle()
  return (process.memoryUsage().heapUsed - before) / count
}

const memStore = async (): Promise<Put> => {
  const store = await Effect.runPromise(
    MemStore.makeWithCleanupInterval(0).pipe(Effect.provideService(Scope.Scope, Scope.makeUnsafe()))
  )
  const expiry = DateTime.makeUnsafe(Date.now() + 60 * 60 * 1000)
  return (token, data) => store.commit(token, data, expiry)
}

const plainMap = async (): Promise<Put> => {
  const map = new Map<string, string>()
  return (token, data) => Effect.sync(() => void map.set(token, data))
}

for (const [name, make, most] of [
  ["MemStore", memStore, sessions],
  // A million would take four gigabytes.
  ["Map", plainMap, Math.min(sessions, 100_000)]
] as const) {
  const apart = await bytesEach(most, await make(), whole)
  const slices = await bytesEach(most, await make(), cutOut)
  console.log(
    `${name}, ${most} sessions: ${apart.toFixed(0)} bytes of heap a session, ` +
      `${slices.toFixed(0)} with token and data cut out of strings ${padding} characters longer`
  )
}
