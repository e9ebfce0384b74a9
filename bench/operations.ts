/** How long does each operation take, in a store that holds so many sessions? */
import { stallsDuring } from "./eventLoop.ts"
import type { Figures } from "./results.ts"
import { batches, newToken, received, settle, shuffled, textOf } from "./sessions.ts"
import type { NewSession, Peer, Store } from "./stores.ts"

const lifetime = 24 * 60 * 60 * 1000

/** Makes each batch, then runs it against the clock; answers nanoseconds an operation. */
export const nanosEach = async (
  count: number,
  make: (start: number, size: number) => () => unknown
): Promise<number> => {
  let millis = 0
  for (const { start, size } of batches(count)) {
    const run = make(start, size)
    const begin = performance.now()
    await run()
    millis += performance.now() - begin
  }
  return (millis / count) * 1e6
}

export const assertCount = (what: string, actual: number, expected: number): void => {
  if (actual !== expected) throw new Error(`${what} ${actual} sessions instead of ${expected}`)
}

const measureStore = async (peer: Peer, sessions: number): Promise<Figures> => {
  const tokens = Array.from({ length: sessions }, newToken)
  const versions = new Uint32Array(sessions)
  const order = shuffled(sessions)
  // A small store is walked several times, so there is something to measure.
  const count = Math.min(100_000, sessions * 20)

  const indices = (start: number, size: number): Array<number> =>
    Array.from({ length: size }, (_, i) => order[(start + i) % sessions] ?? 0)

  const tokenAt = (index: number): string => received(tokens[index] ?? "")

  /** A new text for a session, with the one that it has. */
  const change = (index: number): NewSession & { readonly expected: string } => {
    const version = (versions[index] ?? 0) + 1
    versions[index] = version
    return { token: tokenAt(index), expected: textOf(index + version - 1), text: textOf(index + version), lifetime }
  }

  const fill = async (store: Store): Promise<number> =>
    nanosEach(sessions, (start, size) =>
      store.commit(
        Array.from({ length: size }, (_, i) => ({
          token: tokens[start + i] ?? "",
          text: textOf(start + i),
          lifetime
        }))
      )
    )

  await settle()
  let commit = 0
  const fills = Math.ceil(count / sessions)
  for (let i = 1; i < fills; i++) commit += await fill(await peer.make(sessions))
  const store = await peer.make(sessions)
  commit = (commit + (await fill(store))) / fills

  await settle()
  const find = await nanosEach(count, (start, size) => {
    const asked = indices(start, size).map(tokenAt)
    return async () => assertCount("found", await store.find(asked), size)
  })

  await settle()
  const miss = await nanosEach(count, (_, size) => {
    const asked = Array.from({ length: size }, newToken)
    return async () => assertCount("found", await store.find(asked), 0)
  })

  await settle()
  const overwrite = await nanosEach(count, (start, size) => store.commit(indices(start, size).map(change)))

  await settle()
  const { all, replace } = store
  const replaced =
    replace &&
    (await nanosEach(count, (start, size) => {
      const run = replace(indices(start, size).map(change))
      return async () => assertCount("replaced", await run(), size)
    }))

  let allMillis: number | undefined
  let allStall: number | undefined
  if (all !== undefined) {
    await settle()
    const stalls = await stallsDuring(async () => {
      const begin = performance.now()
      assertCount("all returned", await all(), sessions)
      allMillis = performance.now() - begin
    })
    allStall = stalls.longest
  }

  await settle()
  const deleted = await nanosEach(Math.min(count, sessions), (start, size) => {
    const asked = indices(start, size).map(tokenAt)
    return () => store.delete(asked)
  })

  return { commit, overwrite, find, miss, replace: replaced, delete: deleted, all: allMillis, allStall }
}

export const measureOperations = async (peer: Peer, sessions: number): Promise<Figures> => {
  // What runs for the first time is slow; a small store goes first.
  await measureStore(peer, Math.min(sessions, 1_000))
  return measureStore(peer, sessions)
}
