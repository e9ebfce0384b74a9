/**
 * The limit on the sessions of a store in memory: which session is evicted when the store is full, and how that is
 * reported.
 *
 * A hand walks a snapshot of the store, and takes a new snapshot when it reaches the end. Each eviction draws a few
 * sessions from the hand. Of all sessions drawn, the sixteen that expire soonest stay candidates, and the first of them
 * is evicted, so an expired one if there is one. This needs no second index, and takes the same time however many
 * sessions there are. The order of hashes is unrelated to time, so a few sessions in a row are as good a sample as a
 * few at random.
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

/** The eviction state of one store. Everything but the capacity changes. */
export interface Bound {
  readonly capacity: number
  /**
   * The hand: a snapshot, and how far it has been walked. The snapshot stays in memory until the hand reaches its end.
   */
  hand: Iterator<TokenMap.Item>
  /** The drawn sessions that expire soonest, the soonest last. */
  candidates: Array<Candidate>
  /** Evicted since the last report: active sessions and expired ones. */
  active: number
  expired: number
  /** When the last warning was logged. */
  warned: number
}

const sessionsEvicted = Metric.counter("sessions_evicted", {
  description: "Active sessions evicted to make room for new ones",
  incremental: true
})

/**
 * `undefined` if the capacity is `Infinity`. If it is not a positive integer either, dies with a `TypeError` that names
 * the store and the value.
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

/** How many sessions an eviction draws at least. It draws more until there are sixteen candidates. */
const fewDraws = 4

// If most sessions of a snapshot are gone, as after a sweep, take a new snapshot.
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
 * The session to evict. The store must not be empty.
 *
 * Only the first candidate is looked up in the current store. If it is gone, the next candidate takes its place. If it
 * was written since the snapshot, its new expiry counts.
 */
const choose = (self: Bound, sessions: TokenMap.TokenMap, hash: TokenMap.Hash): Candidate => {
  const { candidates } = self
  for (let draws = Math.max(fewDraws, mostCandidates - candidates.length); draws > 0; draws--) draw(self, sessions)
  for (let misses = 0; ; misses++) {
    if (misses === mostMisses) self.hand = HashMap.entries(sessions)
    const soonest = candidates.pop()
    const current = soonest && Option.getOrUndefined(TokenMap.get(sessions, hash, soonest.token))
    if (soonest === undefined || current === undefined) draw(self, sessions)
    else if (current === soonest.entry) return soonest
    else consider(self, soonest.token, current)
  }
}

/** Chooses the session to evict, counts it, and returns its token. */
export const evict = (self: Bound, sessions: TokenMap.TokenMap, hash: TokenMap.Hash, now: number): string => {
  const { entry, token } = choose(self, sessions, hash)
  if (Entry.isActive(entry, now)) self.active++
  else self.expired++
  return token
}

/** Counts the evicted sessions in the metrics, and warns if any were active. */
export const report = (self: Bound): Effect.Effect<void> =>
  // In one step of the fiber, because every new session of a flood runs it.
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
    // A logger that throws must not fail the commit, which has already happened.
    return Effect.catchDefect(
      Effect.logWarning(
        `The session store is full: it evicts active sessions so as to hold no more than ${self.capacity}`
      ),
      () => Effect.void
    )
  })
