/**
 * Runs what several requests do in every order in which their operations can reach the store, up to a number of times
 * that one is interrupted in the middle of its own by another. Most faults need one such interruption, or two.
 */
import { assert } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { MemStore, SessionStore } from "effect-sessions"
import { Caller, settle, VirtualStore } from "./virtualStore.ts"

type Services = VirtualStore | SessionStore | MemStore

/** What races, and what must hold afterwards. `look` runs between any two operations. */
export interface Race {
  readonly requests: ReadonlyArray<Effect.Effect<unknown, unknown, Services>>
  readonly check: Effect.Effect<void, unknown, Services>
  readonly look?: Effect.Effect<void, unknown, Services>
}

interface Waiting {
  readonly caller: string
  readonly go: () => void
}

/** Which of the waiting callers continued, and how many there were. */
interface Choice {
  readonly taken: number
  readonly of: number
  /** Whether one that is not the first breaks into what the last one is doing. */
  readonly isInterruption: boolean
}

/** The last caller continues first. */
const rank = (caller: string, last: string): string => (caller === last ? "" : caller)

/** One order: what `choices` says, and from there on always the first. */
const runOnce = Effect.fnUntraced(function* (
  prepare: Effect.Effect<Race, unknown, Services>,
  choices: ReadonlyArray<number>
) {
  const { check, look, requests } = yield* prepare
  const store = yield* VirtualStore
  const waiting: Array<Waiting> = []
  const gate = (caller: string): Effect.Effect<void> =>
    Effect.callback((resume) => {
      const entry = { caller, go: () => resume(Effect.void) }
      waiting.push(entry)
      return Effect.sync(() => {
        const place = waiting.indexOf(entry)
        if (place >= 0) waiting.splice(place, 1)
      })
    })
  // A test that only looks asks the store as well.
  store.gate = (_, caller) => (caller === "" ? Effect.void : gate(caller))
  const fibers = yield* Effect.forEach(requests, (request, index) =>
    // The order of arrival matters too, because callers of one process take turns.
    Effect.forkChild(Effect.andThen(gate(String(index)), Effect.provideService(request, Caller, String(index))))
  )
  const made: Array<Choice> = []
  let last = ""
  for (let idle = 0; fibers.some((fiber) => fiber.pollUnsafe() === undefined); ) {
    yield* settle
    if (waiting.length === 0) {
      // All of them have ended, or wait to retry.
      if (++idle > 100) return assert.fail("it never came to rest")
      yield* TestClock.adjust("100 millis")
      continue
    }
    waiting.sort((one, other) => (rank(one.caller, last) < rank(other.caller, last) ? -1 : 1))
    const taken = choices[made.length] ?? 0
    made.push({ taken, of: waiting.length, isInterruption: waiting[0]?.caller === last })
    const [next] = waiting.splice(taken, 1)
    last = next?.caller ?? ""
    next?.go()
    if (look !== undefined) yield* Effect.andThen(settle, look)
  }
  yield* Effect.forEach(fibers, Fiber.join, { discard: true })
  store.heal()
  yield* check
  return made
})

/** The order to try after one, `undefined` if there is none. */
const nextChoices = (made: ReadonlyArray<Choice>, interruptions: number): ReadonlyArray<number> | undefined => {
  const before = (index: number) => made.slice(0, index)
  const spent = (choices: ReadonlyArray<Choice>) =>
    choices.filter(({ isInterruption, taken }) => isInterruption && taken > 0).length
  const index = made.findLastIndex(
    ({ isInterruption, of, taken }, index) =>
      taken + 1 < of && spent(before(index)) + (isInterruption ? 1 : 0) <= interruptions
  )
  const last = made[index]
  return last === undefined ? undefined : [...before(index).map(({ taken }) => taken), last.taken + 1]
}

/** Prepares a race and runs it, for every order, and says how many there are. */
export const everyOrder = Effect.fnUntraced(function* (
  prepare: Effect.Effect<Race, unknown, Services>,
  interruptions = 2
) {
  let choices: ReadonlyArray<number> | undefined = []
  let orders = 0
  while (choices !== undefined) {
    const current: ReadonlyArray<number> = choices
    const made: ReadonlyArray<Choice> = yield* runOnce(prepare, current).pipe(
      Effect.provide(VirtualStore.layer),
      Effect.tapCause(() => Effect.logError(`in the order ${current.join(", ")}`))
    )
    orders++
    choices = nextChoices(made, interruptions)
  }
  return orders
})
