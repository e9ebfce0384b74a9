/**
 * `npm run faults -- --runs 50`: real servers, real faults. Each run writes down what four clients asked for and were
 * answered while a server was killed, stood still or was cut off, and looks whether that can have happened.
 */
import { parseArgs } from "node:util"
import { Effect, Random, References, type Scope } from "effect"
import { assertKnown } from "../commandLine.ts"
import { plantedFaults } from "./clients.ts"
import { clusterRig, type Fault, faults, postgresRig, type Rig, redisRig } from "./rig.ts"
import { type Result, type RunOptions, runOnce } from "./run.ts"

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "5" },
    store: { type: "string" },
    fault: { type: "string" },
    seed: { type: "string" },
    /** How far the clocks of the two servers are apart with the fault `clock`, in seconds. */
    apart: { type: "string", default: "60" },
    planted: { type: "string" }
  }
})

const seed = values.seed === undefined ? Math.floor(Math.random() * 1_000_000) : Number(values.seed)
const planted = plantedFaults.find((fault) => fault === values.planted)

const hasSqlite = process.getBuiltinModule("node:sqlite") !== undefined

const sqliteRun = Effect.promise(() => import("./sqlite.ts"))

/** Starts the servers, and provides a run with each fault. */
type Subject = Effect.Effect<
  ReadonlyArray<readonly [Fault, (options: RunOptions) => Effect.Effect<Result>]>,
  unknown,
  Scope.Scope
>

const on = <F extends Fault>(rig: Effect.Effect<Rig<F>, unknown, Scope.Scope>): Subject =>
  Effect.map(rig, (rig) => rig.faults.map((fault) => [fault, (options: RunOptions) => runOnce(rig, fault, options)]))

const subjects: Readonly<Record<string, Subject>> = {
  redis: on(redisRig(planted)),
  cluster: on(clusterRig(planted)),
  postgresql: on(postgresRig),
  sqlite: Effect.map(sqliteRun, ({ faultsOfFiles, runOnFile }) =>
    faultsOfFiles.map((fault) => [fault, (options: RunOptions) => runOnFile(fault, options)])
  )
}

assertKnown("store", values.store, Object.keys(subjects))
assertKnown("fault", values.fault, faults)
assertKnown("planted", values.planted, plantedFaults)

const printed = 3

// The clients of Redis warn of each connection that is cut.
const quietly = Effect.provideService(References.MinimumLogLevel, "None")

const runAll = Effect.fnUntraced(function* (store: string, subject: Subject) {
  const runs = (yield* subject).filter(([fault]) => values.fault === undefined || values.fault === fault)
  if (runs.length === 0 && values.store !== undefined) throw new Error(`${store} has no fault ${values.fault}`)
  for (const [fault, run] of runs) {
    const total = { operations: 0, unknown: 0, twice: 0, undecided: 0, violations: 0 }
    for (let number = 0; number < Number(values.runs); number++) {
      const name = `${fault} ${seed + number}`
      const result = yield* Random.withSeed(run({ name, planted, apart: Number(values.apart) * 1000 }), seed + number)
      total.operations += result.operations
      total.unknown += result.unknown
      total.twice += result.twice
      total.undecided += result.undecided
      for (const violation of result.violations) {
        if (total.violations++ < printed) console.log(`\n== ${store}, ${name}: ${violation}\n`)
      }
    }
    const { operations, twice, undecided, unknown, violations } = total
    console.log(
      `${store}, ${fault}: ${values.runs} runs, ${operations} operations, ${unknown} unknown, ` +
        `${twice} made twice after a failure, ${undecided} undecided, ${violations} violations`
    )
    if (violations > 0) process.exitCode = 1
  }
})

console.log(`Node.js ${process.version}, from seed ${seed}${planted === undefined ? "" : `, planted: ${planted}`}`)
for (const [store, subject] of Object.entries(subjects)) {
  if (values.store !== undefined && values.store !== store) continue
  if (store === "sqlite" && !hasSqlite) console.log("sqlite: skipped, since it needs Node.js 22.13")
  else await Effect.runPromise(quietly(Effect.scoped(runAll(store, subject))))
}
process.exit()
