/**
 * What the operations of a session share: its state, and where it is kept.
 */
import { Effect } from "effect"
import { isUnchanged } from "./envelope.ts"
import { asFound, type Found, type FoundSession, type Records, type Store } from "./records.ts"
import {
  type Along,
  type Change,
  type Contents,
  type Kept,
  makeEnded,
  type Renewal,
  rebase,
  type State,
  type Stored,
  usedAgain,
  withChanges
} from "./state.ts"
import { makeSecret } from "./token.ts"
import type { Queue } from "./turns.ts"

/** A session in memory. Everything but `state` stays as it was when the session was opened. */
export interface Cell<A> {
  readonly records: Records<A>
  readonly store: Store
  /** Whether to open and commit it counts as use. */
  readonly isUse: boolean
  /** When it was opened: what was checked before that may have changed by now. */
  readonly openedAt: number
  state: State<A>
  /** Whether the carrier of the token is gone, so that nobody could be handed a new one, and a warning has said so. */
  seal: "open" | "sealed" | "warned"
  /** Told after each operation, if anybody waits for the session to end. */
  listeners: Set<() => void> | undefined
}

/** Where those wait who want to change or end one session in this process. */
export type SessionQueue<A> = Queue<Kept<A>, Along<A>>

/** What is known of a session without a look: what the one before saw last, or else what this one did. */
export const knownOf = <A>(
  { records }: Cell<A>,
  { base, isPending, key, text }: Stored<A>,
  queue: SessionQueue<A>,
  now: number
): Found<A> | undefined => {
  const kept = { key, text, contents: base, isPending }
  if (isPending) return asFound(kept)
  // Whoever has logged out or renewed goes on under another key in the same queue.
  return records.known(queue.seen?.key === key ? queue.seen : kept, now)
}

/** Whether the session is there to be changed: active, or added by this one and not handed out yet. */
export const isThere = <A>({ records, state }: Cell<A>, found: Found<A>, now: number): found is FoundSession<A> =>
  (found._tag === "Session" && found.isPending && state._tag === "Stored" && state.isPending) ||
  records.isActive(found, now)

/** Goes on from what was found, with the changes applied anew, and says whether another was faster. */
export const rebaseCell = <A>(cell: Cell<A>, state: Stored<A>, kept: Kept<A>): boolean => {
  const rebased = rebase(state, kept)
  if (rebased === state) return false
  cell.state = rebased
  return rebased.changes === state.changes && state.changes.length > 0 && !isUnchanged(rebased.text, state.text)
}

/** What to save of a session that is used now. */
export const contentsToSave = <A>({ isUse }: Cell<A>, contents: Contents<A>, now: number): Contents<A> =>
  // Never back: a slower request must not end a session before the expiry that a faster one was promised.
  usedAgain(contents, isUse ? Math.max(Math.floor(now), contents.usedAt) : contents.usedAt)

/** Whether to look again, as what was found may be called off. */
export type Patience = <A>(cell: Cell<A>, found: Found<A>) => boolean

/**
 * A session that is held for a merge has not ended yet: it goes on if the merge is called off. Of two that merge each
 * other, the one with the smaller key gives in.
 */
export const makePatience = (): Patience => {
  let left = 8
  return ({ state }, found) => {
    if (found._tag !== "Tombstone" || found.held === undefined || found.isSealed || state._tag !== "Stored")
      return false
    const { successor } = found
    const isMutual = state.changes.some((change) => change._tag === "Merge" && change.other.key === successor)
    return !(isMutual && successor !== undefined && state.key < successor) && left-- > 0
  }
}

/** Puts something right after a commit that failed or was interrupted: as far as that goes, and for a second at most. */
export const bestEffort = <E>(effect: Effect.Effect<unknown, E>): Effect.Effect<void> =>
  effect.pipe(Effect.interruptible, Effect.timeoutOption("1 second"), Effect.ignoreCause)

export const endCell = <A>(cell: Cell<A>, key: string | undefined, queue: SessionQueue<A>): void => {
  queue.seen = undefined
  cell.state = makeEnded(key, cell.state.contents)
}

/** Has the next commit move the session to a new token. */
export const withRenewal = <A>(state: Stored<A>, changes: ReadonlyArray<Change<A>>): Stored<A> => {
  const renewal: Renewal<A> = state.renewal ?? {
    ...makeSecret(),
    isBurying: false,
    sent: undefined
  }
  return withChanges({ ...state, renewal }, changes)
}
