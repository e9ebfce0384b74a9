/**
 * A merge: how one session takes over the value of another, without ever losing it.
 *
 * A tombstone that still holds the value replaces the other session. When this session is saved, the tombstone drops
 * the value. If this session has ended, or cannot be saved, the other session is put back.
 */
import { Clock, type DateTime, Effect } from "effect"
import { bestEffort, type Cell } from "./cell.ts"
import { isUnchanged, makeHold, makeId, makeTombstone, restamp } from "./envelope.ts"
import type { SessionError } from "./errors.ts"
import { leave } from "./indexes.ts"
import { asKept, done, type Found, graveEnd, type Records, type Step, type Store, write } from "./records.ts"
import { type Change, type Contents, change, isMerge, type Kept, type Merge, withChanges } from "./state.ts"
import { publish } from "./telemetry.ts"
import { hashToken, isToken } from "./token.ts"

/** A session that is held for a merge. */
interface Claim<A> {
  readonly merge: Merge<A>
  /** The text of the session, and of the tombstone that holds it. */
  readonly text: string
  readonly contents: Contents<A>
  readonly hold: string
}

/** Notes the session of a token for a merge. A no-op if the token opens nothing, or this session. */
export const merge = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  token: string,
  combine: (value: A, other: A) => A
): Effect.fn.Return<void, SessionError> {
  const { records, state } = cell
  if (!isToken(token) || state._tag === "Ended") return
  const key = hashToken(token)
  if (state._tag === "Stored" && state.key === key) return
  const found = yield* records.find(store, key)
  if (!cell.records.isActive(found, yield* Clock.currentTimeMillis)) return
  const other = asKept(key, found)
  cell.state = change(cell.state, { _tag: "Merge", id: makeId(), other, combine })
})

/**
 * Runs a commit while the sessions that it merges are held, then releases them or puts them back.
 *
 * The session that they are merged into is in the store already, so a log-out of a held session ends it immediately.
 */
export const whileHeld = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  successor: string,
  save: Effect.Effect<void, SessionError>
): Effect.fn.Return<void, SessionError> {
  const claims = new Map<string, Claim<A>>()
  const before = cell.state
  yield* Effect.onError(Effect.andThen(claimAll(cell, store, successor, claims), save), () =>
    bestEffort(restore(cell, cell.store, claims))
  )
  const { state } = cell
  // Their values are in this session. A hold that cannot be released opens nothing, and disappears when it expires.
  if (state._tag === "Stored") {
    const { key } = state
    const again = () => bestEffort(release(cell, cell.store, claims, key))
    yield* Effect.ignore(Effect.onError(release(cell, store, claims, key), again))
    return yield* Effect.forEach(claims.values(), ({ merge: { other } }) => over(cell, store, other, key), {
      discard: true
    })
  }
  yield* Effect.onError(restore(cell, store, claims), () =>
    Effect.suspend(() => {
      // For the next try to put back, if there is one.
      cell.state = before
      return bestEffort(restore(cell, cell.store, claims))
    })
  )
})

/**
 * A merge is complete. Remove the merged session from its indexes: ending it would end the session that it was merged
 * into.
 */
const over = <A>({ records }: Cell<A>, store: Store, { contents, key }: Kept<A>, id: string): Effect.Effect<void> =>
  Effect.andThen(
    publish({ _tag: "Renewed", session: records.key, id, former: key }),
    leave(records, store, contents.memberOf, key)
  )

/** Holds the sessions to merge, with their newest values, and drops those that have ended. */
const claimAll = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  successor: string,
  claims: Map<string, Claim<A>>
): Effect.fn.Return<void, SessionError> {
  const { state } = cell
  if (state._tag === "Ended") return
  const now = yield* Clock.currentTimeMillis
  const changes: Array<Change<A>> = []
  for (const change of state.changes) {
    if (!isMerge(change)) {
      changes.push(change)
      continue
    }
    const { other } = change
    const merge = yield* cell.records.change(store, other.key, cell.records.known(other, now), (found) =>
      toHold(cell, found, { merge: change, successor, now }, claims)
    )
    if (merge !== undefined) changes.push(merge)
  }
  // Read the state again: it may have changed during the calls to the store.
  const current = cell.state
  if (current._tag === "Ended") return
  cell.state = withChanges(current, [...changes, ...current.changes.slice(state.changes.length)])
})

/** The step that holds a session. The claim is noted before it is sent, because a write that fails may have arrived. */
const toHold = Effect.fnUntraced(function* <A>(
  { records }: Cell<A>,
  found: Found<A>,
  { merge, now, successor }: { readonly merge: Merge<A>; readonly successor: string; readonly now: number },
  claims: Map<string, Claim<A>>
): Effect.fn.Return<Step<Merge<A> | undefined>, SessionError> {
  const other = yield* otherIn(records, found, merge, now)
  if (other === undefined || found._tag === "Nothing") {
    claims.delete(merge.id)
    return done(undefined)
  }
  const hold = makeHold(records.key, successor, merge.id, other.text)
  const claimed = withOther(merge, other)
  claims.set(merge.id, { merge: claimed, text: other.text, contents: other.contents, hold })
  // Write the hold of an earlier try again, so a write that is still in flight does not find the text that it expects.
  return write(found.text, hold, records.expiryOf(other.contents), claimed)
})

/** The session to merge: the one under the key, or the one in a hold that an earlier try left there. */
const otherIn = Effect.fnUntraced(function* <A>(
  records: Records<A>,
  found: Found<A>,
  { id, other: { key } }: Merge<A>,
  now: number
): Effect.fn.Return<Kept<A> | undefined, SessionError> {
  if (records.isActive(found, now)) return asKept(key, found)
  if (found._tag !== "Tombstone" || found.isSealed || found.merge !== id || found.held === undefined) return
  const held = yield* Effect.orDie(records.envelope.decode(found.held))
  return held._tag === "Session" ? asKept(key, held) : undefined
})

/**
 * The same merge with the newest value of the other session. If only the id of the write differs, the change stays the
 * same object.
 */
const withOther = <A>(merge: Merge<A>, other: Kept<A>): Merge<A> =>
  isUnchanged(merge.other.text, other.text) ? merge : { ...merge, other }

/** Drops the held values, which are saved now. */
const release = <A>(
  { records }: Cell<A>,
  store: Store,
  claims: ReadonlyMap<string, Claim<A>>,
  successor: string
): Effect.Effect<void, SessionError> =>
  settle(records, store, claims, ({ hold }, found, now) =>
    found === hold ? [makeTombstone(records.key, successor), graveEnd(now)] : undefined
  )

/** Puts the held sessions back. */
const restore = <A>(
  { records }: Cell<A>,
  store: Store,
  claims: ReadonlyMap<string, Claim<A>>
): Effect.Effect<void, SessionError> =>
  settle(records, store, claims, ({ contents, hold, text }, found) =>
    // Write the original text again too, so a hold that is still in flight does not succeed.
    found === hold || found === text ? [restamp(text), records.expiryOf(contents)] : undefined
  )

/** Replaces the text under the key of each claim, unless it is gone or a log-out has sealed it. */
const settle = <A>(
  records: Records<A>,
  store: Store,
  claims: ReadonlyMap<string, Claim<A>>,
  instead: (claim: Claim<A>, found: string, now: number) => readonly [text: string, expiry: DateTime.Utc] | undefined
): Effect.Effect<void, SessionError> =>
  Effect.clockWith((clock) =>
    Effect.forEach(
      claims.values(),
      (claim) =>
        records.change(store, claim.merge.other.key, undefined, (found) => {
          if (found._tag === "Nothing") return Effect.succeed(done(undefined))
          const next = instead(claim, found.text, clock.currentTimeMillisUnsafe())
          return Effect.succeed(next === undefined ? done(undefined) : write(found.text, next[0], next[1], undefined))
        }),
      { discard: true }
    )
  )
