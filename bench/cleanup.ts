/**
 * How much memory does a session take, and how long is the event loop blocked while expired ones are removed?
 *
 * Finds go on all the while, 64 at a time, and the next 64 as soon as the last were answered: a server under load.
 */
import { nextTurn, stallsDuring, timesOf } from "./eventLoop.ts"
import type { Figures } from "./results.ts"
import { batches, newToken, received, settle, textOf } from "./sessions.ts"
import type { NewSession, Peer, Store } from "./stores.ts"

const hour = 60 * 60 * 1000

/** Lets time pass for every store: all of them read it here. */
const advance = (millis: number): void => {
  const now = Date.now
  Date.now = () => now() + millis
}

const isExpiring = (index: number, expiredPercent: number): boolean => index % 100 < expiredPercent

const countExpiring = (sessions: number, expiredPercent: number): number => {
  let count = 0
  for (let i = 0; i < sessions; i++) if (isExpiring(i, expiredPercent)) count++
  return count
}

/** The session of a number, of whose kind so many in a hundred expire before the others. */
export const newSessionAt = (index: number, expiredPercent: number): NewSession => ({
  token: newToken(),
  text: textOf(index),
  lifetime: isExpiring(index, expiredPercent) ? hour : 24 * hour
})

/** Commits the given number of sessions, which only the store references. */
const fill = async (store: Store, sessions: number, expiredPercent: number): Promise<void> => {
  for (const { start, size } of batches(sessions)) {
    await store.commit(Array.from({ length: size }, (_, i) => newSessionAt(start + i, expiredPercent)))()
  }
}

/** Finds active sessions for as long as the work takes; answers how long each 64 of them had to wait. */
const findsDuring = async (store: Store, tokens: ReadonlyArray<string>, work: () => Promise<unknown>) => {
  const waits: Array<number> = []
  let ended = false
  const traffic = (async () => {
    while (!ended) {
      const asked = performance.now()
      await nextTurn()
      if ((await store.find(tokens)) !== tokens.length) throw new Error("An active session was not found")
      waits.push(performance.now() - asked)
    }
  })()
  await nextTurn()
  await work()
  ended = true
  await traffic
  return timesOf(waits)
}

export const measureSweep = async (
  store: Store,
  sweep: () => Promise<number>,
  sessions: number,
  expiredPercent: number,
  idleMillis: number
): Promise<Figures> => {
  const asked = Array.from({ length: 64 }, newToken)
  await store.commit(asked.map((token, i) => ({ token, text: textOf(i), lifetime: 24 * hour })))()
  const tokens = asked.map(received)
  await settle()

  let idleFinds = timesOf([])
  const idle = await stallsDuring(async () => {
    idleFinds = await findsDuring(store, tokens, () => new Promise((resolve) => setTimeout(resolve, idleMillis)))
  })

  advance(2 * hour)
  let millis = 0
  let left = 0
  let finds = timesOf([])
  const stalls = await stallsDuring(async () => {
    finds = await findsDuring(store, tokens, async () => {
      const begin = performance.now()
      left = await sweep()
      millis = performance.now() - begin
    })
  })
  const expected = sessions - countExpiring(sessions, expiredPercent) + asked.length
  if (left !== expected) throw new Error(`A sweep left ${left} sessions instead of ${expected}`)
  return {
    sweep: millis,
    sweepStall: stalls.longest,
    sweepStall99: stalls.p99,
    sweepFind99: finds.p99,
    idleStall: idle.longest,
    idleFind99: idleFinds.p99
  }
}

/** What the process takes, after so many collections of the garbage: the first leaves room that the second gives back. */
export const memory = async (times = 2) => {
  for (let i = 0; i < times; i++) await settle()
  const { heapUsed, external, rss } = process.memoryUsage()
  return { heap: heapUsed + external, rss }
}

export const measureCleanup = async (peer: Peer, sessions: number, expiredPercent: number): Promise<Figures> => {
  const before = await memory()
  const store = await peer.make(sessions)
  await fill(store, sessions, expiredPercent)
  const after = await memory()
  const sizes = {
    heap: (after.heap - before.heap) / sessions,
    resident: (after.rss - before.rss) / sessions
  }
  if (store.sweep === undefined) return sizes

  // What runs for the first time is slow; a small store goes first.
  const small = await peer.make(2_000)
  await fill(small, 2_000, expiredPercent)
  if (small.sweep !== undefined) await measureSweep(small, small.sweep, 2_000, expiredPercent, 200)

  const idleMillis = sessions < 10_000 ? 200 : 1_000
  return { ...sizes, ...(await measureSweep(store, store.sweep, sessions, expiredPercent, idleMillis)) }
}
