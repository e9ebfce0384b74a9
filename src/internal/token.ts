/**
 * The token of a session, and the key that it has in a store.
 *
 * A token is 32 random bytes in base64url: a secret, which only the client keeps. Its key is its SHA-256: whoever reads
 * a store, a log or the list of sessions learns keys, and a key opens nothing.
 */
import { sha256 } from "@noble/hashes/sha2.js"

const byteLength = 32
const textLength = 43

const alphabet = new TextEncoder().encode("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
const shape = /^[\w-]{43}$/

/**
 * The 32 bytes from `start` on, in base64url. `Base64Url` of Effect takes four times as long. Appending characters to a
 * string takes twice as long, and leaves a chain of its parts in memory, while this makes one flat string.
 */
const encode = (bytes: Uint8Array, start: number): string => {
  const codes = new Array<number>(textLength)
  for (let i = 0; i < textLength; i++) {
    // Character `i` has the six bits from bit `6 * i` on; the byte after the last one counts as zero.
    const bit = i * 6
    const at = start + (bit >> 3)
    const next = i === textLength - 1 ? 0 : (bytes[at + 1] ?? 0)
    codes[i] = alphabet[((((bytes[at] ?? 0) << 8) | next) >> (10 - (bit & 7))) & 63] ?? 0
  }
  return String.fromCharCode.apply(null, codes)
}

/**
 * Random bytes for sixteen tokens, as a call for 32 bytes takes as long as one for 512: 2.4 of the 2.8 µs of a token.
 * They are drawn when the first token is made, since a Worker may not draw any while it loads its modules.
 */
const pool = new Uint8Array(16 * byteLength)
let used = pool.length

/** Makes a token. The string is a new one, no part of a longer string. */
export const makeToken = (): string => {
  if (used === pool.length) {
    globalThis.crypto.getRandomValues(pool)
    used = 0
  }
  const start = used
  used += byteLength
  const token = encode(pool, start)
  // A secret that was handed out is kept nowhere.
  pool.fill(0, start, used)
  return token
}

/** Whether a text has the shape of a token. A text that has not belongs to no session. */
export const isToken = (text: string): boolean => shape.test(text)

// Not by an `import`, which a browser, or a Worker without the flag `nodejs_compat`, could not load.
const hash = globalThis.process?.getBuiltinModule?.("node:crypto")?.hash

/**
 * The SHA-256 of a token, in base64url. `node:crypto` takes 0.45 µs for it; if that is missing, the one in JavaScript
 * takes 2.5 µs. Web Crypto has none that is synchronous.
 */
export const hashToken: (token: string) => string =
  hash === undefined
    ? (token) => encode(sha256(new TextEncoder().encode(token)), 0)
    : (token) => hash("sha256", token, "base64url")

/** A token that nobody has yet, and its key. */
export const makeSecret = (): { readonly token: string; readonly key: string } => {
  const token = makeToken()
  return { token, key: hashToken(token) }
}
