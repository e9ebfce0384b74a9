/**
 * `npm run bench:evictions`: a flood of a million visitors into a store with room for ten thousand, a thousand of which
 * are sessions that live a hundred times as long. Prints how many of those are left, and what an eviction costs: the
 * processor time of a commit that evicts, less that of one into a store of the same size that has room.
 */
import { DateTime, Effect, HashMap } from "effect"
import { MemStore } from "effect-sessions"
import { batches, newToken, textOf } from "./sessions.ts"

const visitors = Number(process.argv[2] ?? 1_000_000)
const capacity = Number(process.argv[3] ?? 10_000)
const long = capacity / 10
const hour = 60 * 60 * 1000

const median = (numbers: ReadonlyArray<number>) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? Number.NaN

/** Nanoseconds of processor time an item. */
const nanosEach = <A>(items: ReadonlyArray<A>, effect: (item: A) => Effect.Effect<unknown>) =>
  Effect.gen(function* () {
    const before = process.cpuUsage()
    for (const item of items) yield* effect(item)
    const { user, system } = process.cpuUsage(before)
    return ((user + system) * 1000) / items.length
  })

const commit = (store: MemStore["Service"]) => (session: { token: string; text: string; expiry: DateTime.DateTime }) =>
  store.commit(session.token, session.text, session.expiry)

const makeSession = (index: number, lifetime: number) => ({
  token: newToken(),
  text: textOf(index),
  expiry: DateTime.makeUnsafe(Date.now() + lifetime)
})

const flood = Effect.fnUntraced(function* (full: MemStore["Service"], roomy: MemStore["Service"]) {
  const longSessions = Array.from({ length: long }, (_, i) => makeSession(i, 100 * hour))
  const first = Array.from({ length: capacity - long }, (_, i) => makeSession(i, hour))
  for (const store of [full, roomy]) {
    for (const session of [...longSessions, ...first]) yield* commit(store)(session)
  }
  const times: { readonly full: Array<number>; readonly roomy: Array<number> } = { full: [], roomy: [] }
  for (const { start, size } of batches(visitors)) {
    const sessions = Array.from({ length: size }, (_, i) => makeSession(start + i, hour))
    times.full.push(yield* nanosEach(sessions, commit(full)))
    times.roomy.push(yield* nanosEach(sessions, commit(roomy)))
    for (const { token } of sessions) yield* roomy.delete(token)
    if ((yield* full.size) !== capacity) throw new Error("The store does not hold as much as its capacity")
  }
  const all = yield* full.all
  console.log(
    `${visitors} visitors into ${capacity} places: of ${long} sessions with a long life, ` +
      `${longSessions.filter(({ token }) => HashMap.has(all, token)).length} are left`
  )
  const [evicting, adding] = [median(times.full), median(times.roomy)]
  console.log(
    `a commit that evicts takes ${evicting.toFixed(0)} ns, one that does not ${adding.toFixed(0)} ns, ` +
      `so an eviction ${(evicting - adding).toFixed(0)} ns`
  )
})

const storeWith = (capacity: number) =>
  Effect.provide(
    Effect.map(MemStore, (store) => store),
    MemStore.layerWith({ capacity, cleanupInterval: 0 })
  )

await Effect.runPromise(
  Effect.flatMap(Effect.all([storeWith(capacity), storeWith(Number.POSITIVE_INFINITY)]), ([full, roomy]) =>
    flood(full, roomy)
  )
)
