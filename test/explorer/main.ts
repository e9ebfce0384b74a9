/**
 * `npm run explore -- --schedules 100000 --seed 1`: runs schedules, and prints those that fail, shrunk.
 */
import { parseArgs } from "node:util"
import * as effectSessions from "effect-sessions"
import { assertKnown } from "../commandLine.ts"
import { explore, print, shrink } from "./explore.ts"
import type { Budget } from "./plan.ts"
import { makeSubject } from "./subject.ts"
import { plantedFaults } from "./virtualStore.ts"

const { values } = parseArgs({
  options: {
    schedules: { type: "string", default: "10000" },
    seed: { type: "string" },
    faults: { type: "string", default: "both" },
    planted: { type: "string" },
    show: { type: "string", default: "1" }
  }
})

assertKnown("faults", values.faults, ["one", "many", "both"])
assertKnown("planted", values.planted, plantedFaults)

const budgets: ReadonlyArray<Budget> =
  values.faults === "one" || values.faults === "many" ? [values.faults] : ["one", "many"]
const planted = plantedFaults.find((planted) => planted === values.planted)
const subject = makeSubject(effectSessions)
const seed = values.seed === undefined ? Math.floor(Math.random() * 1_000_000_000) : Number(values.seed)

for (const budget of budgets) {
  const began = process.cpuUsage()
  const { counts, failures, schedules } = explore({
    subject,
    planted,
    seed,
    budget,
    schedules: Number(values.schedules)
  })
  const seconds = process.cpuUsage(began).user / 1_000_000
  console.log(`\n${schedules} schedules, ${budget} faults, from seed ${seed}: ${seconds.toFixed(1)} s of CPU time`)
  for (const [name, count] of Object.entries(counts)) console.log(`  ${name}: ${count}`)
  for (const rule of new Set(failures.map(({ rule }) => rule))) {
    const found = failures.filter((failure) => failure.rule === rule)
    console.log(`\n== ${rule}: ${found.length}\n`)
    for (const failure of found.slice(0, Number(values.show))) {
      console.log(`${print(shrink(failure, { subject, planted }), { subject, planted })}\n`)
    }
  }
  if (failures.length > 0) process.exitCode = 1
}
