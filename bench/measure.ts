/** Measures one store once, in this process, and prints the figures: `measure <part> <store> <sessions>`. */
import { Schema } from "effect"
import { measureCleanup } from "./cleanup.ts"
import { measureOperations } from "./operations.ts"
import { Figures, Part } from "./results.ts"
import { measureScale } from "./scale.ts"
import { peers } from "./stores.ts"

const [part, store, sessions] = Schema.decodeUnknownSync(
  Schema.Tuple([Part, Schema.Literals(Object.keys(peers) as Array<keyof typeof peers>), Schema.FiniteFromString])
)(process.argv.slice(2))

const measure = () => {
  if (part === "operations") return measureOperations(peers[store], sessions)
  if (part === "scale") return measureScale(peers[store], sessions)
  return measureCleanup(peers[store], sessions, part === "cleanup50" ? 50 : 1)
}

console.log(Schema.encodeSync(Schema.fromJsonString(Figures))(await measure()))
process.exit(0)
