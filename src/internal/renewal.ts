/**
 * A renewal: how a commit moves a session to a new token, in three steps.
 *
 * 1. Create the session under its new key, pending for a minute: a pending session is never opened and never listed.
 * 2. Replace the old session by a tombstone that names the new key. From now on, the old token opens nothing, and a
 *    log-out with it ends the new session.
 * 3. Save the new session without `pending`, and hand out its token.
 *
 * If it is cut off before the second step, the old session is unchanged. If it is cut off later, the old session is put
 * back. A log-out with the old token seals the tombstone, or removes the text that the second step expects: then the
 * renewal fails, and both sessions are gone. Each step can be repeated, so a commit that failed anywhere can be
 * retried.
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

/** The session under its new key, and the changes in it. */
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

/** Removes the old key from the indexes, now that its session is gone. */
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

/** Notes what is about to be sent to the store. If it fails, this or a later try undoes or continues it. */
const note = <A>(cell: Cell<A>, asked: Partial<Omit<Renewal<A>, keyof Secret>>): void => {
  const { state } = cell
  if (state._tag === "Stored" && state.renewal !== undefined) {
    cell.state = { ...state, renewal: { ...state.renewal, ...asked } }
  }
}

const renewalOf = <A>({ state }: Cell<A>): Renewal<A> | undefined =>
  state._tag === "Stored" ? state.renewal : undefined

/** The session under its new key, as confirmed by the store, and the changes in it. */
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
  // If an earlier try got that far, its session may have arrived.
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
    // A revocation came in between. The session from before the log-in continues, unless it was revoked too.
    if (!(yield* confirm(store, pending.contents, secret.key))) {
      yield* putBack(cell, secret)
      return
    }
    const kept: Kept<A> | "Gone" | undefined = yield* finish(cell, store, secret, pending)
    if (kept === undefined) return
    if (kept !== "Gone") return { kept, made: pending.made }
    // If the tombstone is not sealed, the renewal took so long that the pending session expired: a log-out seals it
    // first.
    found = undefined
  }
})

/**
 * The session that an earlier try sent, if it arrived. It was listed, so it may have been changed since, or ended,
 * which leaves a tombstone.
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
    // With a new write id: a put-back that is still in flight must not remove the session that is handed out now.
    const text = restamp(found.text)
    const moved = { kept: { ...kept, text }, made: sent.made }
    return write(found.text, text, cell.records.expiryOf(found.contents), moved)
  }
  return cell.records.change(store, key, undefined, (found) => Effect.succeed(step(found)))
}

/**
 * Removes what this renewal has made, and returns whether the old session may be put back. Keeps a session that others
 * already use.
 */
const removeOwn = <A>(cell: Cell<A>, store: Store, { key }: Secret): Effect.Effect<boolean, SessionError> =>
  cell.records.change(store, key, undefined, (found) => {
    const isOwn = found._tag === "Session" && (found.isPending || found.text === renewalOf(cell)?.sent?.text)
    return Effect.succeed(isOwn ? remove(found.text, true) : done(found._tag === "Nothing"))
  })

/** The first step, and the write for the second. */
const toBury = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  found: Found<A>,
  secret: Secret,
  patience: Patience
): Effect.fn.Return<Step<Pending<A> | undefined>, SessionError> {
  const now = yield* Clock.currentTimeMillis
  // Only now: the fiber may have yielded, and a change may have been made meanwhile.
  const { state } = cell
  if (state._tag !== "Stored") return done(undefined)
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
  // Write the tombstone of an earlier try again: a log-out may seal it during the first step.
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
  // Nobody else has the key, so anything under it is left from an earlier try.
  yield* records.change(store, secret.key, nothing, (left) =>
    Effect.succeed(write(left._tag === "Nothing" ? undefined : left.text, text, graveEnd(now), undefined))
  )
  return { text, contents, made }
})

/** The third step, if the session of the first step is still there. */
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
 * Puts the old session back after a renewal that was cut off. Best effort, because the store may be what failed. A
 * commit that is retried continues from whatever is there.
 */
const putBack = <A>(cell: Cell<A>, secret: Secret): Effect.Effect<void> => {
  const { records, state, store } = cell
  if (state._tag !== "Stored" || state.renewal === undefined || !state.renewal.isBurying) return Effect.void
  const { sent } = state.renewal
  const tombstone = makeTombstone(records.key, secret.key)
  // With a new write id, so a tombstone that is still in flight does not succeed.
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
  // Do this first. Otherwise a new session would stay whose token nobody has. A pending one expires by itself.
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
