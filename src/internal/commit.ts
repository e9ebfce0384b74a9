/**
 * A commit: how a session is added and saved, without losing what others write at the same time.
 */
import { Clock, Effect } from "effect"
import { type Cell, contentsToSave, endCell, knownOf, rebaseCell } from "./cell.ts"
import { isUnchanged } from "./envelope.ts"
import type { SessionError } from "./errors.ts"
import { whileHeld } from "./merging.ts"
import { done, type Found, longAgo, look, type Step, type Store, write } from "./records.ts"
import { renew } from "./renewal.ts"
import {
  type Attempt,
  applyAll,
  type Change,
  type Kept,
  type New,
  type Secret,
  type Stored,
  saved,
  without
} from "./state.ts"
import { makeSecret } from "./token.ts"
import type { Turn } from "./turns.ts"

/** What the store holds after a commit, and which changes are in it. */
interface Outcome<A> {
  readonly kept: Kept<A>
  readonly made: ReadonlyArray<Change<A>>
}

/** Saves what there is to save. Afterwards the state is `Stored` if the session is in the store. */
export const commit = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  turn: Turn<Kept<A>>
): Effect.fn.Return<void, SessionError> {
  const { state } = cell
  switch (state._tag) {
    case "Ended":
      return
    case "New": {
      if (yield* isTrivial(cell, state)) return
      if (cell.isSealed) return yield* warnOfSeal(cell)
      const secret = state.secret ?? makeSecret()
      cell.state = { ...state, secret }
      return yield* withMerges(cell, store, secret.key, add(cell, store, turn, secret))
    }
    case "Stored": {
      const { key, renewal } = state
      if (renewal === undefined) return yield* withMerges(cell, store, key, save(cell, store, turn, key))
      if (!cell.isSealed) return yield* withMerges(cell, store, renewal.key, renew(cell, store, turn, state, renewal))
      yield* warnOfSeal(cell)
      return yield* withMerges(cell, store, key, save(cell, store, turn, key))
    }
  }
})

const withMerges = <A>(
  cell: Cell<A>,
  store: Store,
  successor: string,
  save: Effect.Effect<void, SessionError>
): Effect.Effect<void, SessionError> =>
  cell.state._tag !== "Ended" && cell.state.changes.some(({ _tag }) => _tag === "Merge")
    ? whileHeld(cell, store, successor, save)
    : save

const warnOfSeal = <A>({ records }: Cell<A>): Effect.Effect<void> =>
  Effect.logWarning(
    `${records.key}: a new token was not saved, because the response that would have carried it has been sent. Commit ` +
      `before the response begins, as before a body that streams or an upgrade to a WebSocket.`
  )

/** Whether the changes changed nothing, such as those of a flash message that was not there: no reason for a session. */
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

/** The next write: the same as the last one, if that was not confirmed and nothing was changed since. */
const attempt = <A>(cell: Cell<A>, state: New<A> | Stored<A>, now: number): Effect.Effect<Attempt<A>> => {
  const last = state.attempts.at(-1)
  if (last !== undefined && last.changes === state.changes) return Effect.succeed(last)
  const contents = contentsToSave(cell, now)
  return Effect.mapEager(cell.records.envelope.encode(contents), (text) => ({ text, contents, changes: state.changes }))
}

/** Notes that a write is being sent, so that it is recognised if it arrives and is not confirmed. */
const note = <A>(cell: Cell<A>, sent: Attempt<A>): void => {
  const { state } = cell
  if (state._tag === "Ended" || state.attempts.includes(sent)) return
  cell.state = { ...state, attempts: [...state.attempts, sent] }
}

/** Adds a new session. */
const add = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  turn: Turn<Kept<A>>,
  { key, token }: Secret
): Effect.fn.Return<void, SessionError> {
  const { records, state } = cell
  if (state._tag !== "New") return
  const { undecodable } = state
  const now = yield* Clock.currentTimeMillis
  if (records.endOf(state.contents) < now) return endCell(cell, undefined, turn)
  const sent = yield* attempt(cell, state, now)
  note(cell, sent)
  if (undecodable !== undefined) yield* store.replace(undecodable.key, undecodable.text, "", longAgo)
  const isAdded = yield* store.create(key, sent.text, records.expiryOf(sent.contents))
  const mine = isAdded ? sent : yield* findAdded(cell, store, key)
  const current = cell.state
  if (mine === undefined || current._tag !== "New") return endCell(cell, undefined, turn)
  cell.state = saved(current, { key, text: mine.text, contents: mine.contents }, token, mine.changes)
  yield* records.telemetry.created
  // It was an earlier try that arrived.
  if (mine !== sent && cell.state.changes.length > 0) yield* save(cell, store, turn, key)
})

/** The try that has arrived although it was not confirmed: nobody else has the key. */
const findAdded = Effect.fnUntraced(function* <A>(cell: Cell<A>, store: Store, key: string) {
  const found = yield* cell.records.find(store, key)
  const { state } = cell
  return state._tag === "New" && found._tag === "Session"
    ? state.attempts.find(({ text }) => text === found.text)
    : undefined
})

/** Saves a session that is in the store. */
const save = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  turn: Turn<Kept<A>>,
  key: string
): Effect.fn.Return<void, SessionError> {
  const { records, state } = cell
  if (state._tag !== "Stored") return
  const now = yield* Clock.currentTimeMillis
  // What one of its own writes may have made of it is known by a look alone.
  const known = state.attempts.length > 0 ? undefined : knownOf(state, turn)
  const outcome = yield* records.change(store, key, known, (found, isFresh) => toSave(cell, found, isFresh, now))
  const current = cell.state
  if (outcome === undefined || current._tag !== "Stored") return endCell(cell, key, turn)
  turn.seen = outcome.kept
  cell.state = saved(current, outcome.kept, current.token, outcome.made)
})

const toSave = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  found: Found<A>,
  isFresh: boolean,
  now: number
): Effect.fn.Return<Step<Outcome<A> | undefined>> {
  const { records } = cell
  if (cell.state._tag !== "Stored" || !cell.records.isActive(found, now)) return done(undefined)
  const { key } = cell.state
  const { contents, text } = found
  const state = yield* rebaseCell(cell, cell.state, { key, text, contents })
  const isTouched = cell.isUse && records.isTouchDue(state.base, now)
  const unchanged = { kept: { key, text, contents }, made: state.changes }
  if (state.changes.length === 0 && !isTouched) return done(unchanged)
  const sent = yield* attempt(cell, state, now)
  // Nothing to write, if the session still is what the changes were applied to.
  if (!isTouched && isUnchanged(sent.text, text)) return isFresh ? done(unchanged) : look
  note(cell, sent)
  const kept = { key, text: sent.text, contents: sent.contents }
  return write(text, sent.text, records.expiryOf(sent.contents), { kept, made: sent.changes })
})
