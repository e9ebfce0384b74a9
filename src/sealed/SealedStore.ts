/**
 * A session store that encrypts the data of another store, with keys of the application.
 *
 * It is a layer around any store. The store below holds AES-256-GCM under a key that depends on the place of the
 * session. Reading the store reveals no value, and writing to it can neither change a value nor swap two. The same text
 * in the same place is always sealed in the same way, so `replace` can compare sealed texts, and any store will do.
 *
 * @module
 */
import { Effect, Layer, Option, Redacted, Stream } from "effect"
import { SessionStore, SessionStoreError, type SessionStorePrimitives } from "../SessionStore.ts"
import { makeKey, type SealingKey, seal, unseal } from "./sealing.ts"

/**
 * The keys of a {@link SealedStore}: each is 32 random bytes in Base64, as `openssl rand -base64 32` prints them.
 */
export interface SealedStoreOptions {
  /** Seals everything that is written. */
  readonly current: Redacted.Redacted<string>
  /** Data that these keys have sealed can be read too. Default: none. */
  readonly previous?: ReadonlyArray<Redacted.Redacted<string>> | undefined
}

const decodeKey = (key: Redacted.Redacted<string>): SealingKey => {
  const made = makeKey(Redacted.value(key))
  if (made === undefined) throw new TypeError("SealedStore: a key is not 32 bytes in Base64")
  return made
}

// No JSON begins like this, so unsealed data never becomes a session.
const unsealedMark = "unsealed:"

/** Converts text of the application to text of the store, and back. */
interface Sealing {
  /** The text to write. */
  readonly seal: (place: string, text: string) => string
  /** The text that was sealed. If no known key sealed it, a text that does not decode. */
  readonly unseal: (place: string, stored: string) => string
  /** The texts in the store that may stand for a text that was read, the most likely first. */
  readonly candidates: (place: string, text: string) => Iterable<string>
}

const makeSealing = ({ current, previous = [] }: SealedStoreOptions): Sealing => {
  const currentKey = decodeKey(current)
  const keys = [currentKey, ...previous.map(decodeKey)]
  return {
    seal: (place, text) => seal(currentKey, place, text),
    unseal: (place, stored) => {
      for (const key of keys) {
        const text = unseal(key, place, stored)
        if (text !== undefined) return text
      }
      return unsealedMark + stored
    },
    *candidates(place, text) {
      for (const key of keys) yield seal(key, place, text)
      if (text.startsWith(unsealedMark)) yield text.slice(unsealedMark.length)
    }
  }
}

const sealStore = (
  store: SessionStorePrimitives<SessionStoreError>,
  { candidates, seal, unseal }: Sealing
): SessionStore["Service"] =>
  SessionStore.make<SessionStoreError, SessionStoreError>(
    {
      find: (token) =>
        Effect.map(
          store.find(token),
          Option.map((stored) => unseal(token, stored))
        ),
      create: (token, data, expiry) => Effect.suspend(() => store.create(token, seal(token, data), expiry)),
      commit: (token, data, expiry) => Effect.suspend(() => store.commit(token, seal(token, data), expiry)),
      // Each try is atomic. If one finds the text it expects, the session holds the expected data, whichever key sealed
      // it.
      replace: Effect.fnUntraced(function* (token, expected, data, expiry) {
        const sealed = seal(token, data)
        for (const candidate of candidates(token, expected)) {
          if (yield* store.replace(token, candidate, sealed, expiry)) return true
        }
        return false
      }),
      delete: store.delete,
      entries: Stream.map(store.entries, ([token, stored]) => [token, unseal(token, stored)] as const)
    },
    // `all` is derived from `entries` again.
    (operation, error) => (operation === "all" ? new SessionStoreError({ operation, cause: error.cause }) : error)
  )

const layerWith = (options: SealedStoreOptions): Layer.Layer<SessionStore, never, SessionStore> => {
  const sealing = makeSealing(options)
  return Layer.effect(
    SessionStore,
    Effect.map(SessionStore, (store) => sealStore(store, sealing))
  )
}

/**
 * A layer around any session store that encrypts its data.
 *
 * **When to use**: if others can read or write the store, such as a shared Redis, a managed database or its backups.
 *
 * **Details**: AES-256-GCM by `node:crypto`, under a key derived from `current` and from the key of the session in the
 * store. Data that was changed, moved to another session, or sealed by an unlisted key does not decode; the class
 * option `undecodable` decides what happens then. Index records are sealed too. One that does not decode counts as
 * empty.
 *
 * A server that does not know a key ends the sessions that the key sealed. So rotate keys in two steps. First deploy
 * the new key in `previous` everywhere. Then deploy it as `current`, with the old one in `previous`. Remove the old one
 * after the longest lifetime has passed. If a `replace` does not find the expected text, it asks the store once more
 * for each previous key.
 *
 * **Gotchas**: sessions from before the store was sealed end. Ids, expiries and the length of the data are not
 * encrypted. With write access to the store, an attacker can still put older data of the same session back.
 *
 * **Errors**: throws a `TypeError` if a key is not 32 bytes in Base64. Each operation fails as it does in the store
 * below.
 *
 * @example
 * ```ts
 * import { DateTime, Effect, Layer, Option, Redacted } from "effect"
 * import { MemStore, SessionStore } from "effect-sessions"
 * import { SealedStore } from "effect-sessions/sealed"
 *
 * // In an application, take the key from a secret of the environment.
 * const current = Redacted.make("c2V2ZW50eSB0aHJlZSBieXRlcyBhcmUgbm90IG1hbnk=")
 *
 * const Sessions = SealedStore.layerWith({ current }).pipe(Layer.provideMerge(MemStore.layer))
 *
 * const program = Effect.gen(function* () {
 *   const store = yield* SessionStore
 *   yield* store.commit("token", "hello", DateTime.add(yield* DateTime.now, { hours: 1 }))
 *   const inside = Option.getOrThrow(yield* (yield* MemStore).find("token"))
 *   return [yield* store.find("token"), inside.slice(0, 9)] as const
 * })
 *
 * await Effect.runPromise(Effect.provide(program, Sessions)) // => [Option.some("hello"), "sealed.1."]
 * ```
 */
export const SealedStore: {
  /**
   * Wraps the `SessionStore` in the context, and encrypts its data.
   *
   * @example
   * ```ts
   * import { Config, Effect, Layer } from "effect"
   * import { MemStore } from "effect-sessions"
   * import { SealedStore } from "effect-sessions/sealed"
   *
   * const Sealed = Layer.unwrap(
   *   Effect.map(Config.Redacted("SESSION_KEY"), (current) => SealedStore.layerWith({ current }))
   * )
   *
   * const Sessions = Sealed.pipe(Layer.provide(MemStore.layer)) // or RedisStore.layer, or SqlStore.layer
   * ```
   */
  readonly layerWith: (options: SealedStoreOptions) => Layer.Layer<SessionStore, never, SessionStore>
} = { layerWith }
