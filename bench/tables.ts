/** The results as Markdown tables, which are also readable on a terminal. */
import { type Figure, type Part, type Results, type Summary, summarize } from "./results.ts"
import { peers } from "./stores.ts"
import { targetsOf } from "./targets.ts"

interface Column {
  readonly title: string
  readonly figure: Figure
  readonly digits: number
}

const column = (title: string, figure: Figure, digits = 0): Column => ({ title, figure, digits })

const cleanupColumns = [
  column("heap", "heap"),
  column("resident", "resident"),
  column("pass", "sweep"),
  column("longest stall", "sweepStall", 1),
  column("p99 stall", "sweepStall99", 2),
  column("p99 find", "sweepFind99", 2),
  column("idle: longest stall", "idleStall", 1),
  column("idle: p99 find", "idleFind99", 2)
]

const perRequest = "microseconds of the server's processor a request, latency in milliseconds"

const httpColumns = [
  column("processor", "cpu", 1),
  column("its own", "user", 1),
  column("the system's", "system", 1),
  column("requests a second", "requests"),
  column("p50 latency", "latency50", 1),
  column("p99 latency", "latency99", 1)
]

const parts: Record<Part, { readonly title: string; readonly columns: ReadonlyArray<Column> }> = {
  operations: {
    title: "nanoseconds an operation; for `all` milliseconds, and the longest stall of the event loop meanwhile",
    columns: [
      column("commit", "commit"),
      column("overwrite", "overwrite"),
      column("find", "find"),
      column("miss", "miss"),
      column("replace", "replace"),
      column("delete", "delete"),
      column("all", "all"),
      column("its stall", "allStall", 1)
    ]
  },
  cleanup50: {
    title: "one sweep, half of them expired; bytes a session, then milliseconds",
    columns: cleanupColumns
  },
  cleanup1: {
    title: "one sweep, 1 % of them expired; bytes a session, then milliseconds",
    columns: cleanupColumns
  },
  scale: {
    title: "nanoseconds an operation, bytes a session; one sweep of half of them, in milliseconds",
    columns: [
      column("heap", "heap"),
      column("resident", "resident"),
      column("find", "find"),
      column("commit", "commit"),
      column("overwrite", "overwrite"),
      column("pass", "sweep"),
      column("longest stall", "sweepStall", 1),
      column("p99 stall", "sweepStall99", 2),
      column("idle: longest stall", "idleStall", 1)
    ]
  },
  http: { title: `one route that reads and changes a session; ${perRequest}`, columns: httpColumns },
  reads: { title: `one route that reads a session; ${perRequest}`, columns: httpColumns },
  remote: {
    title: `sessions in a server of their own; ${perRequest}`,
    columns: [...httpColumns, column("round trips to the store", "roundTrips", 1)]
  }
}

const number = (value: number, digits: number): string =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })

const cell = (summary: Summary | undefined, digits: number): string =>
  summary === undefined ? "" : `${number(summary.median, digits)} ±${(summary.spread * 100).toFixed(0)}%`

export const tableOf = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(3, ...rows.map((row) => row[i]?.length ?? 0)))
  const line = (cells: ReadonlyArray<string>) =>
    `| ${cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join(" | ")} |`
  const rule = `| ${widths.map((width, i) => (i === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`)).join(" | ")} |`
  return rows.flatMap((row, i) => (i === 0 ? [line(row), rule] : [line(row)])).join("\n")
}

const unique = <A>(values: ReadonlyArray<A>): Array<A> => [...new Set(values)]

/** A table a part and size, then what the project promises of them. */
export const tablesOf = (results: Results): string => {
  const { measurements } = results
  const sections = unique(measurements.map((m) => m.sessions)).flatMap((sessions) =>
    unique(measurements.filter((m) => m.sessions === sessions).map((m) => m.part)).map((part) => {
      const { title, columns } = parts[part]
      const subjects = unique(
        measurements.filter((m) => m.sessions === sessions && m.part === part).map((m) => m.subject)
      )
      const rows = subjects.map((subject) => [
        subject,
        ...columns.map(({ figure, digits }) =>
          cell(summarize(measurements, { part, subject, sessions }, figure), digits)
        )
      ])
      return `${number(sessions, 0)} sessions: ${title}\n\n${tableOf([["", ...columns.map(({ title }) => title)], ...rows])}`
    })
  )
  const targets = targetsOf(results).map(({ name, value, limit, met }) => [
    name,
    number(value, 2),
    number(limit, 2),
    met ? "yes" : "no"
  ])
  const lacks = Object.entries(peers).flatMap(([subject, { lacks }]) =>
    lacks === "" ? [] : [`- ${subject}: ${lacks}`]
  )
  const hasStores = measurements.some(({ part }) => part === "operations" || part === "cleanup50")
  return [
    `${results.date}, ${results.machine}`,
    results.command,
    ...sections,
    ...(hasStores ? [`What they lack, of what MemStore does:\n\n${lacks.join("\n")}`] : []),
    ...(targets.length === 0 ? [] : [`Targets\n\n${tableOf([["", "measured", "target", "met"], ...targets])}`])
  ].join("\n\n")
}
