/** The measurements, as processes pass them on and as the file of results holds them. */
import { Schema } from "effect"

const figure = Schema.optional(Schema.Finite)

/** Nanoseconds an operation; milliseconds for what names the time of many; bytes a session. */
export const Figures = Schema.Struct({
  commit: figure,
  overwrite: figure,
  find: figure,
  miss: figure,
  replace: figure,
  delete: figure,
  /** Milliseconds, for all sessions; and the longest turn of the event loop in that time. */
  all: figure,
  allStall: figure,
  /** Bytes per session: on the heap, outside of it, and resident. */
  heap: figure,
  resident: figure,
  /** Milliseconds of a pass from start to end; turns of the event loop in that time, and how long finds waited. */
  sweep: figure,
  sweepStall: figure,
  sweepStall99: figure,
  sweepFind99: figure,
  /** The same without a pass. */
  idleStall: figure,
  idleFind99: figure,
  /** Microseconds of processor time that a server takes for a request: in total, of the process and of the system. */
  cpu: figure,
  user: figure,
  system: figure,
  /** Requests a second, and milliseconds. */
  requests: figure,
  latency50: figure,
  latency99: figure,
  /** How often a request waits for the store. */
  roundTrips: figure
})
export type Figures = typeof Figures.Type
export type Figure = keyof Figures

export const Part = Schema.Literals(["operations", "cleanup50", "cleanup1", "scale", "http", "reads", "remote"])
export type Part = typeof Part.Type

/** One round of one subject: a store, or a server. */
export const Measurement = Schema.Struct({
  part: Part,
  subject: Schema.String,
  sessions: Schema.Int,
  round: Schema.Int,
  figures: Figures
})
export type Measurement = typeof Measurement.Type

export const Results = Schema.Struct({
  date: Schema.String,
  machine: Schema.String,
  command: Schema.String,
  measurements: Schema.Array(Measurement)
})
export type Results = typeof Results.Type

export interface Summary {
  readonly median: number
  /** Half the distance from the least to the greatest, as a part of the median. */
  readonly spread: number
}

/** What the rounds gave for a figure, if it was measured at all. */
export const summarize = (
  measurements: ReadonlyArray<Measurement>,
  of: { readonly part: Part; readonly subject: string; readonly sessions: number },
  figure: Figure
): Summary | undefined => {
  const values = measurements
    .filter((m) => m.part === of.part && m.subject === of.subject && m.sessions === of.sessions)
    .map((m) => m.figures[figure])
    .filter((value) => value !== undefined)
    .sort((a, b) => a - b)
  const least = values[0]
  const greatest = values.at(-1)
  if (least === undefined || greatest === undefined) return undefined
  const middle = values.length / 2
  const median = ((values[Math.ceil(middle) - 1] ?? 0) + (values[Math.floor(middle)] ?? 0)) / 2
  return { median, spread: median === 0 ? 0 : (greatest - least) / 2 / median }
}
