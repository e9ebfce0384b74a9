/** What the clients of a store do: operations on a few registers, and on a few sessions. */
import { Clock, DateTime, Effect, Layer, Option, Random, Schedule } from "effect"
import { SessionStore, type SessionStoreError } from "effect-sessions"
import { Patient } from "../patientStore.ts"
import { logOut, look, type SessionInput, type SessionOutput, update } from "./confirmed.ts"
import { type Entry, makeRecorder } from "./history.ts"
import type { Input, Output } from "./linearizable.ts"

export type AnyEntry = Entry<Input | SessionInput, Output | SessionOutput>

type Store = SessionStore["Service"]

export const plantedFaults = [
  "no append-only file",
  "replace is find and commit",
  "answers without a write",
  "answers without a replica"
] as const
export type PlantedFault = (typeof plantedFaults)[number]

/** A store with the timeouts of docs/stores.md, and with the planted fault. */
export const prepare = (store: Store, planted?: PlantedFault): Effect.Effect<Store> => {
  const replaceInTwo: Store["replace"] = (token, expected, data, expiry) =>
    Effect.gen(function* () {
      if (!Option.contains(yield* store.find(token), expected)) return false
      yield* store.commit(token, data, expiry)
      return true
    })
  const replaceOrNot: Store["replace"] = (token, expected, data, expiry) =>
    Effect.flatMap(Random.next, (dice) =>
      dice < 0.02 ? Effect.succeed(true) : store.replace(token, expected, data, expiry)
    )
  const withReplace = (replace: Store["replace"]) => SessionStore.of({ ...store, replace })
  const broken =
    planted === "replace is find and commit"
      ? withReplace(replaceInTwo)
      : planted === "answers without a write"
        ? withReplace(replaceOrNot)
        : store
  return Effect.provide(SessionStore, Layer.provide(Patient, Layer.succeed(SessionStore, broken)))
}

/** Lets an effect run by a clock that is fast, or slow, by so many milliseconds. */
export const withClockAhead =
  (millis: number) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(Clock.Clock, (clock) => {
      const currentTimeMillisUnsafe = () => clock.currentTimeMillisUnsafe() + millis
      const shifted: Clock.Clock = Object.assign(Object.create(clock), {
        currentTimeMillisUnsafe,
        currentTimeMillis: Effect.sync(currentTimeMillisUnsafe)
      })
      return Effect.provideService(effect, Clock.Clock, shifted)
    })

export interface Run {
  readonly registers: ReadonlyArray<string>
  /** By name, their tokens. Those whose name begins with `out` are logged out on the way. */
  readonly sessions: Readonly<Record<string, string>>
}

export interface Client extends Run {
  readonly name: string
  readonly number: number
  readonly store: Store
  readonly append: (entry: AnyEntry) => void
  readonly isOver: () => boolean
}

export const choose = <A>(all: ReadonlyArray<A>) =>
  Effect.map(Random.nextIntBetween(0, all.length, { halfOpen: true }), (index) => {
    const chosen = all[index]
    if (chosen === undefined) throw new Error("There is nothing to choose from")
    return chosen
  })

/** Acts repeatedly until the run is over. After a failure it waits, so an outage leaves few operations unknown. */
const untilOver = <E, R>(isOver: () => boolean, act: Effect.Effect<unknown, E, R>) =>
  act.pipe(
    Effect.andThen(Effect.flatMap(Random.nextIntBetween(0, 8), (millis) => Effect.sleep(millis))),
    Effect.catch(() => Effect.sleep("150 millis")),
    Effect.repeat({ until: isOver })
  )

/** An operation as a history has it, done by a store. */
export const perform = (store: Store, token: string, input: Input): Effect.Effect<Output, SessionStoreError> =>
  Effect.flatMap(DateTime.now, (now): Effect.Effect<Output, SessionStoreError> => {
    const expiry = DateTime.add(now, { hours: 1 })
    switch (input.name) {
      case "find":
        return Effect.map(store.find(token), Option.getOrNull)
      case "create":
        return store.create(token, input.data, expiry)
      case "commit":
        return Effect.as(store.commit(token, input.data, expiry), true)
      case "replace":
        return store.replace(token, input.expected, input.data, expiry)
      case "delete":
        return Effect.as(store.delete(token), true)
    }
  })

const useRegisters = ({ append, isOver, name, registers, store }: Client) => {
  const record = makeRecorder<Input, Output>(`${name} registers`, append)
  const known = new Map<string, string>()
  let written = 0
  const act = Effect.gen(function* () {
    const token = yield* choose(registers)
    const data = `${name}.${written++}`
    const dice = yield* Random.next
    const expected = known.get(token) ?? "nothing"
    const input: Input =
      dice < 0.45
        ? { name: "find" }
        : dice < 0.85
          ? { name: "replace", expected, data }
          : dice < 0.93
            ? { name: "create", data }
            : dice < 0.97
              ? { name: "commit", data }
              : { name: "delete" }
    const output = yield* record(token, input, perform(store, token, input))
    if (typeof output === "string") known.set(token, output)
    else if (output === true && "data" in input) known.set(token, input.data)
  })
  return untilOver(isOver, act)
}

const useSessions = ({ append, isOver, name, number, sessions, store }: Client) => {
  const record = makeRecorder<SessionInput, SessionOutput>(`${name} sessions`, append)
  let marked = 0
  const act = Effect.gen(function* () {
    const [on, token] = yield* choose(Object.entries(sessions))
    const dice = yield* Random.next
    if (dice < 0.02 && on.startsWith("out")) return yield* record(on, { name: "log out" }, logOut(token))
    if (dice < 0.3) return yield* record(on, { name: "look" }, look(token))
    // Every other client gives up after a failure.
    const input = { name: "update", mark: number * 1_000_000 + marked++, mostTries: number % 2 === 0 ? 1 : 50 } as const
    const saving = update(token, { ...input, renews: false })
    return yield* record(
      on,
      input,
      Effect.map(saving, ({ saved, tries }) => ({ saved, tries }))
    )
  })
  return untilOver(isOver, Effect.provideService(act, SessionStore, store))
}

const patiently = { schedule: Schedule.spaced("100 millis"), times: 50 }

/** Renews its own session with each change, and checks at the end that it has all changes. */
const renewOwn = ({ append, isOver, name, number, store }: Client) => {
  const record = makeRecorder<SessionInput, SessionOutput>(`${name} renewals`, append)
  const on = `own ${name}`
  return Effect.gen(function* () {
    let token: string | undefined
    for (let mark = number * 1_000_000; !isOver() || token === undefined; mark++) {
      const input = { name: "update", mark, mostTries: 50 } as const
      const begun: string = token ?? "none"
      let next = ""
      // Tokens stay out of the history, which is printed.
      const saving = Effect.map(Effect.retry(update(begun, { ...input, renews: true }), patiently), (output) => {
        next = output.token
        return { saved: output.saved, tries: output.tries }
      })
      yield* record(on, input, saving)
      token = next
      yield* Effect.sleep("20 millis")
    }
    yield* record(on, { name: "look" }, Effect.retry(look(token), patiently))
  }).pipe(Effect.provideService(SessionStore, store), Effect.ignore)
}

export const use = (client: Client) =>
  Effect.all([useRegisters(client), useSessions(client), renewOwn(client)], { concurrency: 3, discard: true })
