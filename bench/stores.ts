/**
 * The stores that are measured, each behind the same few operations.
 *
 * An operation takes a batch and issues it as the store's own users would: a fiber that runs through the batch, calls
 * whose callbacks are awaited together, or a plain loop. What a store takes (bytes, an object, an instant of expiry) is
 * made of a session's text before the time that is measured.
 */
import { Clock, DateTime, Deferred, Duration, Effect, Exit, HashMap, Option, Scope } from "effect"
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

/** The measured part of an operation. */
export type Run<A = void> = () => Answer<A>

export interface Store {
  readonly commit: (batch: ReadonlyArray<NewSession>) => Run
  /** Answers how many were found. */
  readonly find: (tokens: ReadonlyArray<string>) => Answer<number>
  /** Answers how many were replaced. */
  readonly replace?: (batch: ReadonlyArray<NewSession & { readonly expected: string }>) => Run<number>
  readonly delete: (tokens: ReadonlyArray<string>) => Answer<void>
  /** Answers how many there were. */
  readonly all?: () => Answer<number>
  /** One pass that removes what has expired; answers how many sessions are held after it. */
  readonly sweep?: () => Promise<number>
}

const bytes = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text)

const memStore = async (): Promise<Store> => {
  // A clock whose sleep ends when a sweep is asked for: the store's own cleanup runs, at the moment that is measured.
  const live = await Effect.runPromise(Clock.clockWith(Effect.succeed))
  let waiting = Deferred.makeUnsafe<void>()
  let asleep = Deferred.makeUnsafe<void>()
  const clock: Clock.Clock = Object.assign(Object.create(live), {
    sleep: () =>
      Effect.suspend(() => {
        Deferred.doneUnsafe(asleep, Exit.void)
        return Deferred.await(waiting)
      })
  })
  const store = await Effect.runPromise(
    MemStore.make.pipe(
      Effect.provideService(Scope.Scope, Scope.makeUnsafe()),
      Effect.provideService(Clock.Clock, clock)
    )
  )
  return {
    commit: (batch) => {
      const now = DateTime.nowUnsafe()
      const sessions = batch.map(({ token, text, lifetime }) => ({
        token,
        data: bytes(text),
        expiry: DateTime.add(now, { milliseconds: lifetime })
      }))
      const commits = Effect.gen(function* () {
        for (const { token, data, expiry } of sessions) yield* store.commit(token, data, expiry)
      })
      return () => Effect.runPromise(commits)
    },
    find: (tokens) =>
      Effect.runPromise(
        Effect.gen(function* () {
          let found = 0
          for (const token of tokens) if (Option.isSome(yield* store.find(token))) found++
          return found
        })
      ),
    replace: (batch) => {
      const now = DateTime.nowUnsafe()
      const sessions = batch.map(({ token, text, expected, lifetime }) => ({
        token,
        expected: bytes(expected),
        data: bytes(text),
        expiry: DateTime.add(now, { milliseconds: lifetime })
      }))
      const replaces = Effect.gen(function* () {
        let replaced = 0
        for (const { token, expected, data, expiry } of sessions) {
          if (yield* store.replace(token, expected, data, expiry)) replaced++
        }
        return replaced
      })
      return () => Effect.runPromise(replaces)
    },
    delete: (tokens) =>
      Effect.runPromise(
        Effect.gen(function* () {
          for (const token of tokens) yield* store.delete(token)
        })
      ),
    all: () => Effect.runPromise(Effect.map(store.all, HashMap.size)),
    sweep: async () => {
      const begin = waiting
      waiting = Deferred.makeUnsafe()
      asleep = Deferred.makeUnsafe()
      Deferred.doneUnsafe(begin, Exit.void)
      await Effect.runPromise(Deferred.await(asleep))
      return Effect.runPromise(store.size)
    }
  }
}

const keyValueStore = (): Promise<Store> =>
  Effect.gen(function* () {
    const store = yield* KeyValueStore.KeyValueStore
    return {
      commit: (batch) => {
        const sessions = batch.map(({ token, text }) => ({ token, data: bytes(text) }))
        const commits = Effect.gen(function* () {
          for (const { token, data } of sessions) yield* store.set(token, data)
        })
        return () => Effect.runPromise(commits)
      },
      find: (tokens) =>
        Effect.runPromise(
          Effect.gen(function* () {
            let found = 0
            for (const token of tokens) if ((yield* store.getUint8Array(token)) !== undefined) found++
            return found
          })
        ),
      delete: (tokens) =>
        Effect.runPromise(
          Effect.gen(function* () {
            for (const token of tokens) yield* store.remove(token)
          })
        )
    } satisfies Store
  }).pipe(Effect.provide(KeyValueStore.layerMemory), Effect.runPromise)

const persistence = (): Promise<Store> =>
  Effect.gen(function* () {
    const store = yield* (yield* Persistence.BackingPersistence).make("sessions")
    return {
      commit: (batch) => {
        const sessions = batch.map(({ token, text, lifetime }) => ({
          token,
          data: bytes(text),
          lifetime: Duration.millis(lifetime)
        }))
        const commits = Effect.gen(function* () {
          for (const { token, data, lifetime } of sessions) yield* store.set(token, data, lifetime)
        })
        return () => Effect.runPromise(commits)
      },
      find: (tokens) =>
        Effect.runPromise(
          Effect.gen(function* () {
            let found = 0
            for (const token of tokens) if ((yield* store.get(token)) !== undefined) found++
            return found
          })
        ),
      delete: (tokens) =>
        Effect.runPromise(
          Effect.gen(function* () {
            for (const token of tokens) yield* store.remove(token)
          })
        )
    } satisfies Store
  }).pipe(Effect.scoped, Effect.provide(Persistence.layerBackingMemory), Effect.runPromise)

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
  // It wants a bound, or a timer for each entry. The bound leaves room for what is written besides.
  const cache = new LRUCache<string, Uint8Array>({ max: sessions + 1_000, ttl: 1, perf: Date })
  return {
    commit: (batch) => {
      const sessions = batch.map(({ token, text, lifetime }) => ({
        token,
        data: bytes(text),
        options: { ttl: lifetime }
      }))
      return () => {
        for (const { token, data, options } of sessions) cache.set(token, data, options)
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
      cache.purgeStale()
      return cache.size
    }
  }
}

const plainMap = async (): Promise<Store> => {
  const map = new Map<string, Uint8Array>()
  return {
    commit: (batch) => {
      const sessions = batch.map(({ token, text }) => ({ token, data: bytes(text) }))
      return () => {
        for (const { token, data } of sessions) map.set(token, data)
      }
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

export interface Peer {
  /** Makes an empty store for so many sessions. */
  readonly make: (sessions: number) => Promise<Store>
  readonly sweeps: boolean
  /** What MemStore does and it does not. */
  readonly lacks: string
}

export const peers = {
  MemStore: { make: memStore, sweeps: true, lacks: "" },
  memorystore: { make: memorystore, sweeps: true, lacks: "" },
  "express MemoryStore": { make: memoryStore, sweeps: true, lacks: "a sweep (what is shown is its `all`)" },
  "Effect Persistence": { make: persistence, sweeps: false, lacks: "a sweep, a copy, `all`" },
  "Effect KeyValueStore": { make: keyValueStore, sweeps: false, lacks: "expiry, a sweep, a copy, `all`" },
  "lru-cache": { make: lruCache, sweeps: true, lacks: "a copy; needs a bound" },
  Map: { make: plainMap, sweeps: false, lacks: "expiry, a sweep, a copy" }
} satisfies Record<string, Peer>
