/**
 * A persistent map of tokens to entries, with a hash function that a client cannot predict.
 *
 * Effect's string hash is a fixed function. A client that chooses tokens can choose thousands that collide, and each of
 * them costs a look at all the others. This hash depends on random numbers that each store draws for itself. Its two
 * lanes run in parallel in the processor, so it takes no longer than Effect's.
 */
import { HashMap, Option } from "effect"
import * as Entry from "./entry.ts"

export type TokenMap = HashMap.HashMap<string, Entry.Entry>

export type Item = readonly [token: string, entry: Entry.Entry]

/** The hash of a token, in 31 bits: the most that every engine stores without boxing. */
export type Hash = (token: string) => number

export const makeHash = (): Hash => {
  const [startA = 0, startB = 0, seedA = 0, seedB = 0] = globalThis.crypto.getRandomValues(new Int32Array(4))
  const [byA, byB] = [seedA | 1, seedB | 1]
  return (token) => {
    let [a, b, i] = [startA, startB, token.length]
    if (i % 2 === 1) a = Math.imul(a ^ token.charCodeAt(--i), byA)
    while (i > 0) {
      a = Math.imul(a ^ token.charCodeAt(--i), byA)
      b = Math.imul(b ^ token.charCodeAt(--i), byB)
      a ^= a >>> 15
      b ^= b >>> 15
    }
    const mixed = Math.imul(a ^ (b << 16) ^ (b >>> 16), byB)
    return (mixed ^ (mixed >>> 16)) >> 1
  }
}

export const get = (self: TokenMap, hash: Hash, token: string): Option.Option<Entry.Entry> =>
  HashMap.getHash(self, token, hash(token))

/** Adds or overwrites. The token is copied because it may be a slice of a header; see `entry`. */
export const set = (self: TokenMap, hash: Hash, token: string, entry: Entry.Entry): TokenMap =>
  HashMap.modifyHash(self, Entry.flat(token), hash(token), () => Option.some(entry))

export const remove = (self: TokenMap, hash: Hash, token: string): TokenMap =>
  HashMap.modifyHash(self, token, hash(token), () => Option.none())
