/**
 * `npm run explore -- --schedules 100000 --seed 1`: runs schedules, and prints those that fail, shrunk.
 */
import { parseArgs } from "node:util"
import * as effectSessions from "effect-sessions"
import { explore, print, shrink } from "./explore.ts"
import { makeSubject } from "./subject.ts"

const { values } = parseArgs({
  options: {
    schedules: { type: "string", default: "10000" },
    seed: { type: "string" },
    show: { type: "string", default: "1" }
  }
})

const subject = makeSubject(effectSessions)
const seed = values.seed === undefined ? Math.floor(Math.random() * 1_000_000_000) : Number(values.seed)
const began = process.cpuUsage()
const { counts, failures, schedules } = explore({ subject, seed, schedules: Number(values.schedules) })
const seconds = process.cpuUsage(began).user / 1_000_000

console.log(`${schedules} schedules from seed ${seed} in ${seconds.toFixed(1)} s of CPU time`)
console.log(
  Object.entries(counts)
    .map(([name, count]) => `${name}: ${count}`)
    .join(", ")
)
for (const rule of new Set(failures.map(({ rule }) => rule))) {
  const found = failures.filter((failure) => failure.rule === rule)
  console.log(`\n== ${rule}: ${found.length}\n`)
  for (const failure of found.slice(0, Number(values.show))) {
    console.log(`${print(shrink(failure, { subject }), { subject })}\n`)
  }
}
process.exitCode = failures.length === 0 ? 0 : 1
