/**
 * How a session ends by a log-out, and how one that is held in memory finds out that it has ended.
 */
import { Clock, Effect } from "effect"
import type { SessionStoreError } from "../SessionStore.ts"
import { type Cell, endCell, knownOf, rebaseCell, type SessionQueue } from "./cell.ts"
import type { SessionError } from "./errors.ts"
import { leave } from "./indexes.ts"
import { asKept, type Store } from "./records.ts"
import { isMerge, makeNew, type Stored } from "./state.ts"

/** Ends the session, and whatever took over from it. What is written afterwards belongs to a new one. */
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
      // A try that was not confirmed may have arrived. Nobody else has its token.
      if (secret !== undefined && attempts.length > 0) yield* records.bury(store, secret.key)
      if (undecodable !== undefined) {
        const { key, text } = undecodable
        isEnded = yield* records.end(store, key, { _tag: "Undecodable", text })
      }
      break
    }
    case "Stored":
      isEnded = yield* records.end(store, state.key, knownOf(cell, state, queue, yield* Clock.currentTimeMillis))
      // A renewal that was not confirmed may have put it back.
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

/** Fetches the newest value, applies the changes to it, and says whether the session is still active. */
export const reload = Effect.fnUntraced(function* <A>(
  cell: Cell<A>,
  store: Store,
  queue: SessionQueue<A>
): Effect.fn.Return<boolean, SessionError> {
  const { records, state } = cell
  // A new session is in no store that it could have ended in.
  if (state._tag !== "Stored") return state._tag === "New" && !state.isDestroyed
  const { key } = state
  const found = yield* records.find(store, key)
  const now = yield* Clock.currentTimeMillis
  const current = cell.state
  if (current._tag === "Stored" && cell.records.isActive(found, now)) {
    // A merge that has arrived is left to the commit, which lets go of the other session.
    if (!isOwnMerge(current, found.text)) rebaseCell(cell, current, asKept(key, found))
    return true
  }
  // A renewal of its own that failed half-way is finished by the next commit.
  if (found._tag === "Tombstone" && !found.isSealed && found.successor === state.renewal?.key) return true
  endCell(cell, key, queue)
  return false
})
