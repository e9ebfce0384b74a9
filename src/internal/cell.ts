/**
 * What the operations of a session share: its state, and where it is stored.
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

/**
 * A session in memory. Everything except `state`, `seal` and `listeners` stays as it was when the session was opened.
 */
export interface Cell<A> {
  readonly records: Records<A>
  readonly store: Store
  /** Whether opening and committing it counts as use. */
  readonly isUse: boolean
  /** When it was opened. Anything checked before then may have changed since. */
  readonly openedAt: number
  state: State<A>
  /** Whether the response has been sent, so no new token can reach the client, and whether a warning has said so. */
  seal: "open" | "sealed" | "warned"
  /** Called after each operation, if anything waits for the session to end. */
  listeners: Set<() => void> | undefined
}

/** The queue of all operations in this process that change or end one session. */
export type SessionQueue<A> = Queue<Kept<A>, Along<A>>

/** What is known about a session without a look-up: what the previous turn saw last, or else what this session saw. */
export const knownOf = <A>(
  { records }: Cell<A>,
  { base, isPending, key, text }: Stored<A>,
  queue: SessionQueue<A>,
  now: number
): Found<A> | undefined => {
  const kept = { key, text, contents: base, isPending }
  if (isPending) return asFound(kept)
  // After a log-out or a renewal, the session continues under another key in the same queue.
  return records.known(queue.seen?.key === key ? queue.seen : kept, now)
}

/** Whether the session can be changed: it is active, or this session added it and has not handed out its token yet. */
export const isThere = <A>({ records, state }: Cell<A>, found: Found<A>, now: number): found is FoundSession<A> =>
  (found._tag === "Session" && found.isPending && state._tag === "Stored" && state.isPending) ||
  records.isActive(found, now)

/** Continues from what was found, with the changes applied again, and returns whether another commit was faster. */
export const rebaseCell = <A>(cell: Cell<A>, state: Stored<A>, kept: Kept<A>): boolean => {
  const rebased = rebase(state, kept)
  if (rebased === state) return false
  cell.state = rebased
  return rebased.changes === state.changes && state.changes.length > 0 && !isUnchanged(rebased.text, state.text)
}

/** The contents to save for a session that is used now. */
export const contentsToSave = <A>({ isUse }: Cell<A>, contents: Contents<A>, now: number): Contents<A> =>
  // Never move it back: a slower request must not end a session before the expiry that a faster one announced.
  usedAgain(contents, isUse ? Math.max(Math.floor(now), contents.usedAt) : contents.usedAt)

/** Whether to look again, because what was found may still be undone. */
export type Patience = <A>(cell: Cell<A>, found: Found<A>) => boolean

/**
 * A session that is held for a merge has not ended yet: it continues if the merge is cancelled. If two sessions merge
 * each other, the one with the smaller key gives way.
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

/** Cleans up after a commit that failed or was interrupted: best effort, and for a second at most. */
export const bestEffort = <E>(effect: Effect.Effect<unknown, E>): Effect.Effect<void> =>
  effect.pipe(Effect.interruptible, Effect.timeoutOption("1 second"), Effect.ignoreCause)

export const endCell = <A>(cell: Cell<A>, key: string | undefined, queue: SessionQueue<A>): void => {
  queue.seen = undefined
  cell.state = makeEnded(key, cell.state.contents)
}

/** Makes the next commit move the session to a new token. */
export const withRenewal = <A>(state: Stored<A>, changes: ReadonlyArray<Change<A>>): Stored<A> => {
  const renewal: Renewal<A> = state.renewal ?? {
    ...makeSecret(),
    isBurying: false,
    sent: undefined
  }
  return withChanges({ ...state, renewal }, changes)
}
