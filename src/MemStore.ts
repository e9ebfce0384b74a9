/**
 * An in-memory session store, provided as a Layer.
 *
 * The state is one `Ref` of a persistent `HashMap`. Every operation is one read or one atomic update of it, and who has
 * read it holds a consistent snapshot. Expired sessions are never found; a scoped cleanup fiber sweeps them out of
 * memory a page of the snapshot at a time, so that a sweep over a million sessions does not stall the server.
 *
 * The vocabulary is that of Go's [scs/memstore](https://github.com/alexedwards/scs/tree/master/memstore).
 *
 * @module
 */
import type { Scope } from "effect"
import {
  Clock,
  Config,
  Context,
  DateTime,
  type Duration,
  Effect,
  HashMap,
  Layer,
  Metric,
  Option,
  Ref,
  Stream
} from "effect"
import * as Cleanup from "./internal/cleanup.ts"
import { SessionStore, type SessionStoreOperations } from "./SessionStore.ts"

/**
 * What a {@link MemStore} can do: the operations of every session store, which cannot fail here, and two of its own.
 *
 * **When to use**: as the type of a parameter. To use the store, ask for the tag {@link MemStore}.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import type { MemStoreOperations } from "effect-sessions"
 *
 * const logSize = (store: MemStoreOperations) =>
 *   Effect.flatMap(store.size, (size) => Effect.log(`${size} sessions in memory`))
 * ```
 */
export interface MemStoreOperations extends SessionStoreOperations<never> {
  /**
   * The number of sessions held in memory, those expired and not yet swept included.
   */
  readonly size: Effect.Effect<number>

  /**
   * Stops the cleanup, also in the middle of a sweep, and returns when it has ended. The store goes on working: expired
   * sessions are still never found, but stay in memory. A no-op where no cleanup runs; safe to call again, and from
   * several fibers at once.
   */
  readonly stopCleanup: Effect.Effect<void>
}

interface Entry {
  readonly data: string
  readonly expiry: number
}

type Sessions = HashMap.HashMap<string, Entry>

const makeEntry = (data: string, expiry: DateTime.DateTime): Entry => ({ data, expiry: DateTime.toEpochMillis(expiry) })

const isActive = (entry: Entry, now: number): boolean => now <= entry.expiry

// Small, for whoever asks while a sweep runs waits for a page at the most: with finds going on all the while, 99 of 100 of
// their waits are 2.2 ms with pages of 128, 1.1 ms with 64 and 0.6 ms with 32, for a sweep that takes twice as long.
//
// A page also ends with the millisecond it began in. Each array that is made, V8 may answer with ten milliseconds of its
// marking, and a page of them would be a stall. Measured with `all` over a million sessions in pages of 128, the longest
// three turns in CPU time: 192, 148 and 138 ms without that, 31, 21 and 17 ms with it.
const pageSize = 32

/** What `pick` makes of the sessions of a snapshot, a page at a time, with a turn of the event loop before each. */
const pages = <A>(sessions: Sessions, pick: (token: string, entry: Entry) => A | undefined): Stream.Stream<A> =>
  Stream.paginate(HashMap.entries(sessions), (entries) =>
    Effect.map(Effect.andThen(Effect.yieldNow, Clock.Clock), (clock) => {
      const picked: Array<A> = []
      const began = clock.currentTimeMillisUnsafe()
      let visited = 0
      do {
        const next = entries.next()
        if (next.done === true) return [picked, Option.none<typeof entries>()]
        const item = pick(...next.value)
        if (item !== undefined) picked.push(item)
      } while (++visited < pageSize && clock.currentTimeMillisUnsafe() === began)
      return [picked, Option.some(entries)]
    })
  )

const sessionsHeld = Metric.gauge("sessions_held", {
  description: "Sessions in memory after a sweep"
})

/**
 * An in-memory session store: its service tag, its constructors and its layers.
 *
 * **When to use**: for one server process whose sessions need not survive a restart, and for tests. The layers provide
 * both `MemStore` and `SessionStore`, from one instance: ask for `SessionStore` where sessions are used, and for
 * `MemStore` where `size` or `stopCleanup` is wanted.
 *
 * **Gotchas**: two builds of a layer are two stores that know nothing of each other; one layer value, shared, is one
 * store. So keep one value, such as `MemStore.layer`, and provide it once, around the whole application.
 *
 * @example
 * ```ts
 * import { DateTime, Effect, HashMap } from "effect"
 * import { MemStore } from "effect-sessions"
 *
 * const program = Effect.gen(function*() {
 *   const store = yield* MemStore
 *   const expiry = DateTime.add(yield* DateTime.now, { minutes: 20 })
 *   yield* store.commit("token", "data", expiry)
 *   return HashMap.size(yield* store.all)
 * })
 *
 * await Effect.runPromise(Effect.provide(program, MemStore.layer)) // => 1
 * ```
 */
export class MemStore extends Context.Service<MemStore, MemStoreOperations>()("effect-sessions/MemStore") {
  /**
   * Makes a store in the current scope whose cleanup runs at the given interval.
   *
   * **Details**: the first sweep comes one interval after the start, each further one an interval after the end of the
   * one before. An interval of zero, a negative or an infinite one means no cleanup. The cleanup ends when the scope
   * closes or `stopCleanup` is called.
   *
   * **Errors**: dies with a `TypeError` that names the value where the interval is no duration at all.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { MemStore } from "effect-sessions"
   *
   * const program = Effect.gen(function*() {
   *   const store = yield* MemStore.makeWithCleanupInterval("5 minutes")
   *   return yield* store.size
   * })
   *
   * await Effect.runPromise(Effect.scoped(program)) // => 0
   * ```
   */
  static readonly makeWithCleanupInterval: (
    interval: Duration.Input
  ) => Effect.Effect<MemStore["Service"], never, Scope.Scope> = Effect.fnUntraced(function* (interval) {
    const state = yield* Ref.make<Sessions>(HashMap.empty())

    const find: MemStoreOperations["find"] = (token) =>
      Clock.clockWith((clock) => {
        const entry = HashMap.get(Ref.getUnsafe(state), token)
        return Option.isSome(entry) && isActive(entry.value, clock.currentTimeMillisUnsafe())
          ? Effect.succeedSome(entry.value.data)
          : Effect.succeedNone
      })

    const commit: MemStoreOperations["commit"] = (token, data, expiry) => {
      const entry = makeEntry(data, expiry)
      return Ref.update(state, (sessions) => HashMap.set(sessions, token, entry))
    }

    const create: MemStoreOperations["create"] = (token, data, expiry) => {
      const entry = makeEntry(data, expiry)
      return Effect.flatMap(Clock.currentTimeMillis, (now) =>
        Ref.modify(state, (sessions) =>
          Option.exists(HashMap.get(sessions, token), (held) => isActive(held, now))
            ? [false, sessions]
            : [true, HashMap.set(sessions, token, entry)]
        )
      )
    }

    const replace: MemStoreOperations["replace"] = (token, expected, data, expiry) => {
      const entry = makeEntry(data, expiry)
      return Effect.flatMap(Clock.currentTimeMillis, (now) =>
        Ref.modify(state, (sessions) => {
          if (!Option.exists(HashMap.get(sessions, token), (held) => isActive(held, now) && held.data === expected)) {
            return [false, sessions]
          }
          // Nobody can find it any more: what was compared and deleted takes no memory until the next sweep.
          return [true, isActive(entry, now) ? HashMap.set(sessions, token, entry) : HashMap.remove(sessions, token)]
        })
      )
    }

    const remove: MemStoreOperations["delete"] = (token) => Ref.update(state, HashMap.remove(token))

    const entries: MemStoreOperations["entries"] = Stream.unwrap(
      Effect.map(Clock.currentTimeMillis, (now) =>
        pages(Ref.getUnsafe(state), (token, entry) =>
          isActive(entry, now) ? ([token, entry.data] as const) : undefined
        )
      )
    )

    const size = Effect.map(Ref.get(state), HashMap.size)

    /** Removes those of the sessions that are expired still, and not committed anew, and says how many. */
    const removeExpired = (tokens: ReadonlyArray<string>, now: number) =>
      Ref.modify(state, (sessions) => {
        const remaining = HashMap.mutate(sessions, (current) => {
          for (const token of tokens) {
            if (Option.exists(HashMap.get(current, token), (entry) => !isActive(entry, now))) {
              HashMap.remove(current, token)
            }
          }
        })
        return [HashMap.size(sessions) - HashMap.size(remaining), remaining]
      })

    const sweep = Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const expired = pages(Ref.getUnsafe(state), (token, entry) => (isActive(entry, now) ? undefined : token))
      let swept = 0
      const removeAll = Stream.runForEachArray(expired, (tokens) =>
        Effect.flatMap(removeExpired(tokens, now), (removed) => {
          swept += removed
          return Metric.update(Cleanup.sessionsSwept, removed)
        })
      )
      return Effect.map(removeAll, () => swept)
    })

    const report = (swept: number) =>
      Effect.flatMap(size, (held) =>
        Effect.andThen(
          Metric.update(sessionsHeld, held),
          Effect.logDebug(`Session cleanup removed ${swept} expired sessions and left ${held}`)
        )
      )

    const stopCleanup = yield* Cleanup.start({ store: "MemStore", interval, sweep, report })

    const operations = SessionStore.make({ find, create, commit, replace, delete: remove, entries })
    return MemStore.of({ ...operations, size, stopCleanup })
  })

  /**
   * Makes a store in the current scope whose cleanup runs every minute, the default of scs/memstore. See
   * {@link MemStore.makeWithCleanupInterval} for the rest.
   *
   * @example
   * ```ts
   * import { Effect, Option } from "effect"
   * import { MemStore } from "effect-sessions"
   *
   * const program = Effect.flatMap(MemStore.make, (store) => store.find("token"))
   *
   * await Effect.runPromise(Effect.scoped(program)) // => Option.none()
   * ```
   */
  static readonly make: Effect.Effect<MemStore["Service"], never, Scope.Scope> =
    MemStore.makeWithCleanupInterval("1 minute")

  /**
   * Provides `MemStore` and `SessionStore` from one store whose cleanup runs at the given interval, as
   * {@link MemStore.makeWithCleanupInterval} has it. Each call makes another layer, and so another store.
   *
   * **Errors**: dies with a `TypeError` that names the value where the interval is no duration at all.
   *
   * @example
   * ```ts
   * import { MemStore } from "effect-sessions"
   *
   * const Sessions = MemStore.layerWithCleanupInterval("10 seconds")
   * const SessionsWithoutCleanup = MemStore.layerWithCleanupInterval(0)
   * ```
   */
  static readonly layerWithCleanupInterval = (interval: Duration.Input): Layer.Layer<MemStore | SessionStore> =>
    Layer.effectContext(
      Effect.map(MemStore.makeWithCleanupInterval(interval), (store) =>
        Context.add(Context.make(MemStore, store), SessionStore, store)
      )
    )

  /**
   * Provides `MemStore` and `SessionStore` from one store whose cleanup runs every minute.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { MemStore, SessionStore } from "effect-sessions"
   *
   * const logOut = (token: string) => Effect.flatMap(SessionStore, (store) => store.delete(token))
   *
   * await Effect.runPromise(Effect.provide(logOut("token"), MemStore.layer))
   * ```
   */
  static readonly layer: Layer.Layer<MemStore | SessionStore> = MemStore.layerWithCleanupInterval("1 minute")

  /**
   * Provides `MemStore` and `SessionStore` from one store whose cleanup interval comes from the configuration.
   *
   * **Errors**: fails with a `ConfigError` where the configuration has no such value, or one that is no duration.
   *
   * @example
   * ```ts
   * import { Config } from "effect"
   * import { MemStore } from "effect-sessions"
   *
   * const Sessions = MemStore.layerConfig({
   *   cleanupInterval: Config.Duration("SESSION_CLEANUP_INTERVAL")
   * })
   * ```
   */
  static readonly layerConfig = (
    options: Config.Wrap<{ readonly cleanupInterval: Duration.Duration }>
  ): Layer.Layer<MemStore | SessionStore, Config.ConfigError> =>
    Layer.unwrap(
      Effect.map(Config.unwrap(options), ({ cleanupInterval }) => MemStore.layerWithCleanupInterval(cleanupInterval))
    )
}
