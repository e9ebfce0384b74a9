/**
 * Shares look-ups: if several requests open a session while it is being changed, one look-up runs at a time, and the
 * waiting requests share the next one.
 *
 * Without this, a flood of requests with one cookie would fill the connections to the store with look-ups of one
 * session, and those of all other sessions would wait behind them. A look-up is shared only by requests that came
 * before it began, so each sees at least what its own look-up would have seen.
 */
import { Cause, Deferred, Effect, Exit } from "effect"

/** The look-ups of one session. */
export interface Looks<A, E> {
  isUnderWay: boolean
  next: Shared<A, E> | undefined
}

/**
 * A look-up that begins when the running one has ended. The first waiting request runs it, and the others wait for the
 * outcome.
 */
interface Shared<A, E> {
  readonly begin: Deferred.Deferred<void>
  /** `undefined` if the first request was interrupted. */
  readonly outcome: Deferred.Deferred<{ readonly found: A } | undefined, E>
}

export const makeLooks = <A, E>(): Looks<A, E> => ({ isUnderWay: false, next: undefined })

export const share = <A, E>(looks: Looks<A, E>, look: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.uninterruptibleMask((restore) => {
    if (!looks.isUnderWay) {
      looks.isUnderWay = true
      return Effect.onExitPrimitive(restore(look), () => passOn(looks))
    }
    if (looks.next !== undefined) {
      return Effect.flatMap(restore(Deferred.await(looks.next.outcome)), (outcome) =>
        outcome === undefined ? restore(share(looks, look)) : Effect.succeed(outcome.found)
      )
    }
    const next: Shared<A, E> = { begin: Deferred.makeUnsafe(), outcome: Deferred.makeUnsafe() }
    looks.next = next
    return Effect.flatMap(
      Effect.onInterrupt(restore(Deferred.await(next.begin)), () => Effect.sync(() => leave(looks, next))),
      () => lookForAll(looks, next, restore(look))
    )
  })

const lookForAll = <A, E>(looks: Looks<A, E>, { outcome }: Shared<A, E>, look: Effect.Effect<A, E>) =>
  Effect.onExitPrimitive(look, (exit) => {
    const isInterrupted = Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
    Deferred.doneUnsafe(outcome, isInterrupted ? Exit.succeed(undefined) : Exit.map(exit, (found) => ({ found })))
    return passOn(looks)
  })

const leave = <A, E>(looks: Looks<A, E>, shared: Shared<A, E>): void => {
  if (looks.next === shared) looks.next = undefined
  // It may have been resumed at the moment it was interrupted.
  else passOn(looks)
  Deferred.doneUnsafe(shared.outcome, Exit.succeed(undefined))
}

const passOn = <A, E>(looks: Looks<A, E>): undefined => {
  const { next } = looks
  looks.next = undefined
  looks.isUnderWay = next !== undefined
  if (next !== undefined) Deferred.doneUnsafe(next.begin, Exit.void)
}
