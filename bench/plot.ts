/** A plot of the longest stall of a sweep against the number of sessions. */
import { Effect } from "effect"
import { parse, View } from "vega"
import { compile, type TopLevelSpec } from "vega-lite"
import { type Results, summarize } from "./results.ts"

export const plotStalls = (results: Results): Effect.Effect<string> => {
  const points = new Map<string, { readonly store: string; readonly sessions: number; readonly stall: number }>()
  for (const { part, subject, sessions } of results.measurements) {
    if (part !== "cleanup50") continue
    const stall = summarize(results.measurements, { part, subject, sessions }, "sweepStall")
    if (stall) points.set(`${subject} ${sessions}`, { store: subject, sessions, stall: stall.median })
  }
  const spec: TopLevelSpec = {
    title: "Longest stall of the event loop while half of the sessions are swept",
    width: 560,
    height: 320,
    background: "white",
    data: { values: [...points.values()] },
    mark: { type: "line", point: true },
    encoding: {
      x: { field: "sessions", type: "quantitative", scale: { type: "log" }, title: "sessions in the store" },
      y: { field: "stall", type: "quantitative", scale: { type: "log" }, title: "longest stall, milliseconds" },
      color: { field: "store", type: "nominal", title: "store" }
    }
  }
  return Effect.promise(() => new View(parse(compile(spec).spec), { renderer: "none" }).toSVG())
}
