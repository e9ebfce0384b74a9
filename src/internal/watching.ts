/**
 * `ended`: how code that holds a session for longer than a request finds out that it has ended, on any server.
 *
 * It waits for the current key of the session. If the session renews its token by its own commit, it continues with the
 * new key.
 */
import { Context, Effect, Queue, Stream } from "effect"
import { type SessionEvent, SessionEvents } from "../SessionEvents.ts"
import type { SessionStoreError } from "../SessionStore.ts"
import type { Cell } from "./cell.ts"
import type { Found, Records, Store } from "./records.ts"
import type { Ended, Stored } from "./state.ts"
import { type Ending, type Look, movingTime, type Over, type Verdict } from "./watches.ts"

/** Waits until the session has ended, and returns how. */
export const ended = <A>(cell: Cell<A>): Effect.Effect<Ending, SessionStoreError> =>
  Effect.suspend(() => {
    const { state } = cell
    switch (state._tag) {
      case "New":
        return state.isDestroyed ? Effect.succeed("destroyed") : Effect.andThen(untilChanged(cell), ended(cell))
      case "Ended":
        return howItEnded(cell, state)
      case "Stored":
        return Effect.flatMap(untilOver(cell, state), (over) => {
          if (over === undefined) return ended(cell)
          return isOwnRenewal(cell, over)
            ? Effect.andThen(untilRenewed(cell), ended(cell))
            : Effect.succeed(over.ending)
        })
    }
  })

/** Call this after every operation on a session, for those that wait for it to end. */
export const tellOfChange = <A>({ listeners }: Cell<A>): void => {
  if (listeners === undefined) return
  for (const listener of [...listeners]) listener()
}

const listen = <A>(cell: Cell<A>, listener: () => void): (() => void) => {
  cell.listeners ??= new Set()
  const { listeners } = cell
  listeners.add(listener)
  return () => {
    listeners.delete(listener)
  }
}

const untilChanged = <A>(cell: Cell<A>): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const stop = listen(cell, () => {
      stop()
      resume(Effect.void)
    })
    return Effect.sync(stop)
  })

/** Whether the waiting session itself makes this renewal. */
const isOwnRenewal = <A>({ state }: Cell<A>, { successor }: Over): boolean =>
  successor !== undefined && state._tag === "Stored" && (state.key === successor || state.renewal?.key === successor)

/**
 * Waits for the commit of a renewal. If the commit failed, it may never be retried, so after a while this asks the
 * store again.
 */
const untilRenewed = <A>(cell: Cell<A>): Effect.Effect<void> =>
  cell.state._tag === "Stored" && cell.state.renewal !== undefined
    ? Effect.asVoid(Effect.timeoutOption(untilChanged(cell), movingTime))
    : Effect.void

/** Waits until the session under the key of a cell is over. `undefined` if the cell then has another key, or none. */
const untilOver = <A>(cell: Cell<A>, { base, key }: Stored<A>): Effect.Effect<Over | undefined, SessionStoreError> =>
  Effect.contextWith((context: Context.Context<never>) =>
    Effect.callback((resume) => {
      const { records, store } = cell
      const bus = Context.get(context, SessionEvents)
      const { recheckInterval } = records
      const hub = records.hubs.get(store, bus, () => ({
        recheckInterval,
        look: makeLook(records, store),
        bus,
        context
      }))
      const forget = listen(cell, () => {
        if (cell.state._tag === "Stored" && cell.state.key === key) return
        leave()
        forget()
        resume(Effect.undefined)
      })
      const leave = hub.join(key, records.endOf(base), (exit) => {
        forget()
        resume(exit)
      })
      return Effect.sync(() => {
        leave()
        forget()
      })
    })
  )

/** For a session that is known to have ended. As long as its tombstone exists, it says how. */
const howItEnded = <A>(
  { records, store }: Cell<A>,
  { contents, key }: Ended<A>
): Effect.Effect<Ending, SessionStoreError> =>
  Effect.clockWith((clock) => {
    const byItself = (): Ending => (clock.currentTimeMillisUnsafe() > records.endOf(contents) ? "expired" : "destroyed")
    if (key === undefined) return Effect.sync(byItself)
    return Effect.map(find(records, store, key), (found): Ending => {
      if (found._tag === "Nothing") return byItself()
      return found._tag === "Tombstone" && !found.isSealed ? "renewed" : "destroyed"
    })
  })

const find = <A>(records: Records<A>, store: Store, key: string): Effect.Effect<Found<A>, SessionStoreError> =>
  Effect.flatMap(store.find(key), (held) => records.inspect(held))

const makeLook =
  <A>(records: Records<A>, store: Store): Look =>
  (key, last) =>
    Effect.clockWith((clock) =>
      Effect.flatMap(store.find(key), (held) => {
        const now = clock.currentTimeMillisUnsafe()
        const isAsBefore = held._tag === "Some" && last._tag === "Alive" && held.value === last.text && now <= last.end
        // Do not decode the same text again.
        if (isAsBefore) return Effect.succeed(last)
        return Effect.flatMap(records.inspect(held), (found) => judge(records, store, found, last, now))
      })
    )

const over = (ending: Ending): Over => ({ _tag: "Over", ending })

const judge = <A>(
  records: Records<A>,
  store: Store,
  found: Found<A>,
  last: Exclude<Verdict, Over>,
  now: number
): Effect.Effect<Verdict, SessionStoreError> => {
  switch (found._tag) {
    case "Nothing":
      return Effect.succeed(over(now > last.end ? "expired" : "destroyed"))
    case "Session": {
      // A store whose clock is behind may still hold an expired session.
      const end = records.endOf(found.contents)
      return Effect.succeed(now > end ? over("expired") : { _tag: "Alive", text: found.text, end })
    }
    case "Undecodable":
      // Another deployment wrote it, and for that deployment it is alive.
      return Effect.succeed({ _tag: "Alive", text: found.text, end: last.end })
    case "Tombstone":
      if (found.isSealed) return Effect.succeed(over("destroyed"))
      // It is held for a merge, which may be cancelled.
      if (found.held !== undefined) return Effect.succeed({ _tag: "Alive", text: found.text, end: last.end })
      if (found.successor === undefined) return Effect.succeed(over("destroyed"))
      return judgeMove(records, store, found.successor, last, now)
  }
}

/**
 * A renewal is complete when the new session is there. Until then it may be cancelled, and the old session put back.
 */
const judgeMove = <A>(
  records: Records<A>,
  store: Store,
  successor: string,
  last: Exclude<Verdict, Over>,
  now: number
): Effect.Effect<Verdict, SessionStoreError> =>
  Effect.map(find(records, store, successor), (next): Verdict => {
    const isPending = next._tag === "Session" && next.isPending
    if (next._tag === "Tombstone" && next.successor === undefined) return over("destroyed")
    if (next._tag !== "Nothing" && !isPending) return { _tag: "Over", ending: "renewed", successor }
    const since = last._tag === "Moving" ? last.since : now
    // It was renewed and then ended, unless something puts it back.
    return !isPending && now - since >= movingTime ? over("destroyed") : { _tag: "Moving", since, end: last.end }
  })

/** How many events wait for a slow consumer. */
const bufferSize = 1_000

/** What happens to the sessions of a class from now on. */
export const eventsOf = (session: string): Stream.Stream<SessionEvent> =>
  Stream.callback<SessionEvent>(
    (queue) =>
      Effect.gen(function* () {
        const bus = yield* SessionEvents
        yield* Effect.acquireRelease(
          Effect.sync(() =>
            bus.listen((event) => {
              if (event.session === session) Queue.offerUnsafe(queue, event)
            })
          ),
          (stop) => Effect.sync(stop)
        )
      }),
    { bufferSize, strategy: "sliding" }
  )
