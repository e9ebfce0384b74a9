/**
 * Commits in a group: one write saves the changes of all who wait for their turn at the same session.
 *
 * Whoever has the turn applies its own changes, then those of each one behind it, and writes the outcome once. So a
 * thousand commits of one session at once are two or three operations, and a flood of them costs others next to nothing.
 * Each one notes the write as an attempt of its own: if it is not confirmed, all go on as after a failed commit.
 */
import { Effect } from "effect"
import { type Cell, contentsToSave, rebaseCell, type SessionQueue } from "./cell.ts"
import { changeOf } from "./indexes.ts"
import {
  type Along,
  type Attempt,
  applyAll,
  type Change,
  type Contents,
  isMerge,
  type Kept,
  noteAttempt,
  saved
} from "./state.ts"
import { giveBack, settle, takeAlong } from "./turns.ts"

/** What another's turn may do for this commit: save its changes, if there is no more to it than that. */
export const makeAlong = <A>(cell: Cell<A>): Along<A> => {
  let made: ReadonlyArray<Change<A>> = []
  let isConflict = false
  return {
    owner: cell,
    get isConflict() {
      return isConflict
    },
    join: (kept, contents, { isFresh, now }) => {
      const { records, state } = cell
      if (state._tag !== "Stored" || state.key !== kept.key || state.isPending || state.renewal !== undefined) return
      // What an unconfirmed write has made of the session is known by a look alone.
      if (!isFresh && state.attempts.length > 0) return
      isConflict = rebaseCell(cell, state, kept)
      const current = cell.state
      if (current._tag !== "Stored" || current.changes.some(isMerge)) return
      const next = tryAll(contents, current.changes)
      if (next === undefined || changeOf(records, contents, next) !== "none") return
      made = [...current.changes]
      return contentsToSave(cell, next, now)
    },
    note: (text, contents) => {
      if (cell.state._tag === "Stored") cell.state = noteAttempt(cell.state, { text, contents, changes: made })
    },
    saved: (kept) => {
      if (cell.state._tag === "Stored") cell.state = saved(cell.state, kept, cell.state.token, made)
    }
  }
}

// A function that throws does so in its own turn.
const tryAll: <A>(contents: Contents<A>, changes: ReadonlyArray<Change<A>>) => Contents<A> | undefined = (
  contents,
  changes
) => {
  try {
    return applyAll(contents, changes)
  } catch {
    return undefined
  }
}

/** The same write with the changes of those who wait, as far as they can be taken along. */
export const gather = <A>(
  cell: Cell<A>,
  queue: SessionQueue<A>,
  kept: Kept<A>,
  sent: Attempt<A>,
  moment: { readonly isFresh: boolean; readonly now: number }
): Effect.Effect<Attempt<A>> => {
  if (queue.waiting.length === 0) return Effect.succeed(sent)
  let { contents } = sent
  // Whoever commits a session twice has the second one wait for the outcome of the first.
  const owners = new Set<object>([cell])
  takeAlong(queue, (along) => {
    const next = owners.has(along.owner) ? undefined : along.join(kept, contents, moment)
    if (next === undefined) return false
    owners.add(along.owner)
    contents = next
    return true
  })
  if (queue.along.length === 0) return Effect.succeed(sent)
  return cell.records.envelope.encode(contents).pipe(
    Effect.mapEager((text) => {
      for (const { along } of queue.along) along?.note(text, contents)
      // Another list: this text is not to be taken for that of these changes alone.
      return { text, contents, changes: [...sent.changes] }
    }),
    Effect.catchCause(() => {
      // A value that does not fit fails the commit that made it, in its own turn.
      giveBack(queue)
      return Effect.succeed(sent)
    })
  )
}

/** Tells those who were taken along that their changes are saved. */
export const tellSaved = <A>(queue: SessionQueue<A>, kept: Kept<A>): void => settle(queue, (along) => along.saved(kept))
