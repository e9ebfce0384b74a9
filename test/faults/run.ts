/** One run: clients at work, a fault in the middle, and a check of the record. */
import { Effect, Fiber, Option, Random, Redacted, Schedule } from "effect"
import { SessionStore } from "effect-sessions"
import {
  type AnyEntry,
  type Client,
  type PlantedFault,
  perform,
  prepare,
  type Run,
  use,
  withClockAhead
} from "./clients.ts"
import {
  checkConfirmed,
  look,
  Marks,
  type SessionInput,
  type SessionOperation,
  type SessionOutput
} from "./confirmed.ts"
import { makeRecorder, operationsOf, showStuck } from "./history.ts"
import { check, type Input, type Output, type RegisterOperation } from "./linearizable.ts"
import type { Fault, Rig } from "./rig.ts"

type Store = SessionStore["Service"]

export interface Result {
  readonly operations: number
  /** Without an answer: failed, or unknown. */
  readonly unknown: number
  /** Changes that were made twice after a failure, which is allowed. */
  readonly twice: number
  /** Registers for which the search for an order took too long. */
  readonly undecided: number
  readonly violations: ReadonlyArray<string>
}

export interface RunOptions {
  readonly name: string
  readonly planted: PlantedFault | undefined
  /** How far the clocks of two servers are apart with the fault `clock`, in milliseconds. */
  readonly apart: number
}

/** How far the clock of a client is ahead. */
export const clockAhead = (fault: Fault, apart: number, number: number): number =>
  fault === "clock" ? (number % 2 === 0 ? apart / 2 : -apart / 2) : 0

/** New registers and sessions. */
export const begin = Effect.fnUntraced(function* (store: Store, name: string) {
  const newSession = Effect.gen(function* () {
    const session = yield* Marks.open()
    yield* session.update((marks) => [...marks, -1])
    return Redacted.value(Option.getOrThrow(yield* session.commit).token)
  }).pipe(Effect.provideService(SessionStore, store))
  const names = ["in 1", "in 2", "out 1", "out 2"]
  const tokens = yield* Effect.forEach(names, (on) => Effect.map(newSession, (token) => [on, token] as const))
  const registers = [1, 2, 3].map((number) => `${name} register ${number}`)
  return { registers, sessions: Object.fromEntries(tokens) } satisfies Run
})

const patiently = { schedule: Schedule.spaced("100 millis"), times: 100 }

/** The state after recovery. */
export const lastLook = Effect.fnUntraced(
  function* (store: Store, { registers, sessions }: Run, append: (entry: AnyEntry) => void) {
    const find: Input = { name: "find" }
    const ofRegisters = makeRecorder<Input, Output>("last look at registers", append)
    const ofSessions = makeRecorder<SessionInput, SessionOutput>("last look at sessions", append)
    for (const token of registers) {
      yield* Effect.retry(
        Effect.suspend(() => ofRegisters(token, find, perform(store, token, find))),
        patiently
      )
    }
    for (const [on, token] of Object.entries(sessions)) {
      yield* Effect.retry(
        Effect.suspend(() => ofSessions(on, { name: "look" }, look(token))),
        patiently
      )
    }
  },
  (effect, store) => Effect.orDie(Effect.provideService(effect, SessionStore, store))
)

const isOfRegister = (operation: RegisterOperation | SessionOperation): operation is RegisterOperation =>
  operation.on.includes("register")

export const judge = (entries: ReadonlyArray<AnyEntry>): Result => {
  const operations = operationsOf(entries) as ReadonlyArray<RegisterOperation | SessionOperation>
  const ofRegisters = operations.filter(isOfRegister)
  const ofSessions = operations.filter((operation): operation is SessionOperation => !isOfRegister(operation))
  const verdicts = [...new Set(ofRegisters.map(({ on }) => on))].map((token) => {
    const own = ofRegisters.filter(({ on }) => on === token)
    return { own, verdict: check(own) }
  })
  const impossible = verdicts.filter(({ verdict }) => verdict.isLinearizable === false)
  const { twice, violations } = checkConfirmed(ofSessions)
  return {
    operations: operations.length,
    unknown: operations.filter(({ answer }) => answer === undefined).length,
    twice,
    undecided: verdicts.filter(({ verdict }) => verdict.isLinearizable === undefined).length,
    violations: [
      ...impossible.map(({ own, verdict }) => `There is no order of this history.\n${showStuck(own, verdict)}`),
      ...violations
    ]
  }
}

export const runOnce = Effect.fnUntraced(function* <F extends Fault>(
  rig: Rig<F>,
  fault: F,
  { apart, name, planted }: RunOptions
) {
  const stores = yield* Effect.forEach(rig.stores, (store) => prepare(store, planted))
  const [first] = stores
  if (first === undefined) throw new Error("A rig without a store")
  const entries: Array<AnyEntry> = []
  const append = (entry: AnyEntry) => void entries.push(entry)
  // After the fault of the last run, a connection may be missing yet.
  const run = yield* Effect.orDie(Effect.retry(begin(first, name), patiently))
  let isOver = false
  const clients = [0, 1, 2, 3].map((number): Client => {
    const store = stores[number % stores.length] ?? first
    return { ...run, name: `client ${number}`, number, store, append, isOver: () => isOver }
  })
  const working = yield* Effect.forkChild(
    Effect.forEach(clients, (client) => withClockAhead(clockAhead(fault, apart, client.number))(use(client)), {
      concurrency: 4,
      discard: true
    })
  )
  yield* Effect.sleep(yield* Random.nextIntBetween(200, 500))
  yield* rig.inject(fault)
  yield* Effect.sleep("600 millis")
  isOver = true
  yield* Fiber.join(working)
  yield* lastLook(first, run, append)
  return judge(entries)
})
