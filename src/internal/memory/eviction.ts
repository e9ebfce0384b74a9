/**
 * The bound on a store in memory: which session goes when a new one is one too many, and who hears of it.
 *
 * A hand walks a snapshot of the store, and takes a new snapshot when it is through. Each eviction has it draw a few
 * sessions; of all that were drawn, the sixteen that expire soonest stay candidates, and the first of them goes, so an
 * expired one first. That needs no second index, and takes the same time however many sessions there are. The order of
 * hashes has nothing to do with time, so a few in a row are as good a sample as a few at random.
 */
import { Clock, Effect, Formatter, HashMap, Metric, Option } from "effect"
import { sessionsSwept } from "../cleanup.ts"
import * as Entry from "./entry.ts"
import * as TokenMap from "./tokenMap.ts"

/** A session as it was in the snapshot. */
interface Candidate {
  readonly token: string
  readonly entry: Entry.Entry
  readonly expiry: number
}

/** One for each store. All but the capacity changes. */
export interface Bound {
  readonly capacity: number
  /** The hand: a snapshot, and how far it was walked. The snapshot stays in memory until the hand is through with it. */
  hand: Iterator<TokenMap.Item>
  /** Those drawn that expire soonest, the soonest last. */
  candidates: Array<Candidate>
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
    ? Effect.succeed({
        capacity,
        hand: [].values(),
        candidates: [],
        active: 0,
        expired: 0,
        warned: Number.NEGATIVE_INFINITY
      })
    : Effect.die(new TypeError(`${store}: the capacity is not a positive integer: ${Formatter.format(capacity)}`))
}

const mostCandidates = 16

/** How many each eviction draws, once there are candidates. */
const fewDraws = 4

// If most sessions of a snapshot are gone, as after a sweep, give it up and take a new one.
const mostMisses = 64

/** In milliseconds. */
const warningInterval = 60_000

const consider = ({ candidates }: Bound, token: string, entry: Entry.Entry): void => {
  const expiry = Entry.expiryOf(entry)
  const before = candidates.findLastIndex((candidate) => candidate.expiry >= expiry)
  candidates.splice(before + 1, 0, { token, entry, expiry })
  if (candidates.length > mostCandidates) candidates.shift()
}

const draw = (self: Bound, sessions: TokenMap.TokenMap): void => {
  let next = self.hand.next()
  if (next.done === true) {
    self.hand = HashMap.entries(sessions)
    next = self.hand.next()
  }
  if (next.done !== true) consider(self, ...next.value)
}

/**
 * The session that has to go. There has to be one.
 *
 * Only what would go is looked up in the store as it is now: if it is gone, the next candidate takes its place; if it was
 * written since the snapshot, its new expiry counts.
 */
const choose = (self: Bound, sessions: TokenMap.TokenMap, hash: TokenMap.Hash): Candidate => {
  const { candidates } = self
  for (let draws = Math.max(fewDraws, mostCandidates - candidates.length); draws > 0; draws--) draw(self, sessions)
  for (let misses = 0; ; misses++) {
    if (misses === mostMisses) self.hand = HashMap.entries(sessions)
    const soonest = candidates.pop()
    if (soonest === undefined) {
      draw(self, sessions)
      continue
    }
    const current = TokenMap.get(sessions, hash, soonest.token)
    if (Option.isNone(current)) draw(self, sessions)
    else if (current.value === soonest.entry) return soonest
    else consider(self, soonest.token, current.value)
  }
}

/** The token of the session that has to go, which is counted. */
export const evict = (self: Bound, sessions: TokenMap.TokenMap, hash: TokenMap.Hash, now: number): string => {
  const { entry, token } = choose(self, sessions, hash)
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
