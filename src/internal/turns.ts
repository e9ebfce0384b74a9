/**
 * Turns: of all that one process wants to do to one session, one thing is under way at a time, in order.
 *
 * Without them, each of a thousand commits of one session would lose to the other 999 and try again: half a million
 * operations, and a store that serves nobody else. Whoever has had its turn leaves what it saw last, so that the next one
 * need not look for it.
 */
import { Effect, type Option } from "effect"
import type { SessionStoreError } from "../SessionStore.ts"
import { type Looks, makeLooks } from "./looks.ts"

/** Makes an effect as interruptible as the one around the turn. */
export type Restore = <B, E>(effect: Effect.Effect<B, E>) => Effect.Effect<B, E>

/** Those who wait for their turn at a session, in order, behind the one who has it. */
export interface Queue<Seen> {
  /** What was last seen in the store. It may be out of date. */
  seen: Seen | undefined
  isTaken: boolean
  readonly waiting: Array<() => void>
  /** The looks of those who open the session meanwhile. */
  readonly looks: Looks<Option.Option<string>, SessionStoreError>
  /** Run when nobody is left. */
  readonly close: () => void
}

export const makeQueue = <Seen>(close: () => void = () => {}): Queue<Seen> => ({
  seen: undefined,
  isTaken: false,
  waiting: [],
  looks: makeLooks(),
  close
})

/** The queues of one session class: one for each session that something is being done to, and for no other. */
export class Queues<Seen> {
  readonly #stores = new WeakMap<object, Map<string, Queue<Seen>>>()

  /** The queue of the session under a key in a store, if anything is being done to it. */
  peek(store: object, key: string): Queue<Seen> | undefined {
    return this.#stores.get(store)?.get(key)
  }

  /** The queue of the session under a key in a store. */
  get(store: object, key: string): Queue<Seen> {
    const known = this.peek(store, key)
    if (known !== undefined) return known
    const queues = this.#queuesOf(store)
    const queue = makeQueue<Seen>(() => queues.delete(key))
    queues.set(key, queue)
    return queue
  }

  #queuesOf(store: object): Map<string, Queue<Seen>> {
    const known = this.#stores.get(store)
    if (known !== undefined) return known
    const queues = new Map<string, Queue<Seen>>()
    this.#stores.set(store, queues)
    return queues
  }
}

const passOn = <Seen>(queue: Queue<Seen>): void => {
  const next = queue.waiting.shift()
  if (next !== undefined) {
    next()
    return
  }
  queue.isTaken = false
  queue.close()
}

/**
 * Runs when it is its turn, uninterruptible but for what `restore` is put around. Interrupted while it waits, it leaves
 * the queue at once; within another turn, `outer` is that turn's `restore`. Does not wait if so many wait already that
 * `refuse` says no. `after` is called when the turn is over.
 *
 * Not a `Semaphore`: most often nobody waits, and every request that changes something comes by here.
 */
export const takeTurn = <Seen, A, E>(
  queueOf: () => Queue<Seen>,
  refuse: (waiting: number) => Effect.Effect<never, E> | undefined,
  body: (queue: Queue<Seen>, restore: Restore) => Effect.Effect<A, E>,
  outer?: Restore,
  after?: () => void
): Effect.Effect<A, E> =>
  Effect.uninterruptibleMask((restore) => {
    const queue = queueOf()
    const turn = () =>
      Effect.onExitPrimitive(body(queue, restore), () => {
        passOn(queue)
        after?.()
        return undefined
      })
    if (!queue.isTaken) {
      queue.isTaken = true
      return turn()
    }
    const refused = refuse(queue.waiting.length)
    if (refused !== undefined) return refused
    let called: () => void = () => {}
    const wait = Effect.withFiber((fiber) =>
      Effect.callback<void>((resume) => {
        // By the scheduler: called in the end of the one before, a thousand turns would be a thousand calls deep.
        called = () => fiber.currentDispatcher.scheduleTask(() => resume(Effect.void), 0)
        queue.waiting.push(called)
      })
    )
    const leave = Effect.sync(() => {
      const place = queue.waiting.indexOf(called)
      // It may have been called in the moment in which it was interrupted.
      if (place < 0) passOn(queue)
      else queue.waiting.splice(place, 1)
    })
    return Effect.flatMap(
      Effect.onInterrupt((outer ?? restore)(wait), () => leave),
      turn
    )
  })
