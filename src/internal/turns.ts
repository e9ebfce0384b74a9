/**
 * Turns: of all that one process wants to do to one session, one thing is under way at a time, in order. It may take along
 * what those have to do who wait behind it.
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

/** Somebody who waits for a turn. */
interface Place<Along> {
  readonly call: () => void
  /** What another turn may do for whoever waits here. */
  readonly along: Along | undefined
  /** Whether that was done, so that no turn is needed any more. */
  isSettled: boolean
}

/** Those who wait for their turn at a session, in order, behind the one who has it. */
export interface Queue<Seen, Along> {
  /** What was last seen in the store. It may be out of date. */
  seen: Seen | undefined
  isTaken: boolean
  waiting: Array<Place<Along>>
  /** Those whose part is done by the turn that is under way, if it goes well. */
  along: Array<Place<Along>>
  /** The looks of those who open the session meanwhile. */
  readonly looks: Looks<Option.Option<string>, SessionStoreError>
  /** Run when nobody is left. */
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

/** The queues of one session class: one for each session that something is being done to, and for no other. */
export class Queues<Seen, Along> {
  readonly #stores = new WeakMap<object, Map<string, Queue<Seen, Along>>>()

  /** The queue of the session under a key in a store, if anything is being done to it. */
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

/** Takes those along who are next, in order, as long as `join` says yes. */
export const takeAlong = <Seen, Along>(queue: Queue<Seen, Along>, join: (along: Along) => boolean): void => {
  giveBack(queue)
  const end = queue.waiting.findIndex(({ along }) => along === undefined || !join(along))
  queue.along = queue.waiting.splice(0, end < 0 ? queue.waiting.length : end)
}

/** Has those who were taken along wait again, in the places that they had. */
export const giveBack = <Seen, Along>(queue: Queue<Seen, Along>): void => {
  if (queue.along.length === 0) return
  queue.waiting = [...queue.along, ...queue.waiting]
  queue.along = []
}

/** Lets those go who were taken along: their part is done. */
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
  // It may have been called in the moment in which it was interrupted.
  if (!place.isSettled) passOn(queue)
}

const remove = <B>(items: Array<B>, item: B): boolean => {
  const place = items.indexOf(item)
  if (place >= 0) items.splice(place, 1)
  return place >= 0
}

interface TurnOptions<Along, A> {
  /** Within another turn: that turn's `restore`. */
  readonly outer?: Restore | undefined
  /** Called when the turn is over. */
  readonly after?: (() => void) | undefined
  /** What another turn may do for this one, made if it has to wait, and what is left to do then. */
  readonly along?: { readonly make: () => Along; readonly settled: (along: Along) => Effect.Effect<A> } | undefined
}

/**
 * Runs when it is its turn, uninterruptible but for what `restore` is put around. Interrupted while it waits, it leaves
 * the queue at once. Does not wait if so many wait already that `refuse` says no.
 *
 * Not a `Semaphore`: most often nobody waits, and every request that changes something comes by here.
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
    // By the scheduler: called in the end of the one before, a thousand turns would be a thousand calls deep.
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
