/**
 * The token of a session, and its key in the store.
 *
 * A token is 32 random bytes in base64url: a secret that only the client keeps. The key is the SHA-256 of the token. A
 * store, a log or a list of sessions shows keys only, and a key opens nothing.
 */
import { sha256 } from "@noble/hashes/sha2.js"

const byteLength = 32
const textLength = 43

const alphabet = new TextEncoder().encode("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
const shape = /^[\w-]{43}$/

/**
 * Encodes the 32 bytes from `start` on as base64url. Effect's `Base64Url` takes four times as long. Appending
 * characters to a string takes twice as long, and leaves a chain of its parts in memory; this makes one flat string.
 */
const encode = (bytes: Uint8Array, start: number): string => {
  const codes = new Array<number>(textLength)
  for (let i = 0; i < textLength; i++) {
    // Character `i` encodes the six bits from bit `6 * i` on; the byte after the last one counts as zero.
    const bit = i * 6
    const at = start + (bit >> 3)
    const next = i === textLength - 1 ? 0 : (bytes[at + 1] ?? 0)
    codes[i] = alphabet[((((bytes[at] ?? 0) << 8) | next) >> (10 - (bit & 7))) & 63] ?? 0
  }
  return String.fromCharCode.apply(null, codes)
}

/**
 * Random bytes for sixteen tokens, because a call for 32 bytes takes as long as one for 512: 2.4 of the 2.8 µs of a
 * token. They are drawn when the first token is made, because a Worker must not draw random numbers while its modules
 * load.
 */
const pool = new Uint8Array(16 * byteLength)
let used = pool.length

/** Makes a token. The string is flat, not a slice of a longer one. */
export const makeToken = (): string => {
  if (used === pool.length) {
    globalThis.crypto.getRandomValues(pool)
    used = 0
  }
  const start = used
  used += byteLength
  const token = encode(pool, start)
  // Forget the bytes of a token that was handed out.
  pool.fill(0, start, used)
  return token
}

/** Whether a text has the shape of a token. Any other text belongs to no session. */
export const isToken = (text: string): boolean => shape.test(text)

// Not an `import`, because a browser, or a Worker without the flag `nodejs_compat`, could not load it.
const hash = globalThis.process?.getBuiltinModule?.("node:crypto")?.hash

/**
 * The SHA-256 of a token, in base64url. `node:crypto` takes 0.45 µs. If it is missing, the JavaScript version takes 2.5
 * µs. Web Crypto has no synchronous version.
 */
export const hashToken: (token: string) => string =
  hash === undefined
    ? (token) => encode(sha256(new TextEncoder().encode(token)), 0)
    : (token) => hash("sha256", token, "base64url")

/** A new token, and its key. */
export const makeSecret = (): { readonly token: string; readonly key: string } => {
  const token = makeToken()
  return { token, key: hashToken(token) }
}
