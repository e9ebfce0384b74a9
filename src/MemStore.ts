/**
 * An in-memory session store, provided as a Layer.
 *
 * The state is one `Ref` of a persistent `HashMap`. Every operation is one read or one atomic update of it, so every
 * reader has a consistent snapshot. Expired sessions are never found. A scoped cleanup fiber removes them from memory
 * one page of the snapshot at a time, so a sweep over a million sessions does not stall the server.
 *
 * The names follow Go's [scs/memstore](https://github.com/alexedwards/scs/tree/master/memstore).
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
import * as Entry from "./internal/memory/entry.ts"
import * as Eviction from "./internal/memory/eviction.ts"
import * as TokenMap from "./internal/memory/tokenMap.ts"
import { SessionStore, type SessionStoreOperations } from "./SessionStore.ts"

/**
 * What a {@link MemStore} can do: the operations of every session store, which cannot fail here, plus `size` and
 * `stopCleanup`.
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
   * The number of sessions in memory, including expired ones that are not swept yet.
   */
  readonly size: Effect.Effect<number>

  /**
   * Stops the cleanup, even in the middle of a sweep, and returns when it has ended. The store keeps working: expired
   * sessions are still never found, but they stay in memory. A no-op if no cleanup runs. Safe to call more than once,
   * and from several fibers at the same time.
   */
  readonly stopCleanup: Effect.Effect<void>
}

/**
 * The options of {@link MemStore.layerWith}.
 *
 * @example
 * ```ts
 * import type { MemStoreOptions } from "effect-sessions"
 *
 * const options: MemStoreOptions = { cleanupInterval: "30 seconds", capacity: 100_000 }
 * ```
 */
export interface MemStoreOptions {
  /**
   * The time from the start to the first sweep, and from the end of each sweep to the next. If it is zero, negative or
   * infinite, there is no cleanup.
   *
   * @default "1 minute"
   */
  readonly cleanupInterval?: Duration.Input | undefined

  /**
   * The most sessions that the store holds: a positive integer, or `Infinity` for no limit. Expired sessions count
   * until they are swept. When the store is full, a new session evicts another: of sixteen candidates, the one that
   * expires soonest.
   *
   * @default Infinity
   */
  readonly capacity?: number | undefined
}

/** A store: its sessions, the hash function of its map, and the limit on their number, if there is one. */
interface Memory {
  readonly state: Ref.Ref<TokenMap.TokenMap>
  readonly hash: TokenMap.Hash
  readonly bound: Eviction.Bound | undefined
}

const find = (self: Memory, token: string): Effect.Effect<Option.Option<string>> =>
  // In one step of the fiber, because a pipeline of `Clock` and `Ref` takes as long as the look-up itself.
  Effect.withFiberSucceed((fiber) => {
    const entry = TokenMap.get(Ref.getUnsafe(self.state), self.hash, token)
    return Option.isSome(entry) && Entry.isActive(entry.value, fiber.getRef(Clock.Clock).currentTimeMillisUnsafe())
      ? Option.some(Entry.dataOf(entry.value))
      : Option.none()
  })

/** Updates the sessions in one atomic step, given the current time. */
const update = <A>(
  self: Memory,
  f: (sessions: TokenMap.TokenMap, now: number) => readonly [A, TokenMap.TokenMap]
): Effect.Effect<A> =>
  Clock.clockWith((clock) => Ref.modify(self.state, (sessions) => f(sessions, clock.currentTimeMillisUnsafe())))

/** Adds or overwrites a session. If the store is full, another session goes. */
const put = (
  { hash, bound }: Memory,
  sessions: TokenMap.TokenMap,
  token: string,
  entry: Entry.Entry,
  now: number
): TokenMap.TokenMap => {
  if (bound === undefined || HashMap.size(sessions) < bound.capacity) return TokenMap.set(sessions, hash, token, entry)
  // In one mutation, so the nodes that both steps change are copied only once.
  return HashMap.mutate(sessions, (current) => {
    TokenMap.set(current, hash, token, entry)
    if (HashMap.size(current) <= bound.capacity) return
    // An expired session must not push out an active one.
    const evicted = Entry.isActive(entry, now) ? Eviction.evict(bound, sessions, hash, now) : token
    TokenMap.remove(current, hash, evicted)
  })
}

/** Reports in metrics and logs what an update evicted. */
const reported = <A>({ bound }: Memory, updated: Effect.Effect<A>): Effect.Effect<A> =>
  bound === undefined ? updated : Effect.tap(updated, Eviction.report(bound))

const isActive = (entry: Option.Option<Entry.Entry>, now: number): boolean =>
  Option.isSome(entry) && Entry.isActive(entry.value, now)

const create = (self: Memory, token: string, data: string, expiry: DateTime.DateTime): Effect.Effect<boolean> => {
  const entry = Entry.make(data, DateTime.toEpochMillis(expiry))
  return reported(
    self,
    update(self, (sessions, now) =>
      isActive(TokenMap.get(sessions, self.hash, token), now)
        ? [false, sessions]
        : [true, put(self, sessions, token, entry, now)]
    )
  )
}

const commit = (self: Memory, token: string, data: string, expiry: DateTime.DateTime): Effect.Effect<void> => {
  const entry = Entry.make(data, DateTime.toEpochMillis(expiry))
  // Without a limit on the number of sessions, the time is not needed.
  return self.bound === undefined
    ? Ref.update(self.state, (sessions) => TokenMap.set(sessions, self.hash, token, entry))
    : reported(
        self,
        update(self, (sessions, now) => [undefined, put(self, sessions, token, entry, now)])
      )
}

const replace = (
  self: Memory,
  token: string,
  expected: string,
  data: string,
  expiry: DateTime.DateTime
): Effect.Effect<boolean> => {
  const entry = Entry.make(data, DateTime.toEpochMillis(expiry))
  return update(self, (sessions, now) => {
    const held = TokenMap.get(sessions, self.hash, token)
    if (Option.isNone(held) || !Entry.isActive(held.value, now) || !Entry.hasData(held.value, expected)) {
      return [false, sessions]
    }
    // With an expiry in the past this is a compare-and-delete: free the memory now, not at the next sweep.
    return [
      true,
      Entry.isActive(entry, now)
        ? TokenMap.set(sessions, self.hash, token, entry)
        : TokenMap.remove(sessions, self.hash, token)
    ]
  })
}

// Small, because a request that arrives during a sweep waits for one page at most. Under constant finds, the 99th
// percentile of that wait is 2.2 ms with pages of 128, 1.1 ms with 64 and 0.6 ms with 32, and the sweep takes twice as
// long.
//
// A page also ends with the millisecond in which it began. Any allocation may trigger about 10 ms of V8 marking, so a
// page of allocations could be a stall. Measured with `all` over a million sessions in pages of 128, the longest three
// turns in CPU time took 192, 148 and 138 ms without this rule, and 31, 21 and 17 ms with it.
const pageSize = 32

/** Maps the sessions of a snapshot with `pick`, one page at a time, and yields to the event loop before each page. */
const pages = <A>(
  sessions: TokenMap.TokenMap,
  pick: (token: string, entry: Entry.Entry) => A | undefined
): Stream.Stream<A> =>
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

const entries = (self: Memory): Stream.Stream<readonly [token: string, data: string]> =>
  Stream.unwrap(
    Effect.map(Clock.currentTimeMillis, (now) =>
      pages(Ref.getUnsafe(self.state), (token, entry) =>
        Entry.isActive(entry, now) ? ([token, Entry.dataOf(entry)] as const) : undefined
      )
    )
  )

/** Removes those sessions that are still expired, not the ones committed again since, and returns how many. */
const removeExpired = (self: Memory, tokens: ReadonlyArray<string>, now: number): Effect.Effect<number> =>
  Ref.modify(self.state, (sessions) => {
    const remaining = HashMap.mutate(sessions, (current) => {
      for (const token of tokens) {
        const held = TokenMap.get(current, self.hash, token)
        if (Option.isSome(held) && !Entry.isActive(held.value, now)) TokenMap.remove(current, self.hash, token)
      }
    })
    return [HashMap.size(sessions) - HashMap.size(remaining), remaining]
  })

/** Removes all expired sessions, and returns how many there were. */
const sweep = (self: Memory): Effect.Effect<number> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    const expired = pages(Ref.getUnsafe(self.state), (token, entry) => (Entry.isActive(entry, now) ? undefined : token))
    let swept = 0
    const removeAll = Stream.runForEachArray(expired, (tokens) =>
      Effect.flatMap(removeExpired(self, tokens, now), (removed) => {
        swept += removed
        return Metric.update(Cleanup.sessionsSwept, removed)
      })
    )
    return Effect.map(removeAll, () => swept)
  })

const report = (self: Memory, swept: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    const held = HashMap.size(Ref.getUnsafe(self.state))
    return Effect.andThen(
      Metric.update(sessionsHeld, held),
      Effect.logDebug(`Session cleanup removed ${swept} expired sessions and left ${held}`)
    )
  })

const defaultInterval: Duration.Input = "1 minute"

const makeStore = Effect.fnUntraced(function* (
  cleanupInterval: Duration.Input,
  capacity: number
): Effect.fn.Return<MemStoreOperations, never, Scope.Scope> {
  const self: Memory = {
    state: yield* Ref.make<TokenMap.TokenMap>(HashMap.empty()),
    hash: TokenMap.makeHash(),
    bound: yield* Eviction.makeBound("MemStore", capacity)
  }
  const stopCleanup = yield* Cleanup.start({
    store: "MemStore",
    interval: cleanupInterval,
    sweep: sweep(self),
    report: (swept) => report(self, swept)
  })
  const operations = SessionStore.make({
    find: (token) => find(self, token),
    create: (token, data, expiry) => create(self, token, data, expiry),
    commit: (token, data, expiry) => commit(self, token, data, expiry),
    replace: (token, expected, data, expiry) => replace(self, token, expected, data, expiry),
    delete: (token) => Ref.update(self.state, (sessions) => TokenMap.remove(sessions, self.hash, token)),
    entries: entries(self)
  })
  return { ...operations, size: Effect.map(Ref.get(self.state), HashMap.size), stopCleanup }
})

const layerOf = (store: Effect.Effect<MemStoreOperations, never, Scope.Scope>): Layer.Layer<MemStore | SessionStore> =>
  Layer.effectContext(Effect.map(store, (store) => Context.add(Context.make(MemStore, store), SessionStore, store)))

/**
 * An in-memory session store: its service tag, its constructors and its layers.
 *
 * **When to use**: for one server process whose sessions need not survive a restart, and for tests. The layers provide
 * both `MemStore` and `SessionStore`, from one instance. Ask for `SessionStore` to use sessions, and for `MemStore` if
 * you need `size` or `stopCleanup`.
 *
 * **Gotchas**: if a layer is built twice, you get two stores that share nothing. Keep one layer value, such as
 * `MemStore.layer`, and provide it once, around the whole application.
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
   * **Details**: the first sweep runs one interval after the start, and each later one an interval after the end of the
   * sweep before it. If the interval is zero, negative or infinite, there is no cleanup. The cleanup ends when the
   * scope closes or `stopCleanup` is called.
   *
   * **Errors**: dies with a `TypeError` that names the value if the interval is not a duration.
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
  static readonly makeWithCleanupInterval = (
    interval: Duration.Input
  ): Effect.Effect<MemStore["Service"], never, Scope.Scope> => makeStore(interval, Number.POSITIVE_INFINITY)

  /**
   * Makes a store in the current scope whose cleanup runs every minute, as in scs/memstore. See
   * {@link MemStore.makeWithCleanupInterval} for the details.
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
  static readonly make: Effect.Effect<MemStore["Service"], never, Scope.Scope> = makeStore(
    defaultInterval,
    Number.POSITIVE_INFINITY
  )

  /**
   * Provides `MemStore` and `SessionStore` from one store with the given options. Each call makes a new layer, and so a
   * new store.
   *
   * **When to use**: to limit the memory that sessions take, no matter what visitors do.
   *
   * **Details**: when a store with a capacity is full, each new session evicts another. An eviction draws four
   * sessions, keeps the sixteen of all drawn so far that expire soonest, and removes the first of them, so an expired
   * one if there is one. The metric `sessions_evicted` counts the active sessions that were evicted, and a warning is
   * logged at most once a minute.
   *
   * **Gotchas**: an evicted session has ended, and its visitor is logged out. To protect users who have logged in, give
   * them a long expiry and new visitors a short one. An eviction works on a snapshot of the store, so a store that
   * evicts takes up to twice the memory of its sessions.
   *
   * **Errors**: dies with a `TypeError` that names the value if the capacity is not a positive integer or `Infinity`, or
   * the interval is not a duration.
   *
   * @example
   * ```ts
   * import { DateTime, Effect } from "effect"
   * import { MemStore } from "effect-sessions"
   *
   * const program = Effect.gen(function*() {
   *   const store = yield* MemStore
   *   const now = yield* DateTime.now
   *   for (let visitor = 0; visitor < 1_000; visitor++) {
   *     yield* store.commit(`visitor ${visitor}`, "just looking", DateTime.add(now, { minutes: 20 }))
   *   }
   *   return yield* store.size
   * })
   *
   * await Effect.runPromise(Effect.provide(program, MemStore.layerWith({ capacity: 100 }))) // => 100
   * ```
   */
  static readonly layerWith = ({
    cleanupInterval = defaultInterval,
    capacity = Number.POSITIVE_INFINITY
  }: MemStoreOptions): Layer.Layer<MemStore | SessionStore> => layerOf(makeStore(cleanupInterval, capacity))

  /**
   * Provides `MemStore` and `SessionStore` from one store whose cleanup runs at the given interval. See
   * {@link MemStore.makeWithCleanupInterval} for the details. Each call makes a new layer, and so a new store.
   *
   * **Errors**: dies with a `TypeError` that names the value if the interval is not a duration.
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
    layerOf(makeStore(interval, Number.POSITIVE_INFINITY))

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
  static readonly layer: Layer.Layer<MemStore | SessionStore> = MemStore.layerWithCleanupInterval(defaultInterval)

  /**
   * Provides `MemStore` and `SessionStore` from one store that takes its cleanup interval from the configuration, and
   * its capacity too if you name one.
   *
   * **Errors**: fails with a `ConfigError` if one of these values is missing or has the wrong type. If the capacity is
   * an integer but not positive, it dies as {@link MemStore.layerWith} does.
   *
   * @example
   * ```ts
   * import { Config } from "effect"
   * import { MemStore } from "effect-sessions"
   *
   * const Sessions = MemStore.layerConfig({
   *   cleanupInterval: Config.Duration("SESSION_CLEANUP_INTERVAL"),
   *   capacity: Config.Int("SESSION_CAPACITY")
   * })
   * ```
   */
  static readonly layerConfig = (
    options: Config.Wrap<{ readonly cleanupInterval: Duration.Duration; readonly capacity?: number }>
  ): Layer.Layer<MemStore | SessionStore, Config.ConfigError> =>
    Layer.unwrap(Effect.map(Config.unwrap(options), MemStore.layerWith))
}
