/** Asserts that a run over everything has given every figure it should: `assertShape.ts <folder>`. Never how good one is. */
import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { Schema } from "effect"
import { httpFigures, httpSubjects } from "./httpSubjects.ts"
import { type Figure, type Part, Results } from "./results.ts"
import { peers } from "./stores.ts"

const folder = process.argv[2] ?? ""
const { measurements } = Schema.decodeSync(Schema.fromJsonString(Results))(
  readFileSync(join(folder, "results.json"), "utf8")
)

const assertMeasured = (part: Part, subject: string, figures: ReadonlyArray<Figure>) => {
  const found = measurements.filter((m) => m.part === part && m.subject === subject)
  assert.ok(found.length > 0, `${part} has nothing of ${subject}`)
  for (const measurement of found) {
    for (const figure of figures) assert.ok(figure in measurement.figures, `${part} of ${subject} has no ${figure}`)
  }
}

const sweep: ReadonlyArray<Figure> = ["sweep", "sweepStall", "sweepStall99", "sweepFind99", "idleStall", "idleFind99"]
for (const [subject, { sweeps }] of Object.entries(peers)) {
  assertMeasured("operations", subject, ["commit", "overwrite", "find", "miss", "delete"])
  assertMeasured("cleanup50", subject, ["heap", "resident", ...(sweeps ? sweep : [])])
  if (sweeps) assertMeasured("cleanup1", subject, ["heap", "resident", ...sweep])
}
assertMeasured("scale", "MemStore", ["heap", "resident", "find", "commit", "overwrite", ...sweep])
assertMeasured("operations", "MemStore", ["replace", "all", "allStall"])
assertMeasured("operations", "memorystore", ["all", "allStall"])
for (const { part, store, subject } of httpSubjects) {
  assertMeasured(part, subject, store === undefined ? httpFigures : [...httpFigures, "roundTrips"])
}
assert.match(readFileSync(join(folder, "stalls.svg"), "utf8"), /^<svg.*<\/svg>/s)
console.log(`${measurements.length} measurements have the shape they should`)
