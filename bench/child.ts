/** Measures in a separate process, whose standard output is the figures. */
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

/** By a script that was built. */
export const measureByScript = (
  subject: string,
  file: string,
  args: ReadonlyArray<string>,
  { mebibytes = 8192 }: { readonly mebibytes?: number } = {}
) => measure(subject, process.execPath, ["--expose-gc", `--max-old-space-size=${mebibytes}`, file, ...args])
