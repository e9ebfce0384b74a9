/**
 * A commit: how a session is added and saved, without losing what others write at the same time.
 */
import { Clock, Effect } from "effect"
import {
  type Cell,
  contentsToSave,
  endCell,
  isThere,
  knownOf,
  makePatience,
  rebaseCell,
  type SessionQueue,
  withRenewal
} from "./cell.ts"
import { isUnchanged, touch } from "./envelope.ts"
import type { SessionError } from "./errors.ts"
import { gather, tellSaved } from "./groupCommit.ts"
import { changeOf, confirm, join, keysOf, leave } from "./indexes.ts"
import { whileHeld } from "./merging.ts"
import { asKept, done, type Found, graveEnd, longAgo, look, type Step, type Store, wait, write } from "./records.ts"
import { renew } from "./renewal.ts"
import {
  type Attempt,
  applyAll,
  type Change,
  type Contents,
  isMerge,
  type Kept,
  type New,
  noteAttempt,
  type Secret,
  type Stored,
  saved,
  startAnew,
  withChanges,
  without
} from "./state.ts"
import { publish } from "./telemetry.ts"
import { makeSecret } from "./token.ts"
import { giveBack } from "./turns.ts"

/** What the store holds after a commit, and which changes are in it. */
interface Outcome<A> {
  readonly kept: Kept<A>
  readonly made: ReadonlyArray<Change<A>>
}

/**
 * Saves the session, if there is something to save. Afterwards the state is `Stored` if the session is in the store.
 */
export const commit = <A>(cell: Cell<A>, store: Store, queue: SessionQueue<A>): Effect.Effect<void, SessionError> => {
  const { state } = cell
  switch (state._tag) {
    case "Ended":
      return Effect.void
    case "New":
      return commitNew(cell, store, queue, state)
    case "Stored":
      return state.changes.some(isMerge)
        ? whileHeld(
            cell,
            store,
            state.key,
            Effect.suspend(() => commitStored(cell, store, queue))
          )
        : commitStored(cell, store, queue)
  }
}

const commitStored = <A>(cell: Cell<A>, store: Store, queue: SessionQueue<A>): Effect.Effect<void, SessionError> => {
  const { records, seal, state } = cell
  if (state._tag !== "Stored") return Effect.void
  const belonging = changeOf(records, state.base, state.contents)
  if (seal !== "open" && (belonging === "renew" || state.renewal !== undefined)) {
    // Never under the old token, if the session now belongs to another user.
    return belonging === "renew" ? warnOfSeal(cell) : Effect.andThen(warnOfSeal(cell), save(cell, store, queue, state))
  }
  if (state.renewal !== undefined) return renew(cell, store, queue, state.renewal)
  switch (belonging) {
    case "none":
      return save(cell, store, queue, state)
    case "join":
      return joinLate(cell, store, queue, state)
    case "renew":
      return renewForIndex(cell, store, queue, state)
  }
}

/** A lifetime that the handler has set takes precedence over the one that begins now. */
const renewForIndex = <A>(
  cell: Cell<A>,
  store: Store,
  queue: SessionQueue<A>,
  state: Stored<A>
): Effect.Effect<void, SessionError> =>
  Effect.clockWith((clock) => {
    const deadline = cell.records.deadlineAt(clock.currentTimeMillisUnsafe())
    const next = withRenewal(state, [startAnew(deadline), ...state.changes])
    cell.state = next
    return next.renewal === undefined ? Effect.void : renew(cell, store, queue, next.renewal)
  })

/** A session from before the index was declared joins it under its present key. */
const joinLate = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  queue: SessionQueue<A>,
  { base, contents, key }: Stored<A>
): Effect.fn.Return<void, SessionError> {
  const { openedAt, records } = cell
  const joining = { key, former: undefined, openedAt, memberOf: base.memberOf }
  if (!(yield* join(records, store, contents, joining))) {
    yield* records.end(store, key, undefined)
    return endCell(cell, key, queue)
  }
  const memberOf = keysOf(records, contents.value)
  const { state } = cell
  if (state._tag !== "Stored") return
  cell.state = withChanges(state, [
    ...state.changes,
    { _tag: "Update", apply: (contents: Contents<A>) => ({ ...contents, memberOf }) }
  ])
  yield* save(cell, store, queue, { key })
  const left = base.memberOf.filter((record) => !memberOf.includes(record))
  if (left.length > 0) yield* leave(records, store, left, key)
})

const commitNew = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  queue: SessionQueue<A>,
  state: New<A>
): Effect.fn.Return<void, SessionError> {
  if (yield* isTrivial(cell, state)) return
  if (cell.seal !== "open") return yield* warnOfSeal(cell)
  const current = cell.state
  if (current._tag !== "New") return
  const secret = current.secret ?? makeSecret()
  cell.state = { ...current, secret }
  if (!current.changes.some(isMerge)) return yield* add(cell, store, queue, secret, current.changes)
  // A session that merges another must be in the store, so a log-out of the other can find it.
  yield* add(cell, store, queue, secret, nothing)
  yield* commit(cell, store, queue)
})

const nothing: ReadonlyArray<never> = []

const warnOfSeal = <A>(cell: Cell<A>): Effect.Effect<void> => {
  if (cell.seal === "warned") return Effect.void
  cell.seal = "warned"
  return Effect.logWarning(
    `${cell.records.key}: a new token was not saved, because the response that would have carried it has been sent. ` +
      `Commit before the response begins, as before a body that streams or an upgrade to a WebSocket.`
  )
}

/**
 * Whether the changes had no effect, such as reading a flash message that is not there. They are no reason to add a
 * session.
 */
const isTrivial = Effect.fnUntraced(function* <A>(cell: Cell<A>, state: New<A>) {
  if (state.changes.length === 0) return true
  const { envelope, initial } = cell.records
  const changed = yield* envelope.encode(state.contents)
  const untouched = yield* envelope.encode({ ...state.base, value: initial() })
  if (!isUnchanged(changed, untouched)) return false
  const current = cell.state
  if (current._tag === "New") {
    const changes = without(current.changes, state.changes)
    cell.state = { ...current, base: state.contents, changes, contents: applyAll(state.contents, changes) }
  }
  return true
})

/** The next write. If the last one was not confirmed and has the same contents, it is repeated. */
const attempt = <A>(
  cell: Cell<A>,
  state: New<A> | Stored<A>,
  changes: ReadonlyArray<Change<A>>,
  now: number
): Effect.Effect<Attempt<A>> => {
  const used = contentsToSave(cell, changes === state.changes ? state.contents : state.base, now)
  const isNew = state._tag === "New" && cell.records.indexes.size > 0
  const contents = isNew ? { ...used, memberOf: keysOf(cell.records, used.value) } : used
  const last = state.attempts.at(-1)
  if (last?.changes === changes && last.contents.usedAt === contents.usedAt) return Effect.succeed(last)
  // If only the use is noted, keep the text: it may have fields that this deployment does not know.
  if (state._tag === "Stored" && changes.length === 0 && !state.isPending) {
    return Effect.succeed({ text: touch(state.text, contents.usedAt), contents, changes })
  }
  // A new session without its changes must not be listed yet.
  const isPending = state._tag === "New" && changes === nothing
  return Effect.mapEager(cell.records.envelope.encode(contents, { isPending }), (text) => ({ text, contents, changes }))
}

const note = <A>(cell: Cell<A>, sent: Attempt<A>): void => {
  if (cell.state._tag !== "Ended") cell.state = noteAttempt(cell.state, sent)
}

/** Adds a new session, either with all its changes, or pending and without them. */
const add = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  queue: SessionQueue<A>,
  { key, token }: Secret,
  changes: ReadonlyArray<Change<A>>
): Effect.fn.Return<void, SessionError> {
  const { records, state } = cell
  if (state._tag !== "New") return
  const { undecodable } = state
  const now = yield* Clock.currentTimeMillis
  const sent = yield* attempt(cell, state, changes, now)
  if (records.endOf(sent.contents) < now) return endCell(cell, undefined, queue)
  note(cell, sent)
  const joining = { key, former: undefined, openedAt: cell.openedAt, memberOf: nothing }
  if (!(yield* join(records, store, sent.contents, joining))) {
    // An earlier try may have arrived.
    if (state.attempts.length > 0) yield* records.bury(store, key)
    return endCell(cell, undefined, queue)
  }
  if (undecodable !== undefined) yield* store.replace(undecodable.key, undecodable.text, "", longAgo)
  const expiry = changes === nothing ? graveEnd(now) : records.expiryOf(sent.contents)
  const isAdded = yield* store.create(key, sent.text, expiry)
  const mine = isAdded ? sent : yield* findAdded(cell, store, key)
  const current = cell.state
  if (mine === undefined || current._tag !== "New") return endCell(cell, undefined, queue)
  if (!(yield* confirm(store, mine.contents, key))) {
    yield* records.bury(store, key)
    return endCell(cell, undefined, queue)
  }
  const { contents, text } = mine
  const isPending = mine.changes === nothing
  cell.state = saved(current, { key, text, contents, isPending }, token, mine.changes)
  yield* records.telemetry.created
  yield* publish({ _tag: "Created", session: records.key, id: key })
  // An earlier try has arrived.
  if (mine !== sent && cell.state.changes.length > 0) yield* commit(cell, store, queue)
})

/**
 * Finds an unconfirmed try that has arrived. Nobody else has the key: if the text differs, another request has changed
 * the session from a list.
 */
const findAdded = Effect.fnUntraced(function* <A>(cell: Cell<A>, store: Store, key: string) {
  const found = yield* cell.records.find(store, key)
  const { state } = cell
  if (state._tag !== "New" || found._tag !== "Session") return
  const { contents, text } = found
  const changes = state.attempts.flatMap(({ changes }) => changes)
  return state.attempts.find((sent) => sent.text === text) ?? { text, contents, changes }
})

/**
 * Saves a session that is in the store. In few steps of the fiber, because every request that changes something runs
 * this.
 */
const save = <A>(
  cell: Cell<A>,
  store: Store,
  queue: SessionQueue<A>,
  { key }: { readonly key: string }
): Effect.Effect<void, SessionError> =>
  Effect.clockWith((clock) => {
    const { records, state } = cell
    if (state._tag !== "Stored") return Effect.void
    const now = clock.currentTimeMillisUnsafe()
    // Only a look-up can tell what an earlier unconfirmed write has done.
    const patience = makePatience()
    const known = state.attempts.length > 0 ? undefined : knownOf(cell, state, queue, now)
    return Effect.flatMap(
      records.change(store, key, known, (found, isFresh) =>
        patience(cell, found) ? Effect.succeed(wait) : toSave(cell, queue, found, isFresh, now)
      ),
      (outcome) => {
        if (outcome === "Moved") return commitStored(cell, store, queue)
        const current = cell.state
        if (outcome === undefined || current._tag !== "Stored") return Effect.sync(() => endCell(cell, key, queue))
        queue.seen = outcome.kept
        tellSaved(queue, outcome.kept)
        cell.state = saved(current, outcome.kept, current.token, outcome.made)
        return Effect.void
      }
    )
  })

const toSave = <A>(
  cell: Cell<A>,
  queue: SessionQueue<A>,
  found: Found<A>,
  isFresh: boolean,
  now: number
): Effect.Effect<Step<Outcome<A> | "Moved" | undefined>> => {
  const { isUse, records, state } = cell
  // The write lost. Commits that it included are included in the next one, or wait.
  giveBack(queue)
  if (state._tag !== "Stored") return Effect.succeed(done(undefined))
  if (!isThere(cell, found, now)) return Effect.succeed(done(undefined))
  const kept = asKept(state.key, found)
  const isConflict = rebaseCell(cell, state, kept)
  // Another request may have changed which user it belongs to.
  if (isConflict && changeOf(records, kept.contents, cell.state.contents) !== "none") {
    return Effect.as(records.telemetry.conflict, done("Moved"))
  }
  const isTouched = isUse && records.isTouchDue(kept.contents, now)
  const step = toWrite(cell, queue, kept, { isFresh, isTouched, now })
  return isConflict ? Effect.andThen(records.telemetry.conflict, step) : step
}

const toWrite = <A>(
  cell: Cell<A>,
  queue: SessionQueue<A>,
  kept: Kept<A>,
  { isFresh, isTouched, now }: { readonly isFresh: boolean; readonly isTouched: boolean; readonly now: number }
): Effect.Effect<Step<Outcome<A> | undefined>> => {
  const { records, state } = cell
  if (state._tag !== "Stored") return Effect.succeed(done(undefined))
  const unchanged = { kept, made: state.changes }
  if (state.changes.length === 0 && !isTouched && !kept.isPending) return Effect.succeed(done(unchanged))
  return Effect.flatMapEager(attempt(cell, state, state.changes, now), (own): Effect.Effect<Step<Outcome<A>>> => {
    // Nothing to write, if the session is still the one that the changes were applied to.
    if (!isTouched && isUnchanged(own.text, kept.text)) return Effect.succeed(isFresh ? done(unchanged) : look)
    return Effect.mapEager(gather(cell, queue, kept, own, { isFresh, now }), (sent) => {
      note(cell, sent)
      const next = { key: kept.key, text: sent.text, contents: sent.contents, isPending: false }
      return write(kept.text, sent.text, records.expiryOf(sent.contents), { kept: next, made: sent.changes })
    })
  })
}
