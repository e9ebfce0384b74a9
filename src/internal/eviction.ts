/**
 * The bound on a store in memory: which session goes when a new one is one too many, and who hears of it.
 *
 * Of a sample of sixteen sessions, the one that expires soonest goes, so an expired one first. The sample comes from a
 * hand that walks a snapshot of the store, and takes a new snapshot when it is through. That needs no second index, and
 * takes the same time however many sessions there are. The order of hashes has nothing to do with time, so sixteen in a
 * row are as good a sample as sixteen at random.
 */
import { Clock, Effect, Formatter, HashMap, Metric, Option } from "effect"
import { sessionsSwept } from "./cleanup.ts"
import * as Entry from "./entry.ts"
import * as TokenMap from "./tokenMap.ts"

/** One for each store. All but the capacity changes. */
export interface Bound {
  readonly capacity: number
  /** The hand: a snapshot, and how far it was walked. The snapshot stays in memory until the hand is through with it. */
  snapshot: Iterator<TokenMap.Item>
  /** Sessions that had to go since the last report: active ones and expired ones. */
  active: number
  expired: number
  /** When a warning was last written. */
  warned: number
}

const sessionsEvicted = Metric.counter("sessions_evicted", {
  description: "Active sessions evicted to make room for new ones",
  incremental: true
})

/**
 * None if the capacity is `Infinity`. Dies with a `TypeError` that names store and value if it is not a positive integer
 * either.
 */
export const makeBound = (store: string, capacity: number): Effect.Effect<Bound | undefined> => {
  if (capacity === Number.POSITIVE_INFINITY) return Effect.undefined
  return Number.isSafeInteger(capacity) && capacity > 0
    ? Effect.succeed({ capacity, snapshot: [].values(), active: 0, expired: 0, warned: Number.NEGATIVE_INFINITY })
    : Effect.die(new TypeError(`${store}: the capacity is not a positive integer: ${Formatter.format(capacity)}`))
}

const sampleSize = 16

// If most sessions of a snapshot are gone, those left are the ones that live longest. Give it up and take a new one.
const mostDraws = 4 * sampleSize

/** In milliseconds. */
const warningInterval = 60_000

const soonestOf = (sample: ReadonlyArray<TokenMap.Item>): TokenMap.Item => {
  let soonest: TokenMap.Item = ["", ""]
  let least = Number.POSITIVE_INFINITY
  for (const item of sample) {
    const expiry = Entry.expiryOf(item[1])
    if (expiry <= least) {
      soonest = item
      least = expiry
    }
  }
  return soonest
}

/**
 * The session that has to go. There has to be one.
 *
 * Only what would go is looked up in the store as it is now: if it is gone, the hand draws another one; if it was written
 * since the snapshot, its new expiry counts.
 */
const choose = (self: Bound, sessions: TokenMap.TokenMap, hash: TokenMap.Hash): TokenMap.Item => {
  let sample: Array<TokenMap.Item> = []
  let isNew = false
  for (let draws = 0; ; ) {
    while (sample.length < sampleSize) {
      const next = self.snapshot.next()
      if (next.done !== true && (isNew || draws++ < mostDraws)) {
        sample.push(next.value)
      } else {
        if (isNew) break
        self.snapshot = HashMap.entries(sessions)
        isNew = true
      }
    }
    const soonest = soonestOf(sample)
    const current = TokenMap.get(sessions, hash, soonest[0])
    if (Option.isSome(current) && current.value === soonest[1]) return soonest
    sample = sample.filter((item) => item !== soonest)
    if (Option.isSome(current)) sample.push([soonest[0], current.value])
  }
}

/** The token of the session that has to go, which is counted. */
export const evict = (self: Bound, sessions: TokenMap.TokenMap, hash: TokenMap.Hash, now: number): string => {
  const [token, entry] = choose(self, sessions, hash)
  if (Entry.isActive(entry, now)) self.active++
  else self.expired++
  return token
}

/** Counts in the metrics what had to go, and warns if active sessions had to. */
export const report = (self: Bound): Effect.Effect<void> =>
  // In one step of the fiber: every new session of a flood comes by.
  Effect.withFiber((fiber) => {
    const { active, expired } = self
    self.active = 0
    self.expired = 0
    if (expired > 0) sessionsSwept.updateUnsafe(expired, fiber.context)
    if (active === 0) return Effect.void
    sessionsEvicted.updateUnsafe(active, fiber.context)
    const now = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
    if (now - self.warned < warningInterval) return Effect.void
    self.warned = now
    // A logger that throws must not fail the commit, which has been done.
    return Effect.catchDefect(
      Effect.logWarning(
        `The session store is full: it evicts active sessions so as to hold no more than ${self.capacity}`
      ),
      () => Effect.void
    )
  })
