/**
 * A schedule, written down: requests, what each of them does, when the clock jumps, and how often the store fails. All
 * that is left to chance while it runs is drawn from its seed and the numbers in it.
 */
import { type Dice, draw, makeDice } from "./draw.ts"
import { indexed } from "./held.ts"

/** What a request does with its session. Numbers of changes and log-ins are given out once in a plan. */
export type Action =
  | { readonly _tag: "Read" }
  | { readonly _tag: "Update"; readonly change: number }
  | { readonly _tag: "LogIn"; readonly user: number }
  /** Without `renewToken`: a change of the index value renews the token automatically. */
  | { readonly _tag: "LogInByIndex"; readonly user: number }
  | { readonly _tag: "DestroyAllOf"; readonly value: string; readonly isSparing: boolean }
  | { readonly _tag: "SessionsOf"; readonly value: string }
  | { readonly _tag: "ById"; readonly pick: number }
  | { readonly _tag: "Renew" }
  | { readonly _tag: "LogOut" }
  | { readonly _tag: "Merge"; readonly from: "OtherBrowser" | "Anybody"; readonly pick: number }
  | { readonly _tag: "Reload" }
  | { readonly _tag: "ListAndDestroy"; readonly pick: number }
  | { readonly _tag: "ListAndUpdate"; readonly pick: number; readonly change: number }
  | { readonly _tag: "Commit" }

export interface Step {
  readonly id: number
  readonly action: Action
}

export interface RequestPlan {
  readonly id: number
  readonly browser: number
  /** Each server has its own class and its own view of the store, like two processes. */
  readonly server: number
  readonly start: number
  /** Whether its store may fail. */
  readonly isCalm: boolean
  readonly touch: boolean
  readonly steps: ReadonlyArray<Step>
  /** When the client goes away, if it does. */
  readonly abortAt: number | undefined
  /** Whether the response never arrives. */
  readonly isLost: boolean
}

export interface Jump {
  readonly id: number
  readonly at: number
  readonly by: number
}

/** How probable each fault of a call of the store is. */
export interface Faults {
  readonly before: number
  readonly after: number
  readonly timeout: number
  readonly abort: number
}

/** Whether one thing at most goes wrong in each try of a commit, or any number. */
export type Budget = "one" | "many"

export interface Plan {
  readonly seed: number
  readonly budget: Budget
  readonly hasIdleTimeout: boolean
  /** Whether sessions belong to users, and how many one user may have. */
  readonly indexes: { readonly max: number } | undefined
  /** Whether the cookie outlives the browser, and so is sent again when the expiry has moved. */
  readonly isPersistent: boolean
  readonly requests: ReadonlyArray<RequestPlan>
  readonly jumps: ReadonlyArray<Jump>
  readonly faults: Faults
  /** The faults and delays that were taken out, by the name of the call. */
  readonly without: ReadonlySet<string>
  /** Collects the names of the faults and delays that came up. */
  readonly drawn?: Set<string>
}

const noFaults: Faults = { before: 0, after: 0, timeout: 0, abort: 0 }

const faultsOf = (dice: Dice): Faults => {
  const often = dice.weighted([
    [3, 0.06],
    [3, 0.15],
    [1, 0.35]
  ])
  return dice.weighted<Faults>([
    [8, noFaults],
    [2, { ...noFaults, before: often }],
    [4, { ...noFaults, after: often }],
    [3, { ...noFaults, timeout: often }],
    [3, { ...noFaults, abort: often }],
    [5, { before: often / 4, after: often / 3, timeout: often / 4, abort: often / 6 }]
  ])
}

type Weights = ReadonlyArray<readonly [weight: number, tag: Action["_tag"]]>

/** What a plan is about: a plan that does a little of everything meets few narrow windows. */
const styles: ReadonlyArray<Weights> = [
  [
    [3, "Read"],
    [6, "Update"],
    [3, "LogIn"],
    [2, "Renew"],
    [3, "LogOut"],
    [2, "Merge"],
    [1, "Reload"],
    [1, "ListAndDestroy"],
    [1, "ListAndUpdate"],
    [2, "Commit"]
  ],
  [
    [4, "Update"],
    [5, "LogIn"],
    [3, "Renew"],
    [5, "LogOut"],
    [1, "Commit"]
  ],
  [
    [6, "Update"],
    [4, "LogIn"],
    [3, "Renew"],
    [1, "Reload"],
    [1, "Commit"]
  ],
  [
    [5, "Update"],
    [6, "Merge"],
    [2, "LogIn"],
    [1, "Renew"],
    [1, "LogOut"],
    [1, "Commit"]
  ],
  [
    [4, "Update"],
    [3, "LogIn"],
    [1, "Renew"],
    [1, "LogOut"],
    [2, "ListAndDestroy"],
    [4, "ListAndUpdate"]
  ],
  [
    [6, "Update"],
    [3, "Read"],
    [2, "Reload"],
    [1, "LogIn"],
    [1, "Commit"]
  ]
]

/** The same for plans with indexes. */
const indexedStyles: ReadonlyArray<Weights> = [
  [
    [3, "Update"],
    [4, "LogIn"],
    [4, "LogInByIndex"],
    [1, "Renew"],
    [1, "LogOut"],
    [4, "DestroyAllOf"],
    [1, "SessionsOf"],
    [1, "Commit"]
  ],
  [
    [2, "Update"],
    [4, "LogIn"],
    [6, "LogInByIndex"],
    [1, "LogOut"],
    [2, "SessionsOf"],
    [1, "Commit"]
  ],
  [
    [4, "Update"],
    [2, "LogIn"],
    [2, "LogInByIndex"],
    [3, "Renew"],
    [2, "LogOut"],
    [1, "Merge"],
    [1, "Reload"],
    [1, "ListAndDestroy"],
    [1, "ListAndUpdate"],
    [2, "DestroyAllOf"],
    [2, "SessionsOf"],
    [2, "ById"],
    [2, "Commit"]
  ]
]

/** Names for changes and log-ins, each given out once. */
const makeNames = () => {
  let changes = 0
  let users = 0
  return { change: () => ++changes, user: () => ++users }
}

type Names = ReturnType<typeof makeNames>

const indexedOf = (dice: Dice): string => indexed[dice.chance(0.75) ? 1 : 0]

const actionOf = (tag: Action["_tag"], dice: Dice, names: Names): Action => {
  switch (tag) {
    case "Update":
      return { _tag: tag, change: names.change() }
    case "LogIn":
    case "LogInByIndex":
      return { _tag: tag, user: names.user() }
    case "DestroyAllOf":
      return { _tag: tag, value: indexedOf(dice), isSparing: dice.chance(0.5) }
    case "SessionsOf":
      return { _tag: tag, value: indexedOf(dice) }
    case "ById":
      return { _tag: tag, pick: dice.next() }
    case "Merge":
      return { _tag: tag, from: dice.chance(0.7) ? "OtherBrowser" : "Anybody", pick: dice.next() }
    case "ListAndDestroy":
      return { _tag: tag, pick: dice.next() }
    case "ListAndUpdate":
      return { _tag: tag, pick: dice.next(), change: names.change() }
    default:
      return { _tag: tag }
  }
}

/** When the requests proper begin; those that only make a session are done by then. */
export const firstStart = 2000

const makeRequest = (id: number, dice: Dice, names: Names, weights: Weights, faults: Faults): RequestPlan => {
  const steps = Array.from({ length: 1 + dice.int(3) }, (_, id) => ({
    id,
    action: actionOf(dice.weighted(weights), dice, names)
  }))
  const start = firstStart + (dice.chance(0.75) ? dice.next() * 60 : dice.next() * 400)
  return {
    id,
    browser: dice.chance(0.7) ? 0 : 1,
    server: dice.int(2),
    start,
    isCalm: false,
    touch: !dice.chance(0.1),
    steps,
    abortAt: faults.abort > 0 && dice.chance(0.15) ? start + dice.next() * 150 : undefined,
    isLost: faults.abort > 0 && dice.chance(0.05)
  }
}

const makeSetup = (browser: number, names: Names): RequestPlan => ({
  id: browser,
  browser,
  server: 0,
  start: browser * 1000,
  isCalm: true,
  touch: true,
  steps: [{ id: 0, action: { _tag: "Update", change: names.change() } }],
  abortAt: undefined,
  isLost: false
})

const jumpsOf = (dice: Dice): ReadonlyArray<Jump> => {
  if (!dice.chance(0.3)) return []
  return Array.from({ length: 1 + dice.int(2) }, (_, id) => ({
    id,
    at: firstStart + dice.next() * 300,
    by: dice.weighted([
      [3, 1000],
      [3, 40_000],
      [2, 61_000],
      [3, 600_000],
      [1, 1_250_000],
      [1, 3_700_000]
    ])
  }))
}

export const browsers = 4

/** Not by the dice: plans without indexes are what they were before there were any. */
const indexesOf = (seed: number): Plan["indexes"] => {
  if (draw(seed, 10) >= 0.4) return undefined
  return { max: [1, 2, 2, 3, Number.POSITIVE_INFINITY][Math.floor(draw(seed, 11) * 5)] ?? 2 }
}

/** The plan of a seed. */
export const makePlan = (seed: number, budget: Budget): Plan => {
  const dice = makeDice(seed)
  const names = makeNames()
  const faults = faultsOf(dice)
  const indexes = indexesOf(seed)
  const kinds = indexes === undefined ? styles : indexedStyles
  const weights = kinds[dice.int(kinds.length)] ?? []
  const setups = dice.weighted([
    [1, 0],
    [5, 1],
    [4, 2]
  ])
  const requests = Array.from({ length: setups }, (_, browser) => makeSetup(browser, names))
  const count = 2 + dice.int(5)
  for (let id = 2; id < 2 + count; id++) {
    const request = makeRequest(id, dice, names, weights, faults)
    requests.push(indexes === undefined ? request : { ...request, browser: dice.int(browsers) })
  }
  return {
    seed,
    budget,
    hasIdleTimeout: dice.chance(0.4),
    indexes,
    isPersistent: dice.chance(0.5),
    requests,
    jumps: jumpsOf(dice),
    faults,
    without: new Set()
  }
}

/** The result of one call of the store. `landing` is when the write happens, if the caller does not learn about it. */
export interface Fate {
  readonly delay: number
  readonly fault: "none" | "before" | "after" | "timeout" | "abort"
  readonly landing: "never" | "before" | "late"
  /** The process of the caller is killed, rather than the client gone. */
  readonly isKill: boolean
  /** How long after an interruption a late write lands. */
  readonly lateness: number
}

/** How long something takes: mostly little, sometimes long enough for others to overtake. */
const delayOf = (chance: number, size: number): number => (chance < 0.8 ? 1 + size * 12 : 20 + size * 120)

export const delay = (plan: Plan, ...names: ReadonlyArray<number>): number => {
  if (isWithout(plan, "delay", names)) return 1
  plan.drawn?.add(`delay ${names.join(".")}`)
  return delayOf(draw(plan.seed, 1, ...names), draw(plan.seed, 2, ...names))
}

const isWithout = (plan: Plan, what: string, names: ReadonlyArray<number>): boolean =>
  plan.without.size > 0 && plan.without.has(`${what} ${names.join(".")}`)

const faultOf = ({ after, abort, before, timeout }: Faults, drawn: number): Fate["fault"] => {
  if (drawn < before) return "before"
  if (drawn < before + after) return "after"
  if (drawn < before + after + timeout) return "timeout"
  return drawn < before + after + timeout + abort ? "abort" : "none"
}

const isKill = (plan: Plan, names: ReadonlyArray<number>): boolean => {
  if (plan.indexes === undefined || draw(plan.seed, 8, ...names) >= 0.3 || isWithout(plan, "kill", names)) return false
  plan.drawn?.add(`kill ${names.join(".")}`)
  return true
}

/** The fate of a call: the `call`th of a step, all tries counted. */
export const fateOf = (plan: Plan, request: RequestPlan, step: number, call: number, isSpared = false): Fate => {
  const names = [request.id, step, call]
  const isFine = isSpared || request.isCalm || isWithout(plan, "fault", names)
  const fault = isFine ? "none" : faultOf(plan.faults, draw(plan.seed, 3, ...names))
  if (fault !== "none") plan.drawn?.add(`fault ${names.join(".")}`)
  const landing = draw(plan.seed, 4, ...names)
  return {
    delay: delay(plan, ...names),
    fault,
    isKill: fault === "abort" && isKill(plan, names),
    landing: landing < 0.3 ? "never" : landing < 0.65 ? "before" : "late",
    lateness: delayOf(draw(plan.seed, 5, ...names), draw(plan.seed, 6, ...names))
  }
}
