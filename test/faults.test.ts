/** Sees to it that `npm run faults` finds faults that are planted. */
import { assert, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { type PlantedFault, plantedFaults } from "./faults/clients.ts"
import { clusterRig, type Fault, type Rig, redisRig } from "./faults/rig.ts"
import { runOnce } from "./faults/run.ts"
import { describeRedis } from "./servers.ts"

const find = Effect.fnUntraced(function* <F extends Fault>(rig: Rig<F>, fault: F, planted: PlantedFault) {
  const run = runOnce(rig, fault, { name: planted, planted, apart: 0 })
  const { violations } = yield* Effect.repeat(run, { times: 9, until: ({ violations }) => violations.length > 0 })
  assert.isNotEmpty(violations)
})

const findOnRedis = (fault: "kill" | "clock") => (planted: PlantedFault) =>
  Effect.flatMap(redisRig(planted), (rig) => find(rig, fault, planted))

const finds: Readonly<Record<PlantedFault, (planted: PlantedFault) => Effect.Effect<void, unknown, Scope.Scope>>> = {
  "no append-only file": findOnRedis("kill"),
  "replace is find and commit": findOnRedis("clock"),
  "answers without a write": findOnRedis("clock"),
  "answers without a replica": (planted) => Effect.flatMap(clusterRig(planted), (rig) => find(rig, "kill", planted))
}

describeRedis("a fault that is planted is found in the history of what clients saw", () => {
  it.live.each(plantedFaults)("%s", (planted) => finds[planted](planted))
})
