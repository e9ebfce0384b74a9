/**
 * How a log-out ends a session, and how a session in memory finds out that it has ended.
 */
import { Clock, Effect } from "effect"
import type { SessionStoreError } from "../SessionStore.ts"
import { type Cell, endCell, knownOf, rebaseCell, type SessionQueue } from "./cell.ts"
import type { SessionError } from "./errors.ts"
import { leave } from "./indexes.ts"
import { asKept, type Store } from "./records.ts"
import { isMerge, makeNew, type Stored } from "./state.ts"

/** Ends the session and its successors. Later writes belong to a new session. */
export const destroy = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  queue: SessionQueue<A>
): Effect.fn.Return<void, SessionStoreError> {
  const { records, state } = cell
  let isEnded = false
  switch (state._tag) {
    case "New": {
      const { attempts, secret, undecodable } = state
      // An unconfirmed write may have arrived. Nobody else has its token.
      if (secret !== undefined && attempts.length > 0) yield* records.bury(store, secret.key)
      if (undecodable !== undefined) {
        const { key, text } = undecodable
        isEnded = yield* records.end(store, key, { _tag: "Undecodable", text })
      }
      break
    }
    case "Stored":
      isEnded = yield* records.end(store, state.key, knownOf(cell, state, queue, yield* Clock.currentTimeMillis))
      // An unconfirmed renewal may have put the old session back.
      if (!isEnded && state.base.former !== undefined) isEnded = yield* records.end(store, state.base.former, undefined)
      yield* leave(records, store, state.base.memberOf, state.key)
      break
    case "Ended":
      isEnded = state.key !== undefined && (yield* records.end(store, state.key, undefined))
  }
  if (isEnded) yield* records.telemetry.destroyed
  queue.seen = undefined
  cell.state = makeNew(records.contentsAt(yield* Clock.currentTimeMillis), { isDestroyed: true })
})

const isOwnMerge = <A>({ attempts }: Stored<A>, text: string): boolean =>
  attempts.some((sent) => sent.text === text && sent.changes.some(isMerge))

/** Fetches the newest value, applies the changes to it, and returns whether the session is still active. */
export const reload = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  queue: SessionQueue<A>
): Effect.fn.Return<boolean, SessionError> {
  const { records, state } = cell
  // A new session is not in the store, so it cannot have ended there.
  if (state._tag !== "Stored") return state._tag === "New" && !state.isDestroyed
  const { key } = state
  const found = yield* records.find(store, key)
  const now = yield* Clock.currentTimeMillis
  const current = cell.state
  if (current._tag === "Stored" && cell.records.isActive(found, now)) {
    // Leave a merge that has arrived to the commit, which releases the other session.
    if (!isOwnMerge(current, found.text)) rebaseCell(cell, current, asKept(key, found))
    return true
  }
  // The next commit finishes a renewal of this session that failed half-way.
  if (found._tag === "Tombstone" && !found.isSealed && found.successor === state.renewal?.key) return true
  endCell(cell, key, queue)
  return false
})
