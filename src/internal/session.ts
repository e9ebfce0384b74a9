/**
 * The class behind `Session`: getters over a {@link Cell}, and who may change it when.
 */
import { Clock, Context, DateTime, Duration, Effect, Formatter, Option, Redacted, Semaphore } from "effect"
import type { SessionStore, SessionStoreError } from "../SessionStore.ts"
import type { Cell } from "./cell.ts"
import { commit } from "./commit.ts"
import { destroy, reload } from "./ending.ts"
import { SessionBusyError, type SessionError } from "./errors.ts"
import { merge } from "./merging.ts"
import { longestQueue, type Records, type Store } from "./records.ts"
import { type Contents, change, type Kept, type State } from "./state.ts"
import { makeSecret } from "./token.ts"
import type { Turn } from "./turns.ts"

/**
 * What was done to a session since it was opened or last committed: nothing; something that a commit would save;
 * `destroy` and nothing after it; or that it has ended elsewhere, as far as is known here, so that a commit saves nothing.
 */
export type Status = "unmodified" | "modified" | "destroyed" | "ended"

/**
 * What a commit hands to the carrier of the token, which takes it to the client and back.
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
  /** What `setRememberMe` was last told, `false` by default. */
  readonly rememberMe: boolean
  /** Whether the session was opened without this token, because it is new or was renewed. */
  readonly isTokenNew: boolean
  /** Whether the expiry has moved since the session was opened. */
  readonly isExpiryNew: boolean
  /** Whether `rememberMe` was turned on or off since the session was opened. */
  readonly isRememberMeNew: boolean
}

/** A duration of any length, in milliseconds. */
export const toMillisOrZero = (what: string, input: Duration.Input): number => {
  const duration = Option.getOrUndefined(Duration.fromInput(input))
  if (duration === undefined || Duration.isNegative(duration)) {
    throw new TypeError(`${what} is not a duration of zero or more: ${Formatter.format(input)}`)
  }
  return Duration.toMillis(duration)
}

/** A duration longer than zero, in milliseconds; `null` for an infinite one. */
export const toMillis = (what: string, input: Duration.Input): number | null => {
  const duration = Option.getOrUndefined(Duration.fromInput(input))
  if (duration === undefined || !Duration.isPositive(duration)) {
    throw new TypeError(`${what} is not a duration longer than zero: ${Formatter.format(input)}`)
  }
  return Duration.isFinite(duration) ? Duration.toMillis(duration) : null
}

const redact = (token: string): Redacted.Redacted<string> => Redacted.make(token, { label: "session token" })

/** Its state is private, so that a session which is logged shows nothing of itself. */
export class Handle<A> {
  readonly #cell: Cell<A>
  /** What the client has: the key of its token, and what the carrier was told of it. */
  readonly #carried: { readonly key: string; readonly end: number; readonly rememberMe: boolean } | undefined
  // Made when it is first needed: never by a request that only reads.
  #semaphore: Semaphore.Semaphore | undefined

  constructor(records: Records<A>, store: SessionStore["Service"], state: State<A>, isUse: boolean) {
    this.#cell = { records, store, state, isUse, isSealed: false }
    this.#carried =
      state._tag === "Stored"
        ? { key: state.key, end: records.endOf(state.base), rememberMe: state.base.rememberMe }
        : undefined
  }

  /** From now on nobody could be handed a new token. */
  static seal(session: object): void {
    if (#cell in session) session.#cell.isSealed = true
  }

  get get(): Effect.Effect<A> {
    return Effect.sync(() => this.#cell.state.contents.value)
  }

  // Getters, so that what is taken off a session, as by `const { update } = yield* UserSession`, still works.
  get set() {
    return (value: A) => this.#update((contents) => ({ ...contents, value }))
  }

  get update() {
    return (f: (value: A) => A) => this.#update((contents) => ({ ...contents, value: f(contents.value) }))
  }

  get modify() {
    return <B>(f: (value: A) => readonly [result: B, value: A]): Effect.Effect<B> =>
      Effect.suspend(() => {
        // Once here, for the result, and the value with it.
        const [result, first] = f(this.#cell.state.contents.value)
        let isFirst = true
        const next = (value: A) => {
          if (!isFirst) return f(value)[1]
          isFirst = false
          return first
        }
        return Effect.as(
          this.#update((contents) => ({ ...contents, value: next(contents.value) })),
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
      const deadline = records.deadlineAt(now)
      const startAnew = (contents: Contents<A>): Contents<A> => ({ ...contents, deadline })
      switch (state._tag) {
        case "Ended":
          return
        case "New": {
          // Not a change by itself: a session without a token has none to renew.
          const begun = { ...state, base: startAnew(state.base), contents: startAnew(state.contents) }
          const isChanged = state.changes.length > 0
          this.#cell.state = isChanged ? change(begun, { _tag: "Update", apply: startAnew }) : begun
          return
        }
        case "Stored":
          this.#cell.state = change(
            { ...state, renewal: state.renewal ?? makeSecret() },
            { _tag: "Update", apply: startAnew }
          )
      }
    })
  }

  get destroy(): Effect.Effect<void, SessionStoreError> {
    return this.#exclusively((store, turn) => destroy(this.#cell, store, turn))
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
    return this.#exclusively((store, turn) => reload(this.#cell, store, turn))
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
      if (state.changes.length > 0) return "modified"
      return state._tag === "New" && state.isDestroyed ? "destroyed" : "unmodified"
    })
  }

  get commit(): Effect.Effect<Option.Option<Committed>, SessionError> {
    return Effect.contextWith((context: Context.Context<never>) => {
      if (!this.#hasToSave(Context.get(context, Clock.Clock))) return Effect.succeed(this.#committed)
      const save = this.#unlessBusy(this.#exclusively((store, turn) => commit(this.#cell, store, turn)))
      return Effect.map(this.#cell.records.telemetry.span(context, "Session.commit", save), () => this.#committed)
    })
  }

  #hasToSave(clock: Clock.Clock): boolean {
    const { isUse, records, state } = this.#cell
    if (state._tag === "Ended") return false
    if (state.changes.length > 0) return true
    return state._tag === "Stored" && isUse && records.isTouchDue(state.base, clock.currentTimeMillisUnsafe())
  }

  get #committed(): Option.Option<Committed> {
    const { records, state } = this.#cell
    if (state._tag !== "Stored" || state.token === undefined) return Option.none()
    const before = this.#carried
    const end = records.endOf(state.base)
    const { rememberMe } = state.base
    return Option.some({
      token: redact(state.token),
      expiry: DateTime.makeUnsafe(end),
      rememberMe,
      isTokenNew: before?.key !== state.key,
      isExpiryNew: before?.end !== end,
      isRememberMeNew: (before?.rememberMe ?? false) !== rememberMe
    })
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
   * One at a time, in this session and then among all sessions of its key. Only the store can be interrupted, and only if
   * the caller can, since what it has confirmed must be remembered.
   */
  #exclusively<B, E>(body: (store: Store, turn: Turn<Kept<A>>) => Effect.Effect<B, E>): Effect.Effect<B, E> {
    this.#semaphore ??= Semaphore.makeUnsafe(1)
    return this.#semaphore.withPermit(
      Effect.suspend(() => {
        const { records, state, store } = this.#cell
        const run = (turn: Turn<Kept<A>>) =>
          Effect.uninterruptibleMask((restore) => body(interruptible(store, restore), turn))
        return state._tag === "New" || state.key === undefined
          ? run({ seen: undefined })
          : records.turns.take(store, state.key, run)
      })
    )
  }

  /** Refused if too many wait already. A log-out is not: it ends the queue. */
  #unlessBusy<B, E>(effect: Effect.Effect<B, E>): Effect.Effect<B, E | SessionBusyError> {
    return Effect.suspend((): Effect.Effect<B, E | SessionBusyError> => {
      const { records, state, store } = this.#cell
      return state._tag === "Stored" && records.turns.length(store, state.key) > longestQueue
        ? Effect.fail(new SessionBusyError({ session: records.key }))
        : effect
    })
  }
}

const interruptible = (store: Store, restore: <B, E>(effect: Effect.Effect<B, E>) => Effect.Effect<B, E>): Store => ({
  find: (token) => restore(store.find(token)),
  create: (token, data, expiry) => restore(store.create(token, data, expiry)),
  replace: (token, expected, data, expiry) => restore(store.replace(token, expected, data, expiry)),
  delete: (token) => restore(store.delete(token))
})

/**
 * To be called by a carrier of tokens when the response has been sent: from now on a commit that would make a new token
 * saves nothing of a new session, and nothing under a new token, and warns.
 */
export const sealCarrier = (session: object): void => Handle.seal(session)
