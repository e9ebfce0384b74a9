/**
 * Turns: operations of one process on one session run one at a time, in order. An operation may also do the work of
 * those that wait behind it.
 *
 * Without turns, each of a thousand commits of one session would lose to the other 999 and retry: half a million
 * operations, and a store that is too busy for anything else. Each turn leaves what it saw last, so the next turn need
 * not look it up.
 */
import { Effect, type Option } from "effect"
import type { SessionStoreError } from "../SessionStore.ts"
import { type Looks, makeLooks } from "./looks.ts"

/** Makes an effect as interruptible as the code around the turn. */
export type Restore = <B, E>(effect: Effect.Effect<B, E>) => Effect.Effect<B, E>

/** A place in the queue. */
interface Place<Along> {
  readonly call: () => void
  /** What another turn may do for this one. */
  readonly along: Along | undefined
  /** Whether that was done, so no turn is needed any more. */
  isSettled: boolean
}

/** The operations that wait for their turn at a session, in order, behind the running one. */
export interface Queue<Seen, Along> {
  /** What was last seen in the store. It may be outdated. */
  seen: Seen | undefined
  isTaken: boolean
  waiting: Array<Place<Along>>
  /** The places whose work the running turn does, if it succeeds. */
  along: Array<Place<Along>>
  /** The look-ups of requests that open the session in the meantime. */
  readonly looks: Looks<Option.Option<string>, SessionStoreError>
  /** Called when the queue is empty. */
  readonly close: () => void
}

export const makeQueue = <Seen, Along>(close: () => void = () => {}): Queue<Seen, Along> => ({
  seen: undefined,
  isTaken: false,
  waiting: [],
  along: [],
  looks: makeLooks(),
  close
})

/** The queues of one session class: one for each session that is being changed. */
export class Queues<Seen, Along> {
  readonly #stores = new WeakMap<object, Map<string, Queue<Seen, Along>>>()

  /** The queue of the session under a key in a store, if it is being changed. */
  peek(store: object, key: string): Queue<Seen, Along> | undefined {
    return this.#stores.get(store)?.get(key)
  }

  /** The queue of the session under a key in a store. */
  get(store: object, key: string): Queue<Seen, Along> {
    const known = this.peek(store, key)
    if (known !== undefined) return known
    const queues = this.#queuesOf(store)
    const queue = makeQueue<Seen, Along>(() => queues.delete(key))
    queues.set(key, queue)
    return queue
  }

  #queuesOf(store: object): Map<string, Queue<Seen, Along>> {
    const known = this.#stores.get(store)
    if (known !== undefined) return known
    const queues = new Map<string, Queue<Seen, Along>>()
    this.#stores.set(store, queues)
    return queues
  }
}

/** Includes the next places in the running turn, in order, as long as `join` returns `true`. */
export const takeAlong = <Seen, Along>(queue: Queue<Seen, Along>, join: (along: Along) => boolean): void => {
  giveBack(queue)
  const end = queue.waiting.findIndex(({ along }) => along === undefined || !join(along))
  queue.along = queue.waiting.splice(0, end < 0 ? queue.waiting.length : end)
}

/** Puts the included places back in the queue, where they were. */
export const giveBack = <Seen, Along>(queue: Queue<Seen, Along>): void => {
  if (queue.along.length === 0) return
  queue.waiting = [...queue.along, ...queue.waiting]
  queue.along = []
}

/** Resumes the included places: their work is done. */
export const settle = <Seen, Along>(queue: Queue<Seen, Along>, tell: (along: Along) => void): void => {
  for (const place of queue.along) {
    if (place.along !== undefined) tell(place.along)
    place.isSettled = true
    place.call()
  }
  queue.along = []
}

const passOn = <Seen, Along>(queue: Queue<Seen, Along>): void => {
  giveBack(queue)
  const next = queue.waiting.shift()
  if (next !== undefined) {
    next.call()
    return
  }
  queue.isTaken = false
  queue.close()
}

const leave = <Seen, Along>(queue: Queue<Seen, Along>, place: Place<Along>): void => {
  if (remove(queue.waiting, place) || remove(queue.along, place)) return
  // It may have been called at the moment it was interrupted.
  if (!place.isSettled) passOn(queue)
}

const remove = <B>(items: Array<B>, item: B): boolean => {
  const place = items.indexOf(item)
  if (place >= 0) items.splice(place, 1)
  return place >= 0
}

interface TurnOptions<Along, A> {
  /** The `restore` of the outer turn, if there is one. */
  readonly outer?: Restore | undefined
  /** Called when the turn is over. */
  readonly after?: (() => void) | undefined
  /** What another turn may do for this one, made only if this one has to wait, and what is left to do afterwards. */
  readonly along?: { readonly make: () => Along; readonly settled: (along: Along) => Effect.Effect<A> } | undefined
}

/**
 * Runs the body when its turn comes, uninterruptible except for what is wrapped in `restore`. If it is interrupted
 * while it waits, it leaves the queue immediately. If too many wait already, it fails with the result of `refuse`
 * instead.
 *
 * Not a `Semaphore`: usually nothing waits, and every request that changes something runs this.
 */
export const takeTurn = <Seen, Along, A, E>(
  queueOf: () => Queue<Seen, Along>,
  refuse: (waiting: number) => Effect.Effect<never, E> | undefined,
  body: (queue: Queue<Seen, Along>, restore: Restore) => Effect.Effect<A, E>,
  { after, along, outer }: TurnOptions<Along, A> = {}
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
    const refused = refuse(queue.waiting.length + queue.along.length)
    if (refused !== undefined) return refused
    return Effect.flatMap(waitIn(queue, outer ?? restore, along?.make()), (place) => {
      if (!place.isSettled || along === undefined || place.along === undefined) return turn()
      after?.()
      return along.settled(place.along)
    })
  })

const waitIn = <Seen, Along>(
  queue: Queue<Seen, Along>,
  restore: Restore,
  along: Along | undefined
): Effect.Effect<Place<Along>> =>
  Effect.withFiber((fiber) => {
    let resume: (effect: Effect.Effect<void>) => void = () => {}
    // By the scheduler. If each turn called the next one directly, a thousand turns would be a thousand calls deep.
    const call = () => fiber.currentDispatcher.scheduleTask(() => resume(Effect.void), 0)
    const place: Place<Along> = { call, along, isSettled: false }
    const called = Effect.callback<void>((callback) => {
      resume = callback
      queue.waiting.push(place)
    })
    return Effect.as(
      Effect.onInterrupt(restore(called), () => Effect.sync(() => leave(queue, place))),
      place
    )
  })
