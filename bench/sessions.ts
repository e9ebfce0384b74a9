/** The sessions that are written and looked up: random tokens as MemStore's users make them, and 256 characters of data. */
import { randomBytes, randomFillSync } from "node:crypto"

const entropy = Buffer.alloc(32 * 1024)
let used = entropy.length

/**
 * A new token of 32 random bytes. They are drawn many at a time, or the drawing would take longer than the measured
 * code.
 */
export const newToken = (): string => {
  if (used === entropy.length) {
    randomFillSync(entropy)
    used = 0
  }
  used += 32
  return entropy.toString("base64url", used - 32, used)
}

const letters = Buffer.from(randomBytes(1024 * 1024).toString("base64url"), "latin1")

/** One text for each number, so the content of a session is known without storing it. */
export const textOf = (seed: number): string => {
  const start = (seed * 257) % (letters.length - 256)
  return letters.toString("latin1", start, start + 256)
}

/** An equal token that is another string, as one that a request brings in its cookie. */
export const received = (token: string): string => Buffer.from(token, "latin1").toString("latin1")

/** So many operations are issued at a time. */
export const batchSize = 256

export const batches = (count: number): Array<{ readonly start: number; readonly size: number }> =>
  Array.from({ length: Math.ceil(count / batchSize) }, (_, i) => ({
    start: i * batchSize,
    size: Math.min(batchSize, count - i * batchSize)
  }))

/** All numbers below a bound, in random order. */
export const shuffled = (count: number): Uint32Array => {
  const order = Uint32Array.from({ length: count }, (_, i) => i)
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1))
    const kept = order[i] ?? 0
    order[i] = order[j] ?? 0
    order[j] = kept
  }
  return order
}

const collectGarbage = () => {
  if (globalThis.gc === undefined) throw new Error("Run with --expose-gc")
  globalThis.gc()
}

/** Leaves nothing behind that a measurement would pay for. */
export const settle = async (): Promise<void> => {
  collectGarbage()
  await new Promise((resolve) => setTimeout(resolve, 50))
  collectGarbage()
}
