/**
 * The states of a session in memory, and the transitions between them. Pure: nothing here asks a store or a clock.
 *
 * ```
 *        commit          commit
 *   New ───────▶ Stored ───────▶ Stored
 *    ▲             │
 *    │ destroy     │ it is gone, or a tombstone stands in its place
 *    └─────────────┴──────────▶ Ended
 * ```
 */

/** The contents of a session, in memory and in a store. Times are in milliseconds since 1970. */
export interface Contents<A> {
  readonly value: A
  readonly createdAt: number
  /** When its token was made. */
  readonly issuedAt: number
  /** When it was last used, to the precision of the touch interval. The idle timeout counts from here. */
  readonly usedAt: number
  /** The end of its lifetime. */
  readonly deadline: number
  /** In milliseconds. `null` for none, `undefined` for the idle timeout of the class. */
  readonly idleTimeout: number | null | undefined
  readonly rememberMe: boolean
  /** The index records that name it. */
  readonly memberOf: ReadonlyArray<string>
  /** The previous key, from a renewal until the next save. A log-out also ends what is under this key. */
  readonly former: string | undefined
}

/**
 * The same contents with another value. Written field by field because every request that reads or changes a session
 * runs this: a spread takes several times as long, and objects of one shape are read faster.
 */
export const withValue = <A>(contents: Omit<Contents<unknown>, "value">, value: A): Contents<A> => ({
  value,
  createdAt: contents.createdAt,
  issuedAt: contents.issuedAt,
  usedAt: contents.usedAt,
  deadline: contents.deadline,
  idleTimeout: contents.idleTimeout,
  rememberMe: contents.rememberMe,
  memberOf: contents.memberOf,
  former: contents.former
})

/** The contents to save when the session is used: with a new `usedAt` and without a former key. Also field by field. */
export const usedAgain = <A>(contents: Contents<A>, usedAt: number): Contents<A> => ({
  value: contents.value,
  createdAt: contents.createdAt,
  issuedAt: contents.issuedAt,
  usedAt,
  deadline: contents.deadline,
  idleTimeout: contents.idleTimeout,
  rememberMe: contents.rememberMe,
  memberOf: contents.memberOf,
  former: undefined
})

/** A session as it is in the store, with its key. */
export interface Kept<A> {
  readonly key: string
  readonly text: string
  readonly contents: Contents<A>
  /** Whether the token does not open it yet. */
  readonly isPending: boolean
}

/** A change of a session in memory, which can be applied again to a newer value. */
export type Change<A> = Update<A> | Merge<A>

export interface Update<A> {
  readonly _tag: "Update"
  readonly apply: (contents: Contents<A>) => Contents<A>
}

/** Merges the value of another session, which ends at the commit. */
export interface Merge<A> {
  readonly _tag: "Merge"
  /** Distinguishes the tries of this merge from every other merge of the same session. */
  readonly id: string
  readonly other: Kept<A>
  readonly combine: (value: A, other: A) => A
}

/** A token and its hash. The next secret of a session is made once, and kept for all tries of a commit. */
export interface Secret {
  readonly token: string
  readonly key: string
}

/** A renewal that the next commit makes, or that an earlier try has begun. */
export interface Renewal<A> extends Secret {
  /** Whether a tombstone was sent, which may or may not have arrived. */
  readonly isBurying: boolean
  /** The final text of the session as it was sent, which may or may not have arrived. */
  readonly sent: { readonly text: string; readonly made: ReadonlyArray<Change<A>> } | undefined
}

/** A write that was sent but not confirmed. If it is found in the store, these changes have been made. */
export interface Attempt<A> {
  readonly text: string
  readonly contents: Contents<A>
  readonly changes: ReadonlyArray<Change<A>>
}

interface Changing<A> {
  /** What the changes are applied to. */
  readonly base: Contents<A>
  readonly changes: ReadonlyArray<Change<A>>
  /** The outcome: `base` with all `changes`. */
  readonly contents: Contents<A>
  readonly attempts: ReadonlyArray<Attempt<A>>
}

/** Not in the store. A commit adds the session if its changes made a difference. */
export interface New<A> extends Changing<A> {
  readonly _tag: "New"
  /** Whether it follows a `destroy`, not an unknown token. */
  readonly isDestroyed: boolean
  /** The text under the token that did not decode. It is removed when this session is added or destroyed. */
  readonly undecodable: { readonly key: string; readonly text: string } | undefined
  /** Made by the first commit that adds the session. */
  readonly secret: Secret | undefined
}

/** In the store, as last seen there. */
export interface Stored<A> extends Changing<A> {
  readonly _tag: "Stored"
  readonly key: string
  /** `undefined` if the session was found by its key, as in a list. */
  readonly token: string | undefined
  readonly text: string
  /** Whether it was added without its changes, before a merge. Its token does not open it yet. */
  readonly isPending: boolean
  /** The renewal that `renewToken` asked for. */
  readonly renewal: Renewal<A> | undefined
}

/** Logged out, renewed by another request, or expired. Later changes are not saved. */
export interface Ended<A> {
  readonly _tag: "Ended"
  /** `undefined` if it was never in the store. */
  readonly key: string | undefined
  readonly contents: Contents<A>
}

/** A waiting commit, as another commit's turn sees it, which may save these changes together with its own. */
export interface Along<A> {
  readonly owner: object
  /** Whether the session had changed since these changes were made. */
  readonly isConflict: boolean
  /** The contents with the changes made. `undefined` if the commit needs a turn of its own. */
  readonly join: (
    kept: Kept<A>,
    contents: Contents<A>,
    moment: { readonly isFresh: boolean; readonly now: number }
  ) => Contents<A> | undefined
  /** Called before the write is sent. */
  readonly note: (text: string, contents: Contents<A>) => void
  /** Called when the write is confirmed. */
  readonly saved: (kept: Kept<A>) => void
}

export type State<A> = New<A> | Stored<A> | Ended<A>

const applyTo = <A>(contents: Contents<A>, change: Change<A>): Contents<A> =>
  change._tag === "Update"
    ? change.apply(contents)
    : withValue(contents, change.combine(contents.value, change.other.contents.value))

export const isMerge = <A>(change: Change<A>): change is Merge<A> => change._tag === "Merge"

/** Restarts the lifetime. */
export const startAnew = <A>(deadline: number): Update<A> => ({
  _tag: "Update",
  apply: (contents) => ({ ...contents, deadline })
})

export const applyAll = <A>(contents: Contents<A>, changes: ReadonlyArray<Change<A>>): Contents<A> =>
  changes.reduce<Contents<A>>(applyTo, contents)

// Shared, because most sessions are never changed.
const nothing: ReadonlyArray<never> = []

export const makeNew = <A>(
  contents: Contents<A>,
  { isDestroyed = false, undecodable }: { isDestroyed?: boolean; undecodable?: New<A>["undecodable"] } = {}
): New<A> => ({
  _tag: "New",
  base: contents,
  changes: nothing,
  contents,
  attempts: nothing,
  isDestroyed,
  undecodable,
  secret: undefined
})

export const makeStored = <A>({ contents, isPending, key, text }: Kept<A>, token: string | undefined): Stored<A> => ({
  _tag: "Stored",
  key,
  token,
  text,
  isPending,
  base: contents,
  changes: nothing,
  contents,
  attempts: nothing,
  renewal: undefined
})

export const makeEnded = <A>(key: string | undefined, contents: Contents<A>): Ended<A> => ({
  _tag: "Ended",
  key,
  contents
})

export const change = <A>(state: State<A>, change: Change<A>): State<A> => {
  const contents = applyTo(state.contents, change)
  switch (state._tag) {
    case "Ended":
      return { ...state, contents }
    case "New":
      return { ...state, contents, changes: state.changes.concat(change) }
    case "Stored":
      return changedStored(state, state.changes.concat(change), contents, state.attempts)
  }
}

/** Replaces the first changes, for example by merges of newer values, and computes the outcome. */
export const withChanges = <S extends New<A> | Stored<A>, A>(state: S, changes: ReadonlyArray<Change<A>>): S => ({
  ...state,
  changes,
  contents: applyAll(state.base, changes)
})

/** A newer version of the session was found. If this session wrote it, the changes in that write are done. */
export const rebase = <A>(state: Stored<A>, found: Kept<A>): Stored<A> => {
  if (found.text === state.text) return state
  const mine = state.attempts.find(({ text }) => text === found.text)
  const changes = mine === undefined ? state.changes : without(state.changes, mine.changes)
  const { contents, isPending, text } = found
  return withChanges({ ...state, text, isPending, base: contents, attempts: nothing }, changes)
}

export const without = <A>(
  changes: ReadonlyArray<Change<A>>,
  made: ReadonlyArray<Change<A>>
): ReadonlyArray<Change<A>> => {
  if (made.length === 0) return changes
  if (made === changes) return nothing
  const isMade = new Set(made)
  return changes.filter((change) => !isMade.has(change))
}

/** Notes a write before it is sent, to recognise it if it arrives without being confirmed. */
export const noteAttempt = <A>(state: New<A> | Stored<A>, sent: Attempt<A>): New<A> | Stored<A> => {
  if (state.attempts.includes(sent)) return state
  const attempts = state.attempts.concat(sent)
  return state._tag === "New" ? { ...state, attempts } : changedStored(state, state.changes, state.contents, attempts)
}

/** The same state with other changes. Field by field, like {@link withValue}. */
const changedStored = <A>(
  state: Stored<A>,
  changes: ReadonlyArray<Change<A>>,
  contents: Contents<A>,
  attempts: ReadonlyArray<Attempt<A>>
): Stored<A> => ({
  _tag: "Stored",
  key: state.key,
  token: state.token,
  text: state.text,
  isPending: state.isPending,
  base: state.base,
  changes,
  contents,
  attempts,
  renewal: state.renewal
})

/** These changes are in the store now. Changes made in the meantime are not. */
export const saved = <A>(
  state: New<A> | Stored<A>,
  kept: Kept<A>,
  token: string | undefined,
  made: ReadonlyArray<Change<A>>
): Stored<A> => {
  const stored = makeStored(kept, token)
  const changes = without(state.changes, made)
  const renewal = state._tag === "Stored" && state.renewal?.key !== kept.key ? state.renewal : undefined
  const renewing = renewal === undefined ? stored : { ...stored, renewal }
  return changes.length === 0 ? renewing : withChanges(renewing, changes)
}
