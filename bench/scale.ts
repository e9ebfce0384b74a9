/** What does a store of millions take of memory and time? It is filled once; a sample of the sessions is looked up. */
import { measureSweep, memory, newSessionAt } from "./cleanup.ts"
import { assertCount, nanosEach } from "./operations.ts"
import type { Figures } from "./results.ts"
import { received, shuffled, textOf } from "./sessions.ts"
import type { NewSession, Peer } from "./stores.ts"

const expiredPercent = 50
const sampleSize = 50_000

/** Heap per session: the measured size, plus half of it for the collector. */
const bytesEach = 1_100

/** How much memory a process may need that holds so many sessions. */
export const mebibytesFor = (sessions: number): number => Math.ceil((sessions * bytesEach) / 2 ** 20)

/** A sample of the sessions that do not expire, of the same size for every size of the store. */
const isSampled = (index: number, sessions: number): boolean => {
  const active = (index % 100) - expiredPercent
  const nth = Math.floor(index / 100) * (100 - expiredPercent) + active
  return active >= 0 && nth % Math.max(1, Math.floor(sessions / 2 / sampleSize)) === 0
}

const measureStore = async (peer: Peer, sessions: number, idleMillis: number): Promise<Figures> => {
  const before = await memory()
  const store = await peer.make(sessions)
  const sample: Array<NewSession> = []
  const commitRange = (from: number, to: number): Promise<number> =>
    nanosEach(to - from, (start, size) => {
      const batch: Array<NewSession> = []
      for (let i = from + start; i < from + start + size; i++) {
        const session = newSessionAt(i, expiredPercent)
        batch.push(session)
        if (isSampled(i, sessions)) sample.push(session)
      }
      return store.commit(batch)
    })

  const last = Math.min(sampleSize, Math.ceil(sessions / 10))
  await commitRange(0, sessions - last)
  const commit = await commitRange(sessions - last, sessions)
  // Of the sample, the tokens alone are kept here.
  const tokens = sample.map(({ token }) => received(token))
  sample.length = 0

  // Once: of millions, a collection takes seconds.
  const after = await memory(1)
  const order = shuffled(tokens.length)
  const sampled = (start: number, size: number): Array<string> =>
    Array.from({ length: size }, (_, i) => received(tokens[order[start + i] ?? 0] ?? ""))
  const find = await nanosEach(tokens.length, (start, size) => {
    const asked = sampled(start, size)
    return async () => assertCount("found", await store.find(asked), size)
  })
  const overwrite = await nanosEach(tokens.length, (start, size) =>
    store.commit(
      sampled(start, size).map((token, i) => ({ token, text: textOf(start + i), lifetime: 24 * 60 * 60 * 1000 }))
    )
  )
  return {
    commit,
    find,
    overwrite,
    heap: (after.heap - before.heap) / sessions,
    resident: (after.rss - before.rss) / sessions,
    ...(store.sweep && (await measureSweep(store, store.sweep, sessions, expiredPercent, idleMillis)))
  }
}

export const measureScale = async (peer: Peer, sessions: number): Promise<Figures> => {
  // What runs for the first time is slow; a small store goes first.
  await measureStore(peer, Math.min(sessions, 50_000), 200)
  return measureStore(peer, sessions, sessions < 10_000 ? 200 : 1_000)
}
