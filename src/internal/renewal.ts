/**
 * A renewal: how a session moves to a new token in a commit, in three steps.
 *
 * 1. The session is created under its new key, pending: for a minute, never opened and never listed.
 * 2. A tombstone that names the new key takes the place of what was loaded under the old one. From here on the old token
 *    opens nothing, and a log-out by it ends the new session.
 * 3. The new session stops being pending, and its token is handed out.
 *
 * Cut off before the second step, the old session is as it was. Cut off after it, the old session is put back. A log-out
 * by the old token seals the tombstone, or has removed what the second step expects: the renewal is off, and both are
 * gone. Each step can be taken again, so that a commit which failed anywhere can be tried again.
 */
import { Clock, Effect } from "effect"
import { bestEffort, type Cell, contentsToSave, endCell, knownOf, rebaseCell } from "./cell.ts"
import { makeTombstone, restamp } from "./envelope.ts"
import type { SessionError } from "./errors.ts"
import { asFound, done, type Found, graveEnd, type Step, type Store, write } from "./records.ts"
import { type Change, type Contents, type Kept, type Secret, saved } from "./state.ts"
import type { Queue } from "./turns.ts"

/** The session under its new key, and the changes that are in it. */
interface Pending<A> {
  readonly text: string
  readonly contents: Contents<A>
  readonly made: ReadonlyArray<Change<A>>
}

export const renew = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  queue: Queue<Kept<A>>,
  secret: Secret
): Effect.fn.Return<void, SessionError> {
  const { records, state } = cell
  if (state._tag !== "Stored") return
  const now = yield* Clock.currentTimeMillis
  let isBurying = false
  const bury = records.change(store, state.key, knownOf(state, queue), (found) =>
    Effect.tap(toBury(cell, store, found, secret, now), (step) => {
      isBurying ||= step._tag === "Write"
      return Effect.void
    })
  )
  const move = Effect.flatMap(bury, (pending) =>
    pending === undefined
      ? Effect.as(store.delete(secret.key), undefined)
      : Effect.map(finish(cell, store, secret, pending), (kept) => kept && { kept, made: pending.made })
  )
  const moved = yield* Effect.onError(move, () => (isBurying ? putBack(cell, secret, now) : Effect.void))
  if (moved === undefined || cell.state._tag === "Ended") return endCell(cell, state.key, queue)
  queue.seen = undefined
  cell.state = saved(cell.state, moved.kept, secret.token, moved.made)
})

/** The first step, and what is to be written for the second. */
const toBury = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  found: Found<A>,
  secret: Secret,
  now: number
): Effect.fn.Return<Step<Pending<A> | undefined>, SessionError> {
  const { state } = cell
  if (state._tag !== "Stored") return done(undefined)
  const tombstone = makeTombstone(cell.records.key, secret.key)
  if (cell.records.isActive(found, now)) {
    const { contents, text } = found
    if (rebaseCell(cell, state, { key: state.key, text, contents })) yield* cell.records.telemetry.conflict
  } else if (found._tag !== "Tombstone" || found.text !== tombstone) {
    return done(undefined)
  }
  const pending = yield* prepare(cell, store, secret, now)
  // Its own tombstone, left by an earlier try, is written again: a log-out may seal it while the first step is taken.
  return write(found.text, tombstone, graveEnd(now), pending)
})

const prepare = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  secret: Secret,
  now: number
): Effect.fn.Return<Pending<A>, SessionError> {
  const { records, state } = cell
  const made = state._tag === "Ended" ? [] : state.changes
  const contents = { ...contentsToSave(cell, now), issuedAt: Math.floor(now) }
  const text = yield* records.envelope.encode(contents, { isPending: true })
  let isThere = false
  while (!isThere) {
    // Nobody else has the key, so that what is there is left of an earlier try.
    isThere =
      (yield* store.create(secret.key, text, graveEnd(now))) ||
      (yield* records.change(store, secret.key, undefined, (left) =>
        Effect.succeed(left._tag === "Session" ? write(left.text, text, graveEnd(now), true) : done(false))
      ))
  }
  return { text, contents, made }
})

/** The third step. `undefined` if a log-out has been faster. */
const finish = Effect.fnUntraced(function* <A>(
  { records }: Cell<A>,
  store: Store,
  { key }: Secret,
  { contents, text }: Pending<A>
): Effect.fn.Return<Kept<A> | undefined, SessionError> {
  const kept = { key, text: yield* records.envelope.encode(contents), contents }
  return yield* records.change(store, key, asFound({ ...kept, text }), (found) =>
    Effect.succeed(
      found._tag === "Session" && found.text === text
        ? write(text, kept.text, records.expiryOf(contents), kept)
        : done(found._tag === "Session" && found.text === kept.text ? kept : undefined)
    )
  )
})

/**
 * Puts the old session back after a renewal that was cut off. Best effort, as the store may be what failed; a commit that
 * is tried again goes on from whatever is there.
 */
const putBack = <A>(cell: Cell<A>, secret: Secret, now: number): Effect.Effect<void> => {
  const { records, state, store } = cell
  if (state._tag !== "Stored") return Effect.void
  const tombstone = makeTombstone(records.key, secret.key)
  // Another write than the one that was loaded, so that a tombstone which is still on its way does not arrive.
  const text = restamp(state.text)
  const restore = Effect.andThen(
    // First, or a new session whose token nobody has would stay.
    store.delete(secret.key),
    records.change(store, state.key, undefined, (found) =>
      Effect.succeed(
        (found._tag === "Tombstone" && found.text === tombstone) ||
          (cell.records.isActive(found, now) && found.text === state.text)
          ? write(found.text, text, records.expiryOf(state.base), undefined)
          : done(undefined)
      )
    )
  )
  return bestEffort(restore)
}
