/**
 * `npm run bench`: every store and server in a process of its own, started in turn, round after round.
 *
 * Figures of two runs cannot be compared, for nobody knows what else the machine did. Those of one run can: its rounds
 * are interleaved, and what disturbs one subject disturbs the others as well.
 */
import { availableParallelism, cpus, totalmem } from "node:os"
import { fileURLToPath } from "node:url"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Console, DateTime, Effect, FileSystem, Option, Path, Schema, Stream } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { plotStalls } from "./plot.ts"
import { Figures, type Measurement, type Part, Results } from "./results.ts"
import { peers } from "./stores.ts"
import { tablesOf } from "./tables.ts"

class MeasurementError extends Schema.TaggedError<MeasurementError>()("MeasurementError", {
  subject: Schema.String,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `${this.subject} could not be measured`
  }
}

const decodeFigures = Schema.decodeUnknownEffect(Schema.fromJsonString(Figures))

const scriptArguments = (script: string): Array<string> => [
  "--expose-gc",
  "--max-old-space-size=8192",
  "--import",
  "tsx",
  fileURLToPath(new URL(script, import.meta.url))
]

/** Runs a script in a process of its own; its standard output is the figures. */
const measure = (subject: string, command: string, args: ReadonlyArray<string>) =>
  ChildProcessSpawner.ChildProcessSpawner.use((spawner) =>
    spawner.string(ChildProcess.make(command, args, { stderr: "inherit" }))
  ).pipe(
    Effect.flatMap(decodeFigures),
    Effect.mapError((cause) => new MeasurementError({ subject, cause }))
  )

/** Starts a server in a process of its own, and loads it from another. */
const measureServer = (subject: string, { script, kept }: (typeof servers)[keyof typeof servers], seconds: number) =>
  Effect.gen(function* () {
    const server = yield* ChildProcess.make(process.execPath, scriptArguments(`servers/${script}.ts`), {
      stderr: "inherit"
    })
    const port = yield* Stream.runHead(Stream.splitLines(Stream.decodeText(server.stdout)))
    return yield* measure(subject, process.execPath, [
      ...scriptArguments("load.ts"),
      Option.getOrElse(port, () => "none"),
      `${seconds}`,
      kept
    ])
  }).pipe(
    Effect.scoped,
    Effect.catchTag("PlatformError", (cause) => Effect.fail(new MeasurementError({ subject, cause })))
  )

/** Builds the program that measures scs/memstore itself, in a folder where Go may write what it fetches. */
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

interface Plan {
  readonly part: Part
  readonly subject: string
  readonly sessions: number
  readonly measure: ReturnType<typeof measureServer>
}

const scsPlan = (program: string, part: Part, sessions: number): Plan => ({
  part,
  subject: "scs/memstore (Go)",
  sessions,
  measure: measure("scs/memstore (Go)", program, [part, `${sessions}`])
})

const storePlans = (part: Exclude<Part, "http">, sessions: number): Array<Plan> =>
  Object.entries(peers)
    .filter(([, { sweeps }]) => sweeps || part !== "cleanup1")
    .map(([subject]) => ({
      part,
      subject,
      sessions,
      measure: measure(subject, process.execPath, [...scriptArguments("measure.ts"), part, subject, `${sessions}`])
    }))

const servers = {
  "Effect, no session": { script: "effect", kept: "none" },
  "Effect, HttpSession": { script: "effectSession", kept: "session" },
  "express, memorystore": { script: "express", kept: "session" }
}

const serverPlans = (seconds: number): Array<Plan> =>
  Object.entries(servers).map(([subject, server]) => ({
    part: "http",
    subject,
    sessions: 64,
    measure: measureServer(subject, server, seconds)
  }))

/** Measures round after round, and hands over what there is after each: who ends a long run early keeps its rounds. */
const run = Effect.fnUntraced(function* <E, R>(
  plans: ReadonlyArray<Plan>,
  rounds: number,
  report: (measurements: ReadonlyArray<Measurement>) => Effect.Effect<void, E, R>
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
  `${process.platform} ${process.arch}, Node ${process.version}`

const bench = Command.make(
  "bench",
  {
    parts: Argument.Literals("part", ["stores", "cleanup", "http"]).pipe(
      Argument.withDescription("What to measure; everything where none is named"),
      Argument.variadic()
    ),
    sessions: Flag.Int("sessions").pipe(
      Flag.withDescription("Sessions in a store; may be given several times [10000, 100000 and 1000000]"),
      Flag.atLeast(0)
    ),
    rounds: Flag.Int("rounds").pipe(Flag.withDescription("Rounds, of which the median counts"), Flag.withDefault(2)),
    seconds: Flag.Int("seconds").pipe(
      Flag.withDescription("Seconds that each server is under load"),
      Flag.withDefault(3)
    ),
    output: Flag.Directory("output").pipe(
      Flag.withDescription("Where results.json, tables.md and stalls.svg are written"),
      Flag.withDefault(fileURLToPath(new URL("results", import.meta.url)))
    )
  },
  Effect.fnUntraced(function* ({ parts, sessions, rounds, seconds, output }) {
    const wanted = (part: (typeof parts)[number]) => parts.length === 0 || parts.includes(part)
    const sizes = sessions.length === 0 ? [10_000, 100_000, 1_000_000] : sessions
    const storeParts = [
      ...(wanted("stores") ? (["operations"] as const) : []),
      ...(wanted("cleanup") ? (["cleanup50", "cleanup1"] as const) : [])
    ]
    const scs = storeParts.length === 0 ? Option.none() : yield* buildScs
    const plans = [
      ...sizes.flatMap((size) =>
        storeParts.flatMap((part) => [
          ...storePlans(part, size),
          ...Option.match(scs, { onNone: () => [], onSome: (program) => [scsPlan(program, part, size)] })
        ])
      ),
      ...(wanted("http") ? serverPlans(seconds) : [])
    ]
    const about = {
      date: DateTime.formatIso(yield* DateTime.now),
      machine: machine(),
      command: [
        "npm run bench --",
        ...parts,
        ...sizes.map((size) => `--sessions ${size}`),
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
    yield* run(plans, rounds, write)
    yield* Console.log(yield* fs.readFileString(path.join(output, "tables.md")))
  }, Effect.scoped)
).pipe(Command.withDescription("Measures session stores, and servers with sessions, beside each other"))

bench.pipe(Command.run({ version: "0" }), Effect.provide(NodeServices.layer), NodeRuntime.runMain)
