/**
 * The class behind `Session`: getters over a {@link Cell}, and the order in which operations may change it.
 */
import { Clock, Context, DateTime, type Duration, Effect, Option, Redacted } from "effect"
import type { SessionStore, SessionStoreError } from "../SessionStore.ts"
import { type Cell, type SessionQueue, withRenewal } from "./cell.ts"
import { commit } from "./commit.ts"
import { toMillis } from "./duration.ts"
import { destroy, reload } from "./ending.ts"
import { SessionBusyError, type SessionError } from "./errors.ts"
import { makeAlong } from "./groupCommit.ts"
import { merge } from "./merging.ts"
import { longestQueue, type Records, type Store } from "./records.ts"
import { type Along, type Contents, change, type New, type State, type Stored, startAnew, withValue } from "./state.ts"
import { makeQueue, type Restore, takeTurn } from "./turns.ts"
import type { Ending } from "./watches.ts"
import { ended, tellOfChange } from "./watching.ts"

/**
 * What was done to a session since it was opened or last committed:
 *
 * - `"unmodified"`: nothing.
 *
 * - `"modified"`: something that a commit would save.
 *
 * - `"destroyed"`: `destroy`, and nothing after it.
 *
 * - `"ended"`: it has ended elsewhere, as far as this process knows. A commit saves nothing.
 */
export type Status = "unmodified" | "modified" | "destroyed" | "ended"

/**
 * What a commit returns to the carrier, which takes the token to the client and back.
 *
 * **When to use**: to carry the token by something other than the cookie of `HttpSession`.
 *
 * @example
 * ```ts
 * import { DateTime, Redacted } from "effect"
 * import type { Session } from "effect-sessions"
 *
 * const toMessage = ({ expiry, token }: Session.Committed) =>
 *   JSON.stringify({ token: Redacted.value(token), expiry: DateTime.formatIso(expiry) })
 * ```
 */
export interface Committed {
  /** The token of the session, a secret. */
  readonly token: Redacted.Redacted<string>
  /** When the session will expire: the earlier of its deadline and the end of its idle timeout. */
  readonly expiry: DateTime.Utc
  /** The last value of `setRememberMe`; `false` by default. */
  readonly rememberMe: boolean
  /** Whether the session was opened without this token, because it is new or was renewed. */
  readonly isTokenNew: boolean
  /** Whether the expiry has moved since the session was opened. */
  readonly isExpiryNew: boolean
  /** Whether `rememberMe` was turned on or off since the session was opened. */
  readonly isRememberMeNew: boolean
}

const redact = (token: string): Redacted.Redacted<string> => Redacted.make(token, { label: "session token" })

/** Makes token and expiry on demand, because most requests have nothing to send. */
class LazyCommitted implements Committed {
  readonly rememberMe: boolean
  readonly isTokenNew: boolean
  readonly isExpiryNew: boolean
  readonly isRememberMeNew: boolean
  readonly #token: string
  readonly #end: number

  constructor(token: string, end: number, flags: Omit<Committed, "token" | "expiry">) {
    this.#token = token
    this.#end = end
    this.rememberMe = flags.rememberMe
    this.isTokenNew = flags.isTokenNew
    this.isExpiryNew = flags.isExpiryNew
    this.isRememberMeNew = flags.isRememberMeNew
  }

  get token(): Redacted.Redacted<string> {
    return redact(this.#token)
  }

  get expiry(): DateTime.Utc {
    return DateTime.makeUnsafe(this.#end)
  }
}

/** The state is private, so logging a session reveals nothing about it. */
export class Handle<A> {
  readonly #cell: Cell<A>
  /** What the client has: the key of its token, and the expiry and `rememberMe` that the carrier last got. */
  readonly #carried: { readonly key: string; readonly end: number; readonly rememberMe: boolean } | undefined
  /** The queue for its commits and log-outs. A new session has its own queue. */
  readonly #queue: () => SessionQueue<A>

  constructor(
    records: Records<A>,
    store: SessionStore["Service"],
    state: State<A>,
    { isUse, openedAt }: { readonly isUse: boolean; readonly openedAt: number }
  ) {
    this.#cell = { records, store, state, isUse, openedAt, seal: "open", listeners: undefined }
    this.#carried =
      state._tag === "Stored"
        ? { key: state.key, end: records.endOf(state.base), rememberMe: state.base.rememberMe }
        : undefined
    if (state._tag === "New" || state.key === undefined) {
      let queue: SessionQueue<A> | undefined
      this.#queue = () => {
        queue ??= makeQueue()
        return queue
      }
    } else {
      const { key } = state
      this.#queue = () => records.queues.get(store, key)
    }
  }

  /** From now on, no new token can reach the client. */
  static seal(session: object): void {
    if (#cell in session && session.#cell.seal === "open") session.#cell.seal = "sealed"
  }

  get get(): Effect.Effect<A> {
    return Effect.sync(() => this.#cell.state.contents.value)
  }

  // Getters, so destructuring works: `const { update } = yield* UserSession`.
  get set() {
    return (value: A) => this.#update((contents) => withValue(contents, value))
  }

  get update() {
    return (f: (value: A) => A) => this.#update((contents) => withValue(contents, f(contents.value)))
  }

  get modify() {
    return <B>(f: (value: A) => readonly [result: B, value: A]): Effect.Effect<B> =>
      Effect.suspend(() => {
        // This call gives both the result and the value.
        const [result, first] = f(this.#cell.state.contents.value)
        let isFirst = true
        const next = (value: A) => {
          if (!isFirst) return f(value)[1]
          isFirst = false
          return first
        }
        return Effect.as(
          this.#update((contents) => withValue(contents, next(contents.value))),
          result
        )
      })
  }

  get clear(): Effect.Effect<void> {
    return Effect.suspend(() => this.set(this.#cell.records.initial()))
  }

  get renewToken(): Effect.Effect<void> {
    return Effect.map(Clock.currentTimeMillis, (now) => {
      const { records, state } = this.#cell
      const anew = startAnew<A>(records.deadlineAt(now))
      switch (state._tag) {
        case "Ended":
          return
        case "New": {
          // Not a change by itself: a session without a token has nothing to renew.
          const begun = { ...state, base: anew.apply(state.base), contents: anew.apply(state.contents) }
          this.#cell.state = state.changes.length > 0 ? change(begun, anew) : begun
          return
        }
        case "Stored":
          this.#cell.state = withRenewal(state, [...state.changes, anew])
      }
    })
  }

  get destroy(): Effect.Effect<void, SessionStoreError> {
    return this.#exclusively((store, queue) => destroy(this.#cell, store, queue))
  }

  get merge() {
    return (token: Redacted.Redacted<string>, combine: (value: A, other: A) => A): Effect.Effect<void, SessionError> =>
      this.#exclusively((store) => merge(this.#cell, store, Redacted.value(token), combine))
  }

  get setRememberMe() {
    return (rememberMe: boolean) => this.#update((contents) => ({ ...contents, rememberMe }))
  }

  get setDeadline() {
    return (deadline: DateTime.DateTime) => {
      const millis = Math.ceil(DateTime.toEpochMillis(deadline))
      return this.#update((contents) => ({ ...contents, deadline: millis }))
    }
  }

  get setIdleTimeout() {
    return (input: Duration.Input) =>
      Effect.suspend(() => {
        const idleTimeout = toMillis(`${this.#cell.records.key}: the idle timeout`, input)
        return this.#update((contents) => ({ ...contents, idleTimeout }))
      })
  }

  get reload(): Effect.Effect<boolean, SessionError> {
    return this.#exclusively((store, queue) => reload(this.#cell, store, queue))
  }

  get ended(): Effect.Effect<Ending, SessionStoreError> {
    return ended(this.#cell)
  }

  get token(): Effect.Effect<Option.Option<Redacted.Redacted<string>>> {
    return Effect.sync(() => {
      const { state } = this.#cell
      return state._tag === "Stored" && state.token !== undefined ? Option.some(redact(state.token)) : Option.none()
    })
  }

  get id(): Effect.Effect<Option.Option<string>> {
    return Effect.sync(() => {
      const { state } = this.#cell
      return state._tag === "Stored" ? Option.some(state.key) : Option.none()
    })
  }

  get createdAt(): Effect.Effect<DateTime.Utc> {
    return this.#instant(({ createdAt }) => createdAt)
  }

  get issuedAt(): Effect.Effect<DateTime.Utc> {
    return this.#instant(({ issuedAt }) => issuedAt)
  }

  get usedAt(): Effect.Effect<DateTime.Utc> {
    return this.#instant(({ usedAt }) => usedAt)
  }

  get deadline(): Effect.Effect<DateTime.Utc> {
    return this.#instant(({ deadline }) => deadline)
  }

  get expiry(): Effect.Effect<DateTime.Utc> {
    return this.#instant((contents) => this.#cell.records.endOf(contents))
  }

  get status(): Effect.Effect<Status> {
    return Effect.sync(() => {
      const { state } = this.#cell
      if (state._tag === "Ended") return "ended"
      if (isModified(state)) return "modified"
      return state._tag === "New" && state.isDestroyed ? "destroyed" : "unmodified"
    })
  }

  get commit(): Effect.Effect<Option.Option<Committed>, SessionError> {
    return Effect.contextWith((context: Context.Context<never>) => {
      if (!this.#hasToSave(Context.get(context, Clock.Clock))) return Effect.succeed(this.#committed)
      const save = takeTurn(
        this.#queue,
        (waiting) => this.#refuse(waiting),
        (queue, restore) => commit(this.#cell, new Interruptible(this.#cell.store, restore), queue),
        { after: () => tellOfChange(this.#cell), along: this.#along }
      )
      return Effect.map(this.#cell.records.telemetry.span(context, "Session.commit", save), () => this.#committed)
    })
  }

  #hasToSave(clock: Clock.Clock): boolean {
    const { isUse, records, state } = this.#cell
    if (state._tag === "Ended") return false
    if (isModified(state)) return true
    return state._tag === "Stored" && isUse && records.isTouchDue(state.base, clock.currentTimeMillisUnsafe())
  }

  get #committed(): Option.Option<Committed> {
    const { records, state } = this.#cell
    if (state._tag !== "Stored" || state.token === undefined) return Option.none()
    const before = this.#carried
    const end = records.endOf(state.base)
    const { rememberMe } = state.base
    return Option.some(
      new LazyCommitted(state.token, end, {
        rememberMe,
        isTokenNew: before?.key !== state.key,
        isExpiryNew: before?.end !== end,
        isRememberMeNew: (before?.rememberMe ?? false) !== rememberMe
      })
    )
  }

  #instant(f: (contents: Contents<A>) => number): Effect.Effect<DateTime.Utc> {
    return Effect.sync(() => DateTime.makeUnsafe(f(this.#cell.state.contents)))
  }

  #update(apply: (contents: Contents<A>) => Contents<A>): Effect.Effect<void> {
    return Effect.sync(() => {
      this.#cell.state = change(this.#cell.state, { _tag: "Update", apply })
    })
  }

  /**
   * Runs one operation at a time, among all sessions in this process that were opened with the same token. Only calls
   * to the store can be interrupted, and only if the caller can, because confirmed changes must be remembered.
   */
  #exclusively<B, E>(body: (store: Store, queue: SessionQueue<A>) => Effect.Effect<B, E>): Effect.Effect<B, E> {
    return takeTurn(
      this.#queue,
      neverRefuse,
      (queue, restore) => body(new Interruptible(this.#cell.store, restore), queue),
      { after: () => tellOfChange(this.#cell) }
    )
  }

  /** Lets another commit's turn save the changes of this session, if its commit has to wait. */
  get #along() {
    return {
      make: () => makeAlong(this.#cell),
      settled: ({ isConflict }: Along<A>) => (isConflict ? this.#cell.records.telemetry.conflict : Effect.void)
    }
  }

  /** For commits. A log-out is never refused, because it ends the queue. */
  #refuse(waiting: number): Effect.Effect<never, SessionBusyError> | undefined {
    return waiting < longestQueue ? undefined : Effect.fail(new SessionBusyError({ session: this.#cell.records.key }))
  }
}

/** Whether there is something to save. A session that was added but not handed out counts. */
const isModified = <A>(state: New<A> | Stored<A>): boolean =>
  state.changes.length > 0 || (state._tag === "Stored" && state.isPending)

const neverRefuse = () => undefined

/** A store whose operations can be interrupted, for use in an uninterruptible region. */
class Interruptible implements Store {
  readonly #store: Store
  readonly restore: Restore

  constructor(store: Store, restore: Restore) {
    this.#store = store
    this.restore = restore
  }

  find(token: string) {
    return this.restore(this.#store.find(token))
  }

  create(token: string, data: string, expiry: DateTime.DateTime) {
    return this.restore(this.#store.create(token, data, expiry))
  }

  replace(token: string, expected: string, data: string, expiry: DateTime.DateTime) {
    return this.restore(this.#store.replace(token, expected, data, expiry))
  }

  delete(token: string) {
    return this.restore(this.#store.delete(token))
  }
}

/**
 * A carrier calls this when the response has been sent. From then on, a commit that would need a new token warns
 * instead: a new session is not saved, and a renewal is not made.
 */
export const sealCarrier = (session: object): void => Handle.seal(session)
