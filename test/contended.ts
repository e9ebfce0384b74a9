/**
 * One session that many requests change at the same time: a counter, a store that counts its operations, and the load.
 */
import { Clock, Effect, Option, type Redacted, Schema } from "effect"
import { Session, SessionStore, type SessionStoreError } from "effect-sessions"

export class Counter extends Session.Service<Counter>()("test/Counter", { schema: Schema.Int, initial: () => 0 }) {}

/** Counts the operations of a store that sessions use. */
export const countOperations = (store: SessionStore["Service"]) => {
  const counted = { operations: 0 }
  const count =
    <Args extends ReadonlyArray<unknown>, A>(operation: (...args: Args) => Effect.Effect<A, SessionStoreError>) =>
    (...args: Args) =>
      Effect.suspend(() => {
        counted.operations++
        return operation(...args)
      })
  return Object.assign(counted, {
    store: SessionStore.of({
      ...store,
      find: count(store.find),
      create: count(store.create),
      commit: count(store.commit),
      replace: count(store.replace),
      delete: count(store.delete)
    })
  })
}

/** The token of a new session in the store. */
export const newCounter = Effect.gen(function* () {
  const session = yield* Counter.open()
  yield* session.update(() => 1)
  yield* session.commit
  yield* session.update(() => 0)
  yield* session.commit
  return Option.getOrThrow(yield* session.token)
})

export const numberIn = (token: Redacted.Redacted<string>) => Effect.flatMap(Counter.open(token), ({ get }) => get)

/** Opens a session and adds one to it, to be committed. */
export const changed = Effect.fnUntraced(function* (token: Redacted.Redacted<string>) {
  const session = yield* Counter.open(token)
  yield* session.update((n) => n + 1)
  return session
})

/** Opens a session `count` times, changes each, and then commits them all at the same time. */
export const commitAtOnce = Effect.fnUntraced(function* (
  token: Redacted.Redacted<string>,
  count: number,
  onConfirmed: (place: number) => void = () => {}
) {
  const sessions = yield* Effect.replicateEffect(changed(token), count, { concurrency: 10 })
  return Effect.forEach(sessions, (session, place) => Effect.map(session.commit, () => onConfirmed(place)), {
    concurrency: "unbounded",
    discard: true
  })
})

export interface Offered {
  offered: number
  confirmed: number
  /** Failed with a `SessionBusyError`. */
  busy: number
  /** Neither: still running. */
  left: number
}

/**
 * Offers updates of one session at a rate that does not wait for anything to be done, each as a request would: opened,
 * changed, committed. Ends when the last was offered; what was offered goes on, and the result is kept up to date.
 */
export const flood = Effect.fnUntraced(function* (
  token: Redacted.Redacted<string>,
  { perSecond, seconds }: { readonly perSecond: number; readonly seconds: number }
) {
  const result: Offered = { offered: 0, confirmed: 0, busy: 0, left: 0 }
  const update = Effect.flatMap(changed(token), ({ commit }) => commit).pipe(
    Effect.tap(() => Effect.sync(() => result.confirmed++)),
    Effect.catchTag("SessionBusyError", () => Effect.sync(() => result.busy++)),
    Effect.ensuring(Effect.sync(() => result.left--))
  )
  const start = yield* Clock.currentTimeMillis
  while (result.offered < perSecond * seconds) {
    const due = (((yield* Clock.currentTimeMillis) - start) / 1_000) * perSecond
    while (result.offered < Math.min(due, perSecond * seconds)) {
      result.offered++
      result.left++
      yield* Effect.forkDetach(update)
    }
    yield* Effect.sleep("5 millis")
  }
  return result
})
