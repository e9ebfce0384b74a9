/**
 * Turns: of all that one process wants to do to one session, one thing is under way at a time, in order.
 *
 * Without them, each of a thousand commits of one session would lose to the other 999 and try again: half a million
 * operations, and a store that serves nobody else. Whoever has had its turn leaves what it saw last, so that the next one
 * need not look for it.
 */
import { Effect, Semaphore } from "effect"

/** A turn at one session. */
export interface Turn<Seen> {
  /** What the one before saw last in the store. It may be out of date. */
  seen: Seen | undefined
}

interface Queue<Seen> extends Turn<Seen> {
  readonly semaphore: Semaphore.Semaphore
  /** How many have their turn or wait for it. The queue is kept only while there are any. */
  length: number
}

export interface Turns<Seen> {
  /** Runs when it is its turn at the session under this key in this store. Interrupted, it leaves the queue at once. */
  readonly take: <A, E>(
    store: object,
    key: string,
    body: (turn: Turn<Seen>) => Effect.Effect<A, E>
  ) => Effect.Effect<A, E>
  /** How many have their turn at a session or wait for it. */
  readonly length: (store: object, key: string) => number
}

export const makeTurns = <Seen>(): Turns<Seen> => {
  const stores = new WeakMap<object, Map<string, Queue<Seen>>>()

  const queuesOf = (store: object): Map<string, Queue<Seen>> => {
    const known = stores.get(store)
    if (known !== undefined) return known
    const queues = new Map<string, Queue<Seen>>()
    stores.set(store, queues)
    return queues
  }

  return {
    length: (store, key) => stores.get(store)?.get(key)?.length ?? 0,
    take: (store, key, body) =>
      Effect.uninterruptibleMask((restore) => {
        const queues = queuesOf(store)
        const queue = queues.get(key) ?? { semaphore: Semaphore.makeUnsafe(1), length: 0, seen: undefined }
        queues.set(key, queue)
        queue.length++
        return Effect.ensuring(
          restore(queue.semaphore.withPermit(Effect.suspend(() => body(queue)))),
          Effect.sync(() => {
            if (--queue.length === 0) queues.delete(key)
          })
        )
      })
  }
}
