/**
 * A merge: how the value of another session is taken in, so that it is lost in no case.
 *
 * The other session is replaced by a tombstone that still holds it. When this session is saved, the tombstone lets go of
 * the value; if this session turns out to have ended, or could not be saved, the other is put back.
 */
import { Clock, Effect } from "effect"
import { bestEffort, type Cell } from "./cell.ts"
import { isUnchanged, makeHold, makeId, makeTombstone, restamp } from "./envelope.ts"
import type { SessionError } from "./errors.ts"
import { asFound, done, type Found, graveEnd, type Step, type Store, write } from "./records.ts"
import { type Change, change, type Kept, type Merge, withChanges } from "./state.ts"
import { hashToken, isToken } from "./token.ts"

/** A session that is held for a merge. */
interface Claim<A> {
  readonly merge: Merge<A>
  /** The tombstone that holds it. */
  readonly hold: string
  readonly successor: string
}

/** Notes that the session of a token is to be merged. A no-op if it opens nothing, or this session itself. */
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
  const other = { key, text: found.text, contents: found.contents }
  cell.state = change(cell.state, { _tag: "Merge", id: makeId(), other, combine })
})

/** Runs a commit while the sessions that it merges are held, and lets them go or puts them back afterwards. */
export const whileHeld = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  successor: string,
  save: Effect.Effect<void, SessionError>
): Effect.fn.Return<void, SessionError> {
  const claims: Array<Claim<A>> = []
  const before = cell.state
  yield* Effect.andThen(claimAll(cell, store, successor, claims), save).pipe(
    Effect.onError(() => bestEffort(settle(cell, cell.store, claims, false)))
  )
  if (cell.state._tag === "Stored") return yield* Effect.ignore(settle(cell, store, claims, true))
  yield* Effect.onError(settle(cell, store, claims, false), () =>
    // To be put back by the next try.
    Effect.sync(() => {
      cell.state = before
    })
  )
})

/** Holds the sessions that are to be merged, as they are by now, and drops those that have ended. */
const claimAll = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  successor: string,
  claims: Array<Claim<A>>
): Effect.fn.Return<void, SessionError> {
  const { state } = cell
  if (state._tag === "Ended") return
  const now = yield* Clock.currentTimeMillis
  const changes: Array<Change<A>> = []
  for (const change of state.changes) {
    if (change._tag === "Update") {
      changes.push(change)
      continue
    }
    const known = asFound(change.other)
    const claim = yield* cell.records.change(store, change.other.key, known, (found) =>
      toHold(cell, found, change, successor, now)
    )
    if (claim === undefined) continue
    claims.push(claim)
    changes.push(claim.merge)
  }
  // Read anew: more may have been changed while the store was asked.
  const current = cell.state
  if (current._tag === "Ended") return
  cell.state = withChanges(current, [...changes, ...current.changes.slice(state.changes.length)])
})

const toHold = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  found: Found<A>,
  merge: Merge<A>,
  successor: string,
  now: number
): Effect.fn.Return<Step<Claim<A> | undefined>, SessionError> {
  const { records } = cell
  const { key } = merge.other
  if (cell.records.isActive(found, now)) {
    const { contents, text } = found
    const hold = makeHold(records.key, successor, merge.id, text)
    const claim = { merge: withOther(merge, { key, text, contents }), hold, successor }
    return write(text, hold, records.expiryOf(contents), claim)
  }
  // A try that finds its own tombstone goes on from there.
  if (found._tag !== "Tombstone" || found.isSealed || found.merge !== merge.id || found.held === undefined) {
    return done(undefined)
  }
  const held = yield* Effect.orDie(records.envelope.decode(found.held))
  if (held._tag !== "Session") return done(undefined)
  const other = { key, text: held.text, contents: held.contents }
  return done({ merge: withOther(merge, other), hold: found.text, successor: found.successor })
})

/** The same merge of what the other is by now. If only the write is another, it stays the change that it was. */
const withOther = <A>(merge: Merge<A>, other: Kept<A>): Merge<A> =>
  isUnchanged(merge.other.text, other.text) ? merge : { ...merge, other }

const settle = <A>(
  { records }: Cell<A>,
  store: Store,
  claims: ReadonlyArray<Claim<A>>,
  isSaved: boolean
): Effect.Effect<void, SessionError> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Effect.forEach(
      claims,
      ({ hold, merge: { other }, successor }) =>
        records.change(store, other.key, undefined, (found) => {
          // Sealed by a log-out, or gone.
          if (found._tag !== "Tombstone" || found.text !== hold || found.held === undefined) {
            return Effect.succeed(done(undefined))
          }
          return Effect.succeed(
            isSaved
              ? write(hold, makeTombstone(records.key, successor), graveEnd(now), undefined)
              : write(hold, restamp(found.held), records.expiryOf(other.contents), undefined)
          )
        }),
      { discard: true }
    )
  )
