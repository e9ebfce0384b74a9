/**
 * Opens and finds sessions: by token, by key, and by index.
 */
import { Clock, Context, Effect, Option, Predicate, Redacted, Stream } from "effect"
import { SessionStore, type SessionStoreError } from "../SessionStore.ts"
import type { SessionError } from "./errors.ts"
import { idsOf, keyOf, revoke } from "./indexes.ts"
import { asKept, type Found, type FoundSession, type Records } from "./records.ts"
import { Handle } from "./session.ts"
import { makeEnded, makeNew, makeStored, type State } from "./state.ts"
import { hashToken, isToken } from "./token.ts"

/**
 * The options of opening a session.
 */
export interface OpenOptions {
  /**
   * Whether opening and committing the session counts as use, which keeps it from going idle. Default: `true`. Use
   * `false` for polling, for example. Changes are saved either way.
   */
  readonly touch?: boolean | undefined
}

/** The property of a session class that holds its {@link Opener}. */
export const opener: unique symbol = Symbol("effect-sessions/opener")

/** Opens the session of a token for a carrier, which passes store and context in: every request runs this. */
export type Opener<Session> = (
  store: SessionStore["Service"],
  context: Context.Context<never>,
  token: string | undefined,
  options?: OpenOptions
) => Effect.Effect<Session, SessionError>

/** Opens the session of a token, or a new one. */
export const open = <A>(
  openWith: Opener<Handle<A>>,
  token: Redacted.Redacted<string> | undefined,
  options?: OpenOptions
): Effect.Effect<Handle<A>, SessionError, SessionStore> =>
  Effect.contextWith((context: Context.Context<SessionStore>) => {
    const secret = token === undefined ? undefined : Redacted.value(token)
    return openWith(Context.get(context, SessionStore), context, secret, options)
  })

export const makeOpener =
  <A>(records: Records<A>): Opener<Handle<A>> =>
  (store, context, token, { touch = true } = {}) => {
    const clock = Context.get(context, Clock.Clock)
    const use = { isUse: touch, openedAt: clock.currentTimeMillisUnsafe() }
    if (token === undefined || !isToken(token)) {
      return Effect.succeed(new Handle(records, store, makeNew(records.contentsAt(use.openedAt)), use))
    }
    const key = hashToken(token)
    const opened = records.findToOpen(store, key, (found) => {
      const state = stateOf(records, key, token, found, clock.currentTimeMillisUnsafe())
      return new Handle(records, store, state, use)
    })
    return records.telemetry.span(context, "Session.open", opened)
  }

/** The state of the session that a token opens. */
const stateOf = <A>(records: Records<A>, key: string, token: string, found: Found<A>, now: number): State<A> => {
  switch (found._tag) {
    case "Session":
      return records.isActive(found, now) ? makeStored(asKept(key, found), token) : makeNew(records.contentsAt(now))
    case "Tombstone":
      // After a log-out, the user may log in again with the token that the client still has.
      return found.successor === undefined ? makeNew(records.contentsAt(now)) : makeEnded(key, records.contentsAt(now))
    case "Undecodable":
      return makeNew(records.contentsAt(now), { undecodable: { key, text: found.text } })
    case "Nothing":
      return makeNew(records.contentsAt(now))
  }
}

/** A session that was found by its key. Looking at it does not count as use. */
const listed = <A>(
  records: Records<A>,
  store: SessionStore["Service"],
  key: string,
  found: FoundSession<A>,
  now: number
): Handle<A> => new Handle(records, store, makeStored(asKept(key, found), undefined), { isUse: false, openedAt: now })

/** Every active session. */
export const listAll = <A>(records: Records<A>): Stream.Stream<Handle<A>, SessionStoreError, SessionStore> =>
  Stream.unwrap(
    Effect.map(SessionStore, (store) =>
      store.entries.pipe(
        Stream.mapEffect(([key, text]) =>
          Effect.clockWith((clock) => {
            const now = clock.currentTimeMillisUnsafe()
            return Effect.map(records.list(text, now), (found) => found && listed(records, store, key, found, now))
          })
        ),
        Stream.filter(Predicate.isNotUndefined)
      )
    )
  )

/** The active sessions of one value of an index. */
export const listOf = <A>(
  records: Records<A>,
  index: string,
  value: string
): Stream.Stream<Handle<A>, SessionStoreError, SessionStore> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const store = yield* SessionStore
      const record = keyOf(records, index, value)
      const now = yield* Clock.currentTimeMillis
      return Stream.fromIterable(yield* idsOf(store, record)).pipe(
        Stream.mapEffect((key) =>
          Effect.gen(function* () {
            const text = yield* store.find(key)
            const found = Option.isSome(text) ? yield* records.list(text.value, now) : undefined
            return found?.contents.memberOf.includes(record) ? listed(records, store, key, found, now) : undefined
          })
        ),
        Stream.filter(Predicate.isNotUndefined)
      )
    })
  )

/** Ends all sessions of one value of an index, except one. */
export const destroyAllOf = Effect.fnUntraced(function* <A>(
  records: Records<A>,
  index: string,
  value: string,
  except: { readonly id: Effect.Effect<Option.Option<string>> } | undefined
) {
  const spared = except === undefined ? undefined : Option.getOrUndefined(yield* except.id)
  return yield* revoke(records, yield* SessionStore, keyOf(records, index, value), spared)
})

/** The active session under a key. */
export const byId = <A>(
  records: Records<A>,
  id: string
): Effect.Effect<Option.Option<Handle<A>>, SessionError, SessionStore> =>
  Effect.gen(function* () {
    // An id has the shape of a token. No other key in a store does.
    if (!isToken(id)) return Option.none()
    const store = yield* SessionStore
    const found = yield* records.find(store, id)
    const now = yield* Clock.currentTimeMillis
    return records.isActive(found, now) ? Option.some(listed(records, store, id, found, now)) : Option.none()
  })
