/**
 * A store in memory whose every call waits until the schedule lets it go on, and fails, hangs or lands late if the
 * schedule says so. Each server has a view of it.
 */
import { Context, DateTime, Effect, Option, Stream } from "effect"
import type { SessionStorePrimitives } from "effect-sessions"
import { describe } from "./held.ts"
import type { Caller, Entry, Model } from "./model.ts"
import type { Fate } from "./plan.ts"
import type { Simulation } from "./simulation.ts"

/** The caller of the store, which the fiber of a request's step carries. */
export interface StoreCaller extends Caller {
  /** The fate of its next call. */
  readonly nextFate: (key: string | undefined) => Fate
  /** Its process was killed: it asks for nothing any more. */
  readonly isKilled: boolean
  /** The call hangs: what was waiting for it is interrupted after a while. */
  readonly onHang: (fate: Fate) => void
  /** Adds to the history, if one is kept. */
  readonly say: (line: () => string) => void
}

export const CurrentCaller = Context.Reference<StoreCaller | undefined>("explorer/CurrentCaller", {
  defaultValue: () => undefined
})

/** Faults of a store that are planted to see whether they are found. */
export const plantedFaults = [
  "replace ignores what it expects",
  "replace writes what is gone",
  "replace forgets now and then",
  "compare-and-delete deletes blindly",
  "create overwrites",
  "create says yes to an active one",
  "find is behind"
] as const

export type PlantedFault = (typeof plantedFaults)[number]

export interface VirtualStoreOptions {
  readonly simulation: Simulation
  readonly model: () => Model
  readonly entries: Map<string, Entry>
  readonly planted: PlantedFault | undefined
}

/** What a call does to the store once it gets there, and what it says about it. */
interface Call<A> {
  readonly key?: string
  readonly name: () => string
  readonly perform: (caller: StoreCaller | undefined, calledAt: number) => A
  readonly describe: (answer: A) => string
}

const failure = "the store failed"

/** Waits, and then does what the fate of this call says. */
const schedule = <A>(options: VirtualStoreOptions, call: Call<A>): Effect.Effect<A, string> =>
  Effect.withFiber((fiber) => {
    const caller = fiber.getRef(CurrentCaller)
    if (caller === undefined) return Effect.sync(() => call.perform(undefined, options.simulation.now()))
    if (caller.isKilled) return Effect.never
    return Effect.callback<A, string>((resume) => {
      const { simulation } = options
      options.model().onUse(caller)
      const fate = caller.nextFate(call.key)
      const calledAt = simulation.now()
      let isWaiting = true
      let isPerformed = false
      const perform = () => {
        isPerformed = true
        return call.perform(caller, calledAt)
      }
      const land = (how: string) => {
        if (!isPerformed) {
          const answer = perform()
          caller.say(() => `${call.name()}: ${how}, ${call.describe(answer)}`)
        }
      }
      simulation.after(fate.delay, () => {
        if (!isWaiting || caller.isKilled) return
        switch (fate.fault) {
          case "none": {
            const answer = perform()
            caller.say(() => `${call.name()}: ${call.describe(answer)}`)
            return resume(Effect.succeed(answer))
          }
          case "before":
            caller.say(() => `${call.name()}: fails, and did nothing`)
            return resume(Effect.fail(failure))
          case "after": {
            const answer = perform()
            caller.say(() => `${call.name()}: fails after it did its work, ${call.describe(answer)}`)
            return resume(Effect.fail(failure))
          }
          case "timeout":
          case "abort":
            if (fate.landing === "before") land("hangs after it did its work")
            else caller.say(() => `${call.name()}: hangs`)
            return caller.onHang(fate)
        }
      })
      return Effect.sync(() => {
        isWaiting = false
        if (fate.landing === "late") simulation.after(fate.lateness, () => land("arrives late"))
        else if (fate.landing === "before") land("arrives as its caller goes away")
      })
    })
  })

/** The primitives, with their faults. Text and expiry are kept as they come. */
export const makeVirtualStore = (options: VirtualStoreOptions): SessionStorePrimitives<string> => {
  const { entries, model, planted, simulation } = options
  const former = new Map<string, string>()
  let replaced = 0

  const active = (key: string): Entry | undefined => {
    const entry = entries.get(key)
    return entry !== undefined && simulation.now() <= entry.expiry ? entry : undefined
  }

  const write = (key: string, after: Entry | undefined, caller: StoreCaller | undefined, calledAt: number) => {
    const before = active(key)
    if (before !== undefined) former.set(key, before.text)
    if (after === undefined || after.expiry < simulation.now()) {
      entries.delete(key)
      if (before !== undefined) model().onWrite(key, before, undefined, caller, calledAt)
      if (after !== undefined && after.text !== "") model().onLateWrite(key, after.text, caller)
      return
    }
    entries.set(key, after)
    model().onWrite(key, before, after, caller, calledAt)
  }

  const matches = (entry: Entry | undefined, expected: string, isRemoval: boolean): boolean => {
    if (planted === "replace writes what is gone" && entry === undefined && !isRemoval) return true
    if (entry === undefined) return false
    if (planted === "replace ignores what it expects" && !isRemoval) return true
    if (planted === "compare-and-delete deletes blindly" && isRemoval) return true
    return entry.text === expected
  }

  const find = (key: string): Option.Option<string> => {
    const entry = active(key)
    if (planted === "find is behind" && entry !== undefined) return Option.some(former.get(key) ?? entry.text)
    return Option.fromUndefinedOr(entry?.text)
  }

  const create = (key: string, after: Entry, caller: StoreCaller | undefined, calledAt: number): boolean => {
    const isTaken = active(key) !== undefined
    if (isTaken && planted === "create says yes to an active one") return true
    if (isTaken && planted !== "create overwrites") return false
    write(key, after, caller, calledAt)
    return true
  }

  const name = (key: string) => model().nameOf(key)
  const text = (text: string) => (text === "" ? "nothing" : describe(text, name))
  const at = (text: string, expiry: DateTime.DateTime): Entry => ({ text, expiry: DateTime.toEpochMillis(expiry) })

  return {
    find: (key) =>
      schedule(options, {
        key,
        name: () => `find ${name(key)}`,
        perform: () => find(key),
        describe: Option.match({ onNone: () => "nothing", onSome: text })
      }),
    create: (key, data, expiry) =>
      schedule(options, {
        key,
        name: () => `create ${text(data)}`,
        perform: (caller, calledAt) => create(key, at(data, expiry), caller, calledAt),
        describe: (isMade) => `${isMade ? "yes" : "no"}, ${name(key)}`
      }),
    commit: (key, data, expiry) =>
      schedule(options, {
        key,
        name: () => `commit ${text(data)}`,
        perform: (caller, calledAt) => write(key, at(data, expiry), caller, calledAt),
        describe: () => `done, ${name(key)}`
      }),
    replace: (key, expected, data, expiry) =>
      schedule(options, {
        key,
        name: () => `replace ${name(key)}, ${text(expected)}, by ${text(data)}`,
        perform: (caller, calledAt) => {
          const after = at(data, expiry)
          if (!matches(active(key), expected, after.expiry < simulation.now())) return false
          if (planted === "replace forgets now and then" && ++replaced % 4 === 0) return true
          write(key, after, caller, calledAt)
          return true
        },
        describe: (isDone) => (isDone ? "yes" : "no")
      }),
    delete: (key) =>
      schedule(options, {
        key,
        name: () => `delete ${name(key)}`,
        perform: (caller, calledAt) => write(key, undefined, caller, calledAt),
        describe: () => "done"
      }),
    entries: Stream.unwrap(
      schedule(options, {
        name: () => "entries",
        perform: () =>
          Stream.fromIterable(
            [...entries].filter(([key]) => active(key) !== undefined).map(([key, { text }]) => [key, text] as const)
          ),
        describe: () => "read"
      })
    )
  }
}
