/**
 * The stores that are measured, each behind the same few operations.
 *
 * An operation takes a batch and issues it as the store's own users would: a fiber that runs through the batch, calls
 * whose callbacks are awaited together, or a plain loop. What a store takes (an object, an instant of expiry) is
 * made of a session's text before the time that is measured.
 */
import { Clock, DateTime, Deferred, Duration, Effect, Exit, HashMap, Option, Ref, Scope } from "effect"
import { KeyValueStore, Persistence } from "effect/persistence"
import { MemStore } from "effect-sessions"
import session from "express-session"
import { LRUCache } from "lru-cache"
import createMemoryStore from "memorystore"

/** A session to be written: 256 characters of text that expire after some milliseconds. */
export interface NewSession {
  readonly token: string
  readonly text: string
  readonly lifetime: number
}

type Answer<A> = A | Promise<A>

/** An operation whose arguments are made: the part that is measured. */
type Run<A> = () => Answer<A>

export interface Store {
  readonly commit: (batch: ReadonlyArray<NewSession>) => Run<unknown>
  /** Answers how many were found. */
  readonly find: (tokens: ReadonlyArray<string>) => Answer<number>
  /** Answers how many were replaced. */
  readonly replace?: (batch: ReadonlyArray<NewSession & { readonly expected: string }>) => Run<number>
  readonly delete: (tokens: ReadonlyArray<string>) => Answer<unknown>
  /** Answers how many there were. */
  readonly all?: () => Answer<number>
  /** One pass that removes expired sessions; returns how many are left. */
  readonly sweep?: () => Promise<number>
}

/** Runs an effect an item in one fiber, and counts the answers that are hits. */
const runEach = <A, B, E>(
  items: ReadonlyArray<A>,
  effect: (item: A) => Effect.Effect<B, E>,
  isHit: (answer: B) => boolean = () => false
): Promise<number> =>
  Effect.runPromise(
    Effect.gen(function* () {
      let hits = 0
      for (const item of items) if (isHit(yield* effect(item))) hits++
      return hits
    })
  )

const memStore = async (): Promise<Store> => {
  // A clock whose sleep ends when a sweep is asked for: the store's own cleanup runs, at the moment that is measured.
  const live = await Effect.runPromise(Clock.clockWith(Effect.succeed))
  let due = Deferred.makeUnsafe<void>()
  let asleep = Deferred.makeUnsafe<void>()
  const clock: Clock.Clock = Object.assign(Object.create(live), {
    sleep: () =>
      Effect.suspend(() => {
        Deferred.doneUnsafe(asleep, Exit.void)
        return Deferred.await(due)
      })
  })
  const store = await MemStore.make.pipe(
    Effect.provideService(Scope.Scope, Scope.makeUnsafe()),
    Effect.provideService(Clock.Clock, clock),
    Effect.runPromise
  )
  const expiryIn = (lifetime: number) => DateTime.makeUnsafe(Date.now() + lifetime)
  return {
    commit: (batch) => {
      const sessions = batch.map(({ token, text, lifetime }) => ({ token, text, expiry: expiryIn(lifetime) }))
      return () => runEach(sessions, ({ token, text, expiry }) => store.commit(token, text, expiry))
    },
    find: (tokens) => runEach(tokens, store.find, Option.isSome),
    replace: (batch) => {
      const sessions = batch.map(({ token, text, expected, lifetime }) => ({
        token,
        expected,
        text,
        expiry: expiryIn(lifetime)
      }))
      return () =>
        runEach(
          sessions,
          ({ token, expected, text, expiry }) => store.replace(token, expected, text, expiry),
          (replaced) => replaced
        )
    },
    delete: (tokens) => runEach(tokens, store.delete),
    all: () => Effect.runPromise(Effect.map(store.all, HashMap.size)),
    sweep: async () => {
      const begin = due
      due = Deferred.makeUnsafe()
      asleep = Deferred.makeUnsafe()
      Deferred.doneUnsafe(begin, Exit.void)
      await Effect.runPromise(Deferred.await(asleep))
      return Effect.runPromise(store.size)
    }
  }
}

const keyValueStore = async (): Promise<Store> => {
  const store = await KeyValueStore.KeyValueStore.pipe(Effect.provide(KeyValueStore.layerMemory), Effect.runPromise)
  return {
    commit: (batch) => () => runEach(batch, ({ token, text }) => store.set(token, text)),
    find: (tokens) => runEach(tokens, store.get, (text) => text !== undefined),
    delete: (tokens) => runEach(tokens, store.remove)
  }
}

const persistence = async (): Promise<Store> => {
  const store = await Persistence.BackingPersistence.use((backing) => backing.make("sessions")).pipe(
    Effect.scoped,
    Effect.provide(Persistence.layerBackingMemory),
    Effect.runPromise
  )
  return {
    commit: (batch) => {
      const sessions = batch.map(({ token, text, lifetime }) => ({
        token,
        value: { text },
        lifetime: Duration.millis(lifetime)
      }))
      return () => runEach(sessions, ({ token, value, lifetime }) => store.set(token, value, lifetime))
    },
    find: (tokens) => runEach(tokens, store.get, (data) => data !== undefined),
    delete: (tokens) => runEach(tokens, store.remove)
  }
}

/** Issues a call an item, and waits for all of their callbacks. */
const callEach = <A>(items: ReadonlyArray<A>, call: (item: A, done: (error?: unknown) => void) => void) =>
  new Promise<void>((resolve, reject) => {
    let left = items.length
    for (const item of items) {
      call(item, (error) => {
        if (error !== null && error !== undefined) reject(error)
        else if (--left === 0) resolve()
      })
    }
  })

/** What the stores of express-session have in common. They keep an object, as JSON. */
const expressStore = (store: session.Store) => ({
  commit: (batch: ReadonlyArray<NewSession>) => {
    const sessions = batch.map(({ token, text, lifetime }) => {
      const cookie = new session.Cookie()
      cookie.maxAge = lifetime
      return { token, data: { cookie, text } }
    })
    return () => callEach(sessions, ({ token, data }, done) => store.set(token, data, done))
  },
  find: async (tokens: ReadonlyArray<string>) => {
    let found = 0
    await callEach(tokens, (token, done) =>
      store.get(token, (error, data) => {
        if (data !== undefined && data !== null) found++
        done(error)
      })
    )
    return found
  },
  delete: (tokens: ReadonlyArray<string>) => callEach(tokens, (token, done) => store.destroy(token, done)),
  all: () =>
    new Promise<number>((resolve, reject) => {
      store.all?.((error, sessions) => (error ? reject(error) : resolve(Object.keys(sessions ?? {}).length)))
    })
})

const memorystore = async (): Promise<Store> => {
  const MemoryStore = createMemoryStore(session)
  const store = new MemoryStore({})
  const length = () =>
    new Promise<number>((resolve, reject) => {
      store.length((error, count) => (error ? reject(error) : resolve(count ?? Number.NaN)))
    })
  return {
    ...expressStore(store),
    sweep: () => {
      store.prune()
      return length()
    }
  }
}

const memoryStore = async (): Promise<Store> => {
  const store = expressStore(new session.MemoryStore())
  // It has no sweep. An expired session leaves when it is asked for, and all of them when all are.
  return { ...store, sweep: store.all }
}

const lruCache = async (sessions: number): Promise<Store> => {
  // It needs a limit, or a timer for each entry. The limit leaves room for the other writes.
  const cache = new LRUCache<string, string>({ max: sessions + 1_000, ttl: 1, perf: Date })
  return {
    commit: (batch) => {
      const sessions = batch.map(({ token, text, lifetime }) => ({ token, text, options: { ttl: lifetime } }))
      return () => {
        for (const { token, text, options } of sessions) cache.set(token, text, options)
      }
    },
    find: (tokens) => {
      let found = 0
      for (const token of tokens) if (cache.get(token) !== undefined) found++
      return found
    },
    delete: (tokens) => {
      for (const token of tokens) cache.delete(token)
    },
    all: () => new Map(cache.entries()).size,
    sweep: async () => {
      // It keeps the time that it last read for a millisecond, by a timer that a busy machine may fire late.
      await new Promise((resolve) => setTimeout(resolve, 2))
      cache.purgeStale()
      return cache.size
    }
  }
}

const plainMap = async (): Promise<Store> => {
  const map = new Map<string, string>()
  return {
    commit: (batch) => () => {
      for (const { token, text } of batch) map.set(token, text)
    },
    find: (tokens) => {
      let found = 0
      for (const token of tokens) if (map.get(token) !== undefined) found++
      return found
    },
    delete: (tokens) => {
      for (const token of tokens) map.delete(token)
    },
    all: () => new Map(map).size
  }
}

/** The bare map under MemStore: no expiry, no fiber, and no other readers. */
const hashMap = async (): Promise<Store> => {
  let map = HashMap.empty<string, string>()
  return {
    commit: (batch) => () => {
      for (const { token, text } of batch) map = HashMap.set(map, token, text)
    },
    find: (tokens) => {
      let found = 0
      for (const token of tokens) if (Option.isSome(HashMap.get(map, token))) found++
      return found
    },
    delete: (tokens) => {
      for (const token of tokens) map = HashMap.remove(map, token)
    }
  }
}

/** The same in a `Ref`, as in the shortest possible store: each operation also takes a step of the fiber. */
const refHashMap = async (): Promise<Store> => {
  const ref = Ref.makeUnsafe(HashMap.empty<string, string>())
  return {
    commit: (batch) => () => runEach(batch, ({ token, text }) => Ref.update(ref, HashMap.set(token, text))),
    find: (tokens) => runEach(tokens, (token) => Effect.map(Ref.get(ref), HashMap.get(token)), Option.isSome),
    delete: (tokens) => runEach(tokens, (token) => Ref.update(ref, HashMap.remove(token)))
  }
}

export interface Peer {
  /** Makes an empty store for so many sessions. */
  readonly make: (sessions: number) => Promise<Store>
  readonly sweeps: boolean
  /** What MemStore does and it does not. */
  readonly lacks: string
}

export const peers = {
  MemStore: { make: memStore, sweeps: true, lacks: "" },
  memorystore: { make: memorystore, sweeps: true, lacks: "replace. It takes objects, and makes JSON of them itself" },
  "express MemoryStore": {
    make: memoryStore,
    sweeps: true,
    lacks: "replace and a sweep, in place of which its all is shown. It makes JSON itself too"
  },
  "Effect Persistence": { make: persistence, sweeps: false, lacks: "replace, all, a sweep. It takes objects" },
  "Effect KeyValueStore": { make: keyValueStore, sweeps: false, lacks: "replace, all, expiry" },
  "lru-cache": { make: lruCache, sweeps: true, lacks: "replace. It wants a bound" },
  "Effect HashMap": {
    make: hashMap,
    sweeps: false,
    lacks: "replace, all, expiry, a sweep: HashMap.get and HashMap.set alone"
  },
  "Effect Ref<HashMap>": {
    make: refHashMap,
    sweeps: false,
    lacks: "replace, all, expiry, a sweep: the same in a Ref, which is the limit of a store built on it"
  },
  Map: { make: plainMap, sweeps: false, lacks: "replace, expiry" }
} satisfies Record<string, Peer>
