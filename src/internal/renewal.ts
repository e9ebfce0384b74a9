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
import {
  bestEffort,
  type Cell,
  contentsToSave,
  endCell,
  isThere,
  knownOf,
  makePatience,
  type Patience,
  rebaseCell,
  type SessionQueue
} from "./cell.ts"
import { makeTombstone, restamp } from "./envelope.ts"
import type { SessionError } from "./errors.ts"
import { confirm, join, keysOf, leave, tidy } from "./indexes.ts"
import {
  asFound,
  asKept,
  done,
  type Found,
  graveEnd,
  nothing,
  type Records,
  remove,
  type Step,
  type Store,
  wait,
  write
} from "./records.ts"
import { type Change, type Contents, type Kept, type Renewal, type Secret, type Stored, saved } from "./state.ts"
import { publish } from "./telemetry.ts"

/** The session under its new key, and the changes that are in it. */
interface Pending<A> {
  readonly text: string
  readonly contents: Contents<A>
  readonly made: ReadonlyArray<Change<A>>
}

export const renew = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  queue: SessionQueue<A>,
  secret: Secret
): Effect.fn.Return<void, SessionError> {
  const { state } = cell
  if (state._tag !== "Stored") return
  const known = knownOf(cell, state, queue, yield* Clock.currentTimeMillis)
  const moved = yield* Effect.onError(move(cell, store, known, secret), () => putBack(cell, secret))
  const current = cell.state
  if (moved === undefined || current._tag !== "Stored") return endCell(cell, state.key, queue)
  queue.seen = undefined
  cell.state = saved(current, moved.kept, secret.token, moved.made)
  yield* publish({ _tag: "Renewed", session: cell.records.key, id: secret.key, former: state.key })
  yield* takeOut(cell.records, store, current, moved.kept)
})

/** Takes the old key out of the indexes, now that it is gone. */
const takeOut = <A>(
  records: Records<A>,
  store: Store,
  { base, key }: Stored<A>,
  kept: Kept<A>
): Effect.Effect<void> => {
  if (base.memberOf.length === 0) return Effect.void
  const isKept = (record: string) => kept.contents.memberOf.includes(record)
  return Effect.andThen(
    tidy(records, store, base.memberOf.filter(isKept), kept.key),
    leave(
      records,
      store,
      base.memberOf.filter((record) => !isKept(record)),
      key
    )
  )
}

/** Notes what is being asked of the store, for what has to be put back or taken up if it fails, now or in a later try. */
const note = <A>(cell: Cell<A>, asked: Partial<Omit<Renewal<A>, keyof Secret>>): void => {
  const { state } = cell
  if (state._tag === "Stored" && state.renewal !== undefined) {
    cell.state = { ...state, renewal: { ...state.renewal, ...asked } }
  }
}

const renewalOf = <A>({ state }: Cell<A>): Renewal<A> | undefined =>
  state._tag === "Stored" ? state.renewal : undefined

/** The session under its new key, as it is confirmed, and the changes that are in it. */
interface Moved<A> {
  readonly kept: Kept<A>
  readonly made: ReadonlyArray<Change<A>>
}

/** The three steps. `undefined` if the session has ended. */
const move = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  known: Found<A> | undefined,
  secret: Secret
): Effect.fn.Return<Moved<A> | undefined, SessionError> {
  const { records, state } = cell
  if (state._tag !== "Stored") return
  // If an earlier try has come as far as that, its session may have arrived.
  const arrived = yield* adopt(cell, store, secret)
  if (arrived !== undefined) return arrived === "Ended" ? undefined : arrived
  let found = known
  while (true) {
    const patience = makePatience()
    const pending: Pending<A> | undefined = yield* records.change(store, state.key, found, (found) =>
      toBury(cell, store, found, secret, patience)
    )
    if (pending === undefined) {
      yield* removeOwn(cell, store, secret)
      return
    }
    // A revocation came in between. What was there before the log-in goes on, unless it is to end as well.
    if (!(yield* confirm(store, pending.contents, secret.key))) {
      yield* putBack(cell, secret)
      return
    }
    const kept: Kept<A> | "Gone" | undefined = yield* finish(cell, store, secret, pending)
    if (kept === undefined) return
    if (kept !== "Gone") return { kept, made: pending.made }
    // It took so long that the pending session expired, if the tombstone is not sealed: a log-out seals it first.
    found = undefined
  }
})

/**
 * The session that an earlier try has sent, if it arrived. Somebody may have changed it since, as it stood in a list, or
 * have ended it, which leaves a tombstone.
 */
const adopt = <A>(
  cell: Cell<A>,
  store: Store,
  { key }: Secret
): Effect.Effect<Moved<A> | "Ended" | undefined, SessionError> => {
  const sent = renewalOf(cell)?.sent
  if (sent === undefined) return Effect.undefined
  const step = (found: Found<A>): Step<Moved<A> | "Ended" | undefined> => {
    if (found._tag === "Nothing") return done(undefined)
    if (found._tag !== "Session") return done("Ended")
    if (found.isPending) return done(undefined)
    const kept = asKept(key, found)
    if (found.text !== sent.text) return done({ kept, made: sent.made })
    // As another write: a put-back that is still on its way must not remove what is handed out now.
    const text = restamp(found.text)
    const moved = { kept: { ...kept, text }, made: sent.made }
    return write(found.text, text, cell.records.expiryOf(found.contents), moved)
  }
  return cell.records.change(store, key, undefined, (found) => Effect.succeed(step(found)))
}

/** Removes what this renewal has made, and says whether the old session may be put back. What others go on with, stays. */
const removeOwn = <A>(cell: Cell<A>, store: Store, { key }: Secret): Effect.Effect<boolean, SessionError> =>
  cell.records.change(store, key, undefined, (found) => {
    const isOwn = found._tag === "Session" && (found.isPending || found.text === renewalOf(cell)?.sent?.text)
    return Effect.succeed(isOwn ? remove(found.text, true) : done(found._tag === "Nothing"))
  })

/** The first step, and what is to be written for the second. */
const toBury = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  found: Found<A>,
  secret: Secret,
  patience: Patience
): Effect.fn.Return<Step<Pending<A> | undefined>, SessionError> {
  const { state } = cell
  if (state._tag !== "Stored") return done(undefined)
  const now = yield* Clock.currentTimeMillis
  if (patience(cell, found)) return wait
  const tombstone = makeTombstone(cell.records.key, secret.key)
  if (isThere(cell, found, now)) {
    if (rebaseCell(cell, state, asKept(state.key, found))) yield* cell.records.telemetry.conflict
  } else if (found._tag !== "Tombstone" || found.text !== tombstone) {
    return done(undefined)
  }
  const { state: current } = cell
  if (current._tag !== "Stored") return done(undefined)
  const { base, contents, key: former } = current
  const joining = { key: secret.key, former, openedAt: cell.openedAt, memberOf: base.memberOf }
  if (!(yield* join(cell.records, store, contents, joining))) return done(undefined)
  const pending = yield* prepare(cell, store, secret)
  // Its own tombstone, left by an earlier try, is written again: a log-out may seal it while the first step is taken.
  note(cell, { isBurying: true })
  return write(found.text, tombstone, graveEnd(yield* Clock.currentTimeMillis), pending)
})

const prepare = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  secret: Secret
): Effect.fn.Return<Pending<A>, SessionError> {
  const { records, state } = cell
  const now = yield* Clock.currentTimeMillis
  const made = state._tag === "Ended" ? [] : state.changes
  const contents = {
    ...contentsToSave(cell, state.contents, now),
    issuedAt: Math.floor(now),
    memberOf: keysOf(records, state.contents.value),
    former: state._tag === "Stored" ? state.key : undefined
  }
  const text = yield* records.envelope.encode(contents, { isPending: true })
  // Nobody else has the key, so that what may be there is left of an earlier try.
  yield* records.change(store, secret.key, nothing, (left) =>
    Effect.succeed(write(left._tag === "Nothing" ? undefined : left.text, text, graveEnd(now), undefined))
  )
  return { text, contents, made }
})

/** The third step, if what the first one created is still there. */
const finish = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  { key }: Secret,
  { contents, made, text }: Pending<A>
): Effect.fn.Return<Kept<A> | "Gone" | undefined, SessionError> {
  const { records } = cell
  const kept = { key, text: yield* records.envelope.encode(contents), contents, isPending: false }
  note(cell, { sent: { text: kept.text, made } })
  return yield* records.change<Kept<A> | "Gone" | undefined, never>(store, key, asFound({ ...kept, text }), (found) =>
    Effect.succeed(stepToFinish(records, found, text, kept))
  )
})

const stepToFinish = <A>(
  records: Records<A>,
  found: Found<A>,
  pending: string,
  kept: Kept<A>
): Step<Kept<A> | "Gone" | undefined> => {
  if (found._tag === "Nothing") return done("Gone")
  if (found._tag !== "Session") return done(undefined)
  return found.text === pending
    ? write(pending, kept.text, records.expiryOf(kept.contents), kept)
    : done(found.text === kept.text ? kept : undefined)
}

/**
 * Puts the old session back after a renewal that was cut off. Best effort, as the store may be what failed; a commit that
 * is tried again goes on from whatever is there.
 */
const putBack = <A>(cell: Cell<A>, secret: Secret): Effect.Effect<void> => {
  const { records, state, store } = cell
  if (state._tag !== "Stored" || state.renewal === undefined || !state.renewal.isBurying) return Effect.void
  const { sent } = state.renewal
  const tombstone = makeTombstone(records.key, secret.key)
  // Another write than the one that was loaded, so that a tombstone which is still on its way does not arrive.
  const text = restamp(state.text)
  const restore = Effect.flatMap(Clock.currentTimeMillis, (now) =>
    records.change(store, state.key, undefined, (found) =>
      Effect.succeed(
        (found._tag === "Tombstone" && found.text === tombstone) ||
          (isThere(cell, found, now) && found.text === state.text)
          ? write(found.text, text, records.expiryOf(state.base), undefined)
          : done(undefined)
      )
    )
  )
  // First, or a new session would stay whose token nobody has. One that is still pending goes by itself.
  const removed = removeOwn(cell, store, secret)
  const isRemoved = sent === undefined ? Effect.orElseSucceed(removed, () => true) : removed
  return bestEffort(
    Effect.flatMap(isRemoved, (isGone) => {
      if (!isGone) return Effect.void
      note(cell, { sent: undefined })
      return restore
    })
  )
}
