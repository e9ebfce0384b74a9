/**
 * Runs many schedules, and makes of one that fails the smallest that still fails in the same way.
 */
import { type Counts, noCounts, type Rule } from "./model.ts"
import { type Budget, firstStart, makePlan, type Plan, type RequestPlan } from "./plan.ts"
import { type Outcome, run } from "./run.ts"
import { seeded } from "./seeded.ts"
import type { Subject } from "./subject.ts"
import type { PlantedFault } from "./virtualStore.ts"

export interface Options {
  readonly subject: Subject
  /** Schedule `n` has the seed `seed + n`. */
  readonly seed: number
  readonly schedules: number
  readonly budget: Budget
  readonly planted?: PlantedFault | undefined
  /** How many failing schedules to shrink and to show. The search ends when `stopAt` have been found. */
  readonly stopAt?: number | undefined
}

export interface Failure {
  readonly seed: number
  readonly rule: Rule
  readonly plan: Plan
}

export interface Explored {
  readonly schedules: number
  readonly failures: ReadonlyArray<Failure>
  readonly counts: Counts
}

const add = (sum: Counts, counts: Counts): void => {
  for (const name of Object.keys(sum) as Array<keyof Counts>) sum[name] += counts[name]
}

export const runPlan = (
  plan: Plan,
  options: Pick<Options, "subject" | "planted"> & { readonly keepsHistory?: boolean }
): Outcome => seeded(plan.seed, options.subject, () => run(plan, options))

export const explore = (options: Options): Explored => {
  const failures: Array<Failure> = []
  const counts = noCounts()
  let schedules = 0
  while (schedules < options.schedules && failures.length < (options.stopAt ?? Number.POSITIVE_INFINITY)) {
    const seed = options.seed + schedules++
    const plan = makePlan(seed, options.budget)
    const outcome = runPlan(plan, options)
    add(counts, outcome.counts)
    const [violation] = outcome.violations
    if (violation !== undefined) failures.push({ seed, rule: violation.rule, plan })
  }
  return { schedules, failures, counts }
}

const withRequest = (plan: Plan, changed: RequestPlan): Plan => ({
  ...plan,
  requests: plan.requests.map((request) => (request.id === changed.id ? changed : request))
})

/** Plans with one thing less, those that lack most first. */
function* smaller(plan: Plan, drawn: ReadonlySet<string>): Generator<Plan> {
  for (const request of plan.requests) {
    yield { ...plan, requests: plan.requests.filter((other) => other !== request) }
  }
  for (const jump of plan.jumps) yield { ...plan, jumps: plan.jumps.filter((other) => other !== jump) }
  for (const request of plan.requests) {
    for (const step of request.steps) {
      yield withRequest(plan, { ...request, steps: request.steps.filter((other) => other !== step) })
    }
    if (request.abortAt !== undefined) yield withRequest(plan, { ...request, abortAt: undefined })
    if (request.isLost) yield withRequest(plan, { ...request, isLost: false })
    if (!request.touch) yield withRequest(plan, { ...request, touch: true })
    if (request.server !== 0) yield withRequest(plan, { ...request, server: 0 })
  }
  if (plan.indexes !== undefined && plan.indexes.max < Number.POSITIVE_INFINITY)
    yield { ...plan, indexes: { max: Number.POSITIVE_INFINITY } }
  if (plan.hasIdleTimeout) yield { ...plan, hasIdleTimeout: false }
  if (plan.isPersistent) yield { ...plan, isPersistent: false }
  for (const name of drawn) yield { ...plan, without: new Set(plan.without).add(name) }
  for (const request of plan.requests) {
    if (request.start > firstStart) yield withRequest(plan, { ...request, start: firstStart })
  }
}

/** A schedule that never comes to rest takes long to run. */
const mostTries = 1000

export const shrink = (failure: Failure, options: Pick<Options, "subject" | "planted">): Failure => {
  let { plan } = failure
  let left = mostTries
  const fails = (plan: Plan) => left-- > 0 && runPlan(plan, options).violations[0]?.rule === failure.rule
  const drawnBy = (plan: Plan) => {
    const drawn = new Set<string>()
    runPlan({ ...plan, drawn }, options)
    return [...drawn].filter((name) => !plan.without.has(name)).sort((a, b) => (a < b ? 1 : -1))
  }
  for (let isSmaller = true; isSmaller && left > 0; ) {
    isSmaller = false
    for (const candidate of smaller(plan, new Set(drawnBy(plan)))) {
      if (!fails(candidate)) continue
      plan = candidate
      isSmaller = true
      break
    }
  }
  return { ...failure, plan }
}

/** For a person: what was broken, and how it came to that. */
export const print = ({ plan, rule, seed }: Failure, options: Pick<Options, "subject" | "planted">): string => {
  const { history, violations } = runPlan(plan, { ...options, keepsHistory: true })
  const details = violations.map(({ detail, rule }) => `  ${rule}: ${detail}`)
  return [`${rule} (seed ${seed})`, ...history.map((line) => `  ${line}`), ...details].join("\n")
}
