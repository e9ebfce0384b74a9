/**
 * Sees to it that the explorer finds faults that are planted.
 */
import { assert, describe, it } from "@effect/vitest"
import * as effectSessions from "effect-sessions"
import { explore, print, shrink } from "./explorer/explore.ts"
import { mutants, withMutant } from "./explorer/mutants.ts"
import { makeSubject, type Subject } from "./explorer/subject.ts"
import { type PlantedFault, plantedFaults } from "./explorer/virtualStore.ts"

const subject = makeSubject(effectSessions)

/** Faults that are found within 2,000 schedules, always from the same seed; from one near it, if the fault is rare. */
const find = (subject: Subject, planted?: PlantedFault, seed = 1) =>
  explore({ subject, planted, seed, schedules: 2000, budget: "many", stopAt: 1 }).failures

// Near one that finds it, if it is rare.
const seeds: Partial<Record<PlantedFault, number>> = {
  "replace writes what is gone": 250,
  "compare-and-delete deletes blindly": 545
}

describe("a fault that is planted in the store is found", () => {
  it.each(plantedFaults)("%s", (planted) => {
    const [failure] = find(subject, planted, seeds[planted])
    assert.isDefined(failure)
    const shrunk = shrink(failure, { subject, planted })
    assert.isAtMost(shrunk.plan.requests.length, failure.plan.requests.length)
    assert.include(print(shrunk, { subject, planted }), failure.rule)
  })
})

describe("a fault that is planted in the package is found", () => {
  it.each(mutants)("$name", async (mutant) => {
    const [failure] = await withMutant(mutant, (subject) => find(subject, undefined, mutant.seed))
    assert.isDefined(failure)
  })
})
