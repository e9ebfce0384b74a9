/** Measures in a process of its own, whose standard output is the figures. */
import { fileURLToPath } from "node:url"
import { Effect, Schema } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { Figures } from "./results.ts"

export class MeasurementError extends Schema.TaggedError<MeasurementError>()("MeasurementError", {
  subject: Schema.String,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `${this.subject} could not be measured`
  }
}

const decodeFigures = Schema.decodeUnknownEffect(Schema.fromJsonString(Figures))

export const measure = (subject: string, command: string, args: ReadonlyArray<string>) =>
  ChildProcessSpawner.ChildProcessSpawner.use((spawner) =>
    spawner.string(ChildProcess.make(command, args, { stderr: "inherit" }))
  ).pipe(
    Effect.flatMap(decodeFigures),
    Effect.mapError((cause) => new MeasurementError({ subject, cause }))
  )

export const measureByScript = (
  subject: string,
  script: string,
  args: ReadonlyArray<string>,
  { mebibytes = 8192 }: { readonly mebibytes?: number } = {}
) =>
  measure(subject, process.execPath, [
    "--expose-gc",
    `--max-old-space-size=${mebibytes}`,
    "--import",
    "tsx",
    fileURLToPath(new URL(script, import.meta.url)),
    ...args
  ])
