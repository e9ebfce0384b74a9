/** What MemStore and HttpSession are meant to reach: medians of one run, most of them as ratios to another's. */
import { connections, ours, plain, readingIdle, rivals } from "./httpSubjects.ts"
import { type Figure, type Part, type Results, summarize } from "./results.ts"

export interface Target {
  readonly name: string
  /** `NaN` if it was not measured. */
  readonly value: number
  readonly limit: number
  readonly met: boolean
}

export const targetsOf = ({ measurements }: Results): ReadonlyArray<Target> => {
  // Of the stores, what counts is the greatest size that was measured.
  const sizes = measurements.filter((m) => m.part === "operations" || m.part.startsWith("cleanup"))
  const sessions = Math.max(...sizes.map((m) => m.sessions))
  const median = (part: Part, subject: string, figure: Figure, size = sessions): number =>
    summarize(measurements, { part, subject, sessions: size }, figure)?.median ?? Number.NaN

  const operation = (figure: Figure) => median("operations", "MemStore", figure)
  // The worse of the two: with half of the sessions expired, and with one in a hundred.
  const cleanups = ["cleanup50", "cleanup1"] as const
  const worst = (of: (part: Part) => number) => Math.max(...cleanups.map(of))
  const thanMemorystore = (figure: Figure) => (part: Part) =>
    median(part, "MemStore", figure) / median(part, "memorystore", figure)
  const fewest = Math.min(...measurements.filter((m) => m.part === "operations").map((m) => m.sessions))
  const scales = measurements.filter((m) => m.part === "scale").map((m) => m.sessions)
  const cpu = (part: Part, subject: string) => median(part, subject, "cpu", connections)
  const fastestRival = (part: Part) => Math.min(...rivals.map((subject) => cpu(part, subject)))

  const atMost = (name: string, limit: number, value: number, than = 1): Target => ({
    name,
    value: value / than,
    limit,
    met: value / than <= limit
  })
  const operationAtMost = (figure: Figure, limit: number, than: string) =>
    atMost(`${figure} / ${figure} of ${than}`, limit, operation(figure), median("operations", than, figure))

  return [
    atMost(
      "longest stall of a sweep, ms",
      20,
      worst((part) => median(part, "MemStore", "sweepStall"))
    ),
    atMost("the same / memorystore's", 1 / 20, worst(thanMemorystore("sweepStall"))),
    atMost(
      "p99 find during a sweep / without one",
      2,
      worst((part) => median(part, "MemStore", "sweepFind99") / median(part, "MemStore", "idleFind99"))
    ),
    operationAtMost("find", 2, "Effect HashMap"),
    operationAtMost("commit", 1.2, "Effect HashMap"),
    operationAtMost("find", 2, "Effect Ref<HashMap>"),
    operationAtMost("commit", 1.2, "Effect Ref<HashMap>"),
    operationAtMost("find", 1 / 2, "memorystore"),
    operationAtMost("commit", 1, "memorystore"),
    operationAtMost("overwrite", 1, "memorystore"),
    operationAtMost("find", 3, "Effect KeyValueStore"),
    operationAtMost("commit", 3, "Effect KeyValueStore"),
    atMost("longest stall of all, ms", 20, operation("allStall")),
    operationAtMost("all", 1, "memorystore"),
    atMost("resident bytes / memorystore's", 0.9, worst(thanMemorystore("resident"))),
    ...(["find", "commit"] as const).map((figure) =>
      atMost(
        `${figure} / the same with ${fewest}`,
        3,
        operation(figure),
        median("operations", "MemStore", figure, fewest)
      )
    ),
    ...(Math.max(...scales) > Math.min(...scales) ? (["find", "commit", "overwrite"] as const) : []).map((figure) =>
      atMost(
        `${figure} among ${Math.max(...scales)} / among ${Math.min(...scales)}`,
        1.5,
        median("scale", "MemStore", figure, Math.max(...scales)),
        median("scale", "MemStore", figure, Math.min(...scales))
      )
    ),
    atMost("processor time, HttpSession / the best of its rivals", 0.7, cpu("http", ours), fastestRival("http")),
    atMost("processor time that HttpSession adds, µs", 25, cpu("http", ours) - cpu("http", plain)),
    atMost("that it adds to a request that only reads, µs", 15, cpu("reads", ours) - cpu("reads", plain)),
    atMost("the same with an idle timeout, µs", 15, cpu("reads", readingIdle) - cpu("reads", plain))
  ].filter(({ value }) => !Number.isNaN(value))
}
