/** Sees to it that `npm run faults` finds faults that are planted. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { type PlantedFault, plantedFaults } from "./faults/clients.ts"
import { type Fault, redisRig } from "./faults/rig.ts"
import { runOnce } from "./faults/run.ts"
import { describeRedis } from "./servers.ts"

const injected: Readonly<Record<PlantedFault, Fault>> = {
  "no append-only file": "kill",
  "replace is find and commit": "clock",
  "answers without a write": "clock"
}

describeRedis("a fault that is planted is found in the history of what clients saw", () => {
  it.live.each(plantedFaults)("%s", (planted) =>
    Effect.gen(function* () {
      const rig = yield* redisRig(planted)
      const run = runOnce(rig, injected[planted], { name: planted, planted, apart: 0 })
      const { violations } = yield* Effect.repeat(run, { times: 9, until: ({ violations }) => violations.length > 0 })
      assert.isNotEmpty(violations)
    })
  )
})
