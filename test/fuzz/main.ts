/**
 * `npm run fuzz -- --runs 100000 --seed 1`: throws odd input at everything that reads input, for as long as you like.
 *
 * Prints what fails, shrunk, and how long the slowest input took, of two times.
 */
import { parseArgs } from "node:util"
import fc from "fast-check"
import { large } from "./large.ts"
import { type Property, properties } from "./properties.ts"

const { values } = parseArgs({
  options: { runs: { type: "string", default: "10000" }, seed: { type: "string" }, only: { type: "string" } }
})

const seed = values.seed === undefined ? Math.floor(Math.random() * 1_000_000_000) : Number(values.seed)

/** The slowest input, in milliseconds of the processor: what the collector and the compiler take counts in. */
const timed = (property: Property) => {
  const slowest = { millis: 0, run: 0 }
  let count = 0
  const time = async (input: Parameters<Property["run"]>[0]) => {
    const began = process.cpuUsage()
    const outcome = await property.run(input)
    const { system, user } = process.cpuUsage(began)
    return { outcome, millis: (system + user) / 1000 }
  }
  const run: Property["run"] = async (input) => {
    const { millis, outcome } = await time(input)
    // What has run for the first times only is not compiled yet.
    if (++count <= 200 || millis <= slowest.millis) return outcome
    // If it really is slow, it is slow again.
    const again = Math.min(millis, (await time(input)).millis)
    if (again > slowest.millis) Object.assign(slowest, { millis: again, run: count })
    return outcome
  }
  const measured: Property = Object.assign(Object.create(property), { run })
  return { slowest, measured }
}

console.log(`${values.runs} runs of each, from seed ${seed}`)
for (const [name, property] of Object.entries(properties)) {
  if (values.only !== undefined && !name.includes(values.only)) continue
  const { measured, slowest } = timed(property)
  const details = await fc.check(measured, { seed, numRuns: Number(values.runs) })
  const time = `slowest ${slowest.millis.toFixed(1)} ms, run ${slowest.run}`
  console.log(`${details.failed ? "FAILED" : "ok"}  ${name}: ${details.numRuns} runs, ${time}`)
  if (!details.failed) continue
  process.exitCode = 1
  console.log(fc.defaultReportMessage(details))
}

console.log("\nlarge input, milliseconds of the fastest of three:")
for (const { millis, name, outcome } of await large()) console.log(`  ${name}: ${millis.toFixed(1)}, ${outcome}`)
