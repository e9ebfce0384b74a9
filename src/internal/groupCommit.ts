/**
 * Group commits: one write saves the changes of all commits that wait for their turn at the same session.
 *
 * The commit that has the turn applies its own changes, then those of each commit behind it, and writes the outcome
 * once. So a thousand simultaneous commits of one session take two or three operations, and a flood of them costs other
 * sessions almost nothing. Each commit notes the write as its own attempt: if it is not confirmed, all of them continue
 * as after a failed commit.
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

/** Lets another commit's turn save the changes of this one, if this commit has nothing else to do. */
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
      // Only a look-up can tell what an unconfirmed write has done to the session.
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

// If a change throws, the commit that made it gets the error, in its own turn.
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

/** The same write, plus the changes of the waiting commits that can be included. */
export const gather = <A>(
  cell: Cell<A>,
  queue: SessionQueue<A>,
  kept: Kept<A>,
  sent: Attempt<A>,
  moment: { readonly isFresh: boolean; readonly now: number }
): Effect.Effect<Attempt<A>> => {
  if (queue.waiting.length === 0) return Effect.succeed(sent)
  let { contents } = sent
  // If a session is committed twice, the second commit waits for the outcome of the first.
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
      // A new list, so this text is not mistaken for the text of these changes alone.
      return { text, contents, changes: [...sent.changes] }
    }),
    Effect.catchCause(() => {
      // A value that does not fit its schema fails the commit that made it, in its own turn.
      giveBack(queue)
      return Effect.succeed(sent)
    })
  )
}

/** Tells the included commits that their changes are saved. */
export const tellSaved = <A>(queue: SessionQueue<A>, kept: Kept<A>): void => settle(queue, (along) => along.saved(kept))
