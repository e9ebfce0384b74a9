/**
 * `npm run bench`: every store and server in a separate process, started in turn, round after round.
 *
 * Figures of two runs cannot be compared, because the load of the machine is unknown. Those of one run can: its rounds
 * are interleaved, and what disturbs one subject disturbs the others as well.
 */
import { availableParallelism, cpus, totalmem } from "node:os"
import { fileURLToPath } from "node:url"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Console, DateTime, Effect, FileSystem, Option, Path, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { buildScripts } from "./built.ts"
import { measure, measureByScript } from "./child.ts"
import { httpPlans } from "./http.ts"
import type { HttpPart } from "./httpSubjects.ts"
import { generator } from "./loadGenerator.ts"
import { plotStalls } from "./plot.ts"
import { type Figures, type Measurement, type Part, Results } from "./results.ts"
import { mebibytesFor } from "./scale.ts"
import { peers } from "./stores.ts"
import { tablesOf } from "./tables.ts"

/** Builds the program that measures scs/memstore itself, in a folder where Go may write its downloads. */
const buildScs = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const cwd = yield* fs.makeTempDirectoryScoped()
  yield* fs.copyFile(fileURLToPath(new URL("scs/main.go", import.meta.url)), path.join(cwd, "main.go"))
  for (const args of [
    ["mod", "init", "bench"],
    ["get", "github.com/alexedwards/scs/v2@v2.8.0"],
    ["build", "-o", "bench", "."]
  ]) {
    if ((yield* spawner.exitCode(ChildProcess.make("go", args, { cwd }))) !== 0) return Option.none()
  }
  return Option.some(path.join(cwd, "bench"))
}).pipe(
  Effect.orElseSucceed(() => Option.none<string>()),
  Effect.tap((program) =>
    Option.isNone(program)
      ? Console.error("scs/memstore is left out: Go is not installed, or could not fetch and build it")
      : Effect.void
  )
)

const scsPlan = (program: string, part: Part, sessions: number) => ({
  part,
  subject: "scs/memstore (Go)",
  sessions,
  measure: measure("scs/memstore (Go)", program, [part, `${sessions}`])
})

const storePlans = (built: string, part: Exclude<Part, HttpPart | "scale">, sessions: number) =>
  Object.entries(peers)
    .filter(([, { sweeps }]) => sweeps || part !== "cleanup1")
    .map(([subject]) => ({
      part,
      subject,
      sessions,
      measure: measureByScript(subject, built, [part, subject, `${sessions}`])
    }))

/** MemStore beside what it is built on, of sizes that fit into the memory of this machine. */
const scalePlans = Effect.fnUntraced(function* (built: string, sizes: ReadonlyArray<number>) {
  const gibibytes = (mebibytes: number) => `${(mebibytes / 1024).toFixed(1)} GiB`
  const available = process.availableMemory() / 2 ** 20
  const fits = (size: number) => mebibytesFor(size) <= available
  for (const size of sizes.filter((size) => !fits(size))) {
    yield* Console.error(
      `${size} sessions are left out: they may need ${gibibytes(mebibytesFor(size))}, and ${gibibytes(available)} are free`
    )
  }
  return sizes.filter(fits).flatMap((size) =>
    ["MemStore", "Effect HashMap"].map((subject) => ({
      part: "scale" as const,
      subject,
      sessions: size,
      measure: measureByScript(subject, built, ["scale", subject, `${size}`], {
        mebibytes: Math.max(2048, mebibytesFor(size))
      })
    }))
  )
})

interface Plan<E, R> {
  readonly part: Part
  readonly subject: string
  readonly sessions: number
  readonly measure: Effect.Effect<Figures, E, R>
}

/**
 * Measures round after round, and passes on the results after each: if you end a long run early, you keep its rounds.
 */
const run = Effect.fnUntraced(function* <E, R, E2, R2>(
  plans: ReadonlyArray<Plan<E, R>>,
  rounds: number,
  report: (measurements: ReadonlyArray<Measurement>) => Effect.Effect<void, E2, R2>
) {
  const measurements: Array<Measurement> = []
  for (let round = 1; round <= rounds; round++) {
    for (const { measure, ...plan } of plans) {
      yield* Console.error(`round ${round} of ${rounds}: ${plan.part}, ${plan.sessions} sessions, ${plan.subject}`)
      measurements.push({ ...plan, round, figures: yield* measure })
    }
    yield* report(measurements)
  }
})

const machine = (): string =>
  `${cpus()[0]?.model.trim()}, ${availableParallelism()} cores, ${(totalmem() / 2 ** 30).toFixed(0)} GiB, ` +
  `${process.platform} ${process.arch}, Node ${process.version}, load by ${generator}`

const bench = Command.make(
  "bench",
  {
    parts: Argument.Literals("part", ["stores", "cleanup", "scale", "http", "reads", "remote"]).pipe(
      Argument.withDescription("What to measure; everything if none is named"),
      Argument.variadic()
    ),
    sessions: Flag.Int("sessions").pipe(
      Flag.withDescription(
        "Sessions in a store; may be given several times [10000, 100000 and 1000000; of scale 1, 4 and 10 millions]"
      ),
      Flag.atLeast(0)
    ),
    rounds: Flag.Int("rounds").pipe(Flag.withDescription("Rounds, of which the median counts"), Flag.withDefault(2)),
    seconds: Flag.Int("seconds").pipe(
      Flag.withDescription("Seconds that each server is under load"),
      Flag.withDefault(3)
    ),
    only: Flag.String("only").pipe(
      Flag.withDescription("Only stores and servers whose name has this text in it"),
      Flag.withDefault("")
    ),
    output: Flag.Directory("output").pipe(
      Flag.withDescription("Where results.json, tables.md and stalls.svg are written"),
      Flag.withDefault(fileURLToPath(new URL("results", import.meta.url)))
    )
  },
  Effect.fnUntraced(function* ({ parts, sessions, rounds, seconds, only, output }) {
    const wanted = (part: (typeof parts)[number]) => parts.length === 0 || parts.includes(part)
    const sizes = sessions.length === 0 ? [10_000, 100_000, 1_000_000] : sessions
    const scaleSizes = sessions.length === 0 ? [1_000_000, 4_000_000, 10_000_000] : sessions
    const storeParts = [
      ...(wanted("stores") ? (["operations"] as const) : []),
      ...(wanted("cleanup") ? (["cleanup50", "cleanup1"] as const) : [])
    ]
    const scs = storeParts.length === 0 ? Option.none() : yield* buildScs
    const built = yield* buildScripts
    const plans = [
      ...sizes.flatMap((size) =>
        storeParts.flatMap((part) => [
          ...storePlans(built("measure"), part, size),
          ...Option.match(scs, { onNone: () => [], onSome: (program) => [scsPlan(program, part, size)] })
        ])
      ),
      ...(wanted("scale") ? yield* scalePlans(built("measure"), scaleSizes) : []),
      ...(yield* httpPlans((["http", "reads", "remote"] as const).filter(wanted), built, seconds))
    ]
    const about = {
      date: DateTime.formatIso(yield* DateTime.now),
      machine: machine(),
      command: [
        "npm run bench --",
        ...parts,
        ...sessions.map((size) => `--sessions ${size}`),
        ...(only === "" ? [] : [`--only ${JSON.stringify(only)}`]),
        `--rounds ${rounds} --seconds ${seconds}`
      ].join(" ")
    }
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    yield* fs.makeDirectory(output, { recursive: true })
    const write = Effect.fnUntraced(function* (measurements: ReadonlyArray<Measurement>) {
      const results = { ...about, measurements }
      const json = JSON.stringify(yield* Schema.encodeEffect(Results)(results), null, 2)
      yield* fs.writeFileString(path.join(output, "results.json"), `${json}\n`)
      yield* fs.writeFileString(path.join(output, "stalls.svg"), yield* plotStalls(results))
      yield* fs.writeFileString(path.join(output, "tables.md"), `${tablesOf(results)}\n`)
    })
    yield* run(
      plans.filter(({ subject }) => subject.includes(only)),
      rounds,
      write
    )
    yield* Console.log(yield* fs.readFileString(path.join(output, "tables.md")))
  }, Effect.scoped)
).pipe(Command.withDescription("Measures session stores, and servers with sessions, beside each other"))

bench.pipe(Command.run({ version: "0" }), Effect.provide(NodeServices.layer), NodeRuntime.runMain)
