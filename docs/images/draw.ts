/**
 * Draws the pictures of the README, each in light and dark: `npm run images`.
 */
import { writeFileSync } from "node:fs"

interface Colors {
  readonly text: string
  readonly quiet: string
  readonly line: string
  readonly box: string
  readonly bad: string
  readonly good: string
}

const themes: Readonly<Record<string, Colors>> = {
  light: { text: "#1f2328", quiet: "#59636e", line: "#c4ccd6", box: "#f6f8fa", bad: "#cf222e", good: "#1a7f37" },
  dark: { text: "#f0f6fc", quiet: "#9198a1", line: "#3d444d", box: "#151b23", bad: "#ff7b72", good: "#3fb950" }
}

const escaped = (text: string): string => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/"/g, "&quot;")

const font = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

interface Label {
  readonly at: readonly [x: number, y: number]
  readonly fill: string
  readonly size?: number
  readonly weight?: number
  readonly anchor?: "start" | "middle" | "end"
}

const write = (text: string, { anchor = "middle", at: [x, y], fill, size = 13, weight = 400 }: Label): string =>
  `<text x="${x}" y="${y}" fill="${fill}" font-size="${size}" font-weight="${weight}" text-anchor="${anchor}">${escaped(text)}</text>`

const rule = (x1: number, y1: number, x2: number, y2: number, stroke: string, dashes = ""): string =>
  `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="${stroke}" stroke-width="1.5"${dashes && ` stroke-dasharray="${dashes}"`}/>`

const arrow = (from: number, to: number, y: number, stroke: string): string => {
  const back = to > from ? -7 : 7
  const head = `<path d="M${to} ${y} l${back} -4.5 v9 z" fill="${stroke}"/>`
  return rule(from, y, to + back / 2, y, stroke) + head
}

const svg = (width: number, height: number, description: string, content: ReadonlyArray<string>): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" font-family="${escaped(font)}">
<title>${escaped(description)}</title>
${content.join("\n")}
</svg>
`

/** A step: its request, whether it reads or writes, its label, and its result. */
type Step = readonly [who: "one" | "two", way: "from" | "to", text: string, outcome?: "good" | "bad" | undefined]

interface Panel {
  readonly title: string
  readonly left: number
  readonly steps: ReadonlyArray<Step>
  readonly result: readonly [text: string, outcome: "good" | "bad"]
}

const width = 460

const drawPanel = ({ left, result, steps, title }: Panel, colors: Colors): string => {
  const [one, store, two] = [left + 60, left + width / 2, left + width - 60]
  const bottom = 98 + steps.length * 40
  const [text, outcome] = result
  const heads = [
    [one, "request 1"],
    [store, "session"],
    [two, "request 2"]
  ] as const
  return [
    write(title, { at: [store, 26], fill: colors.text, size: 15, weight: 600 }),
    ...heads.flatMap(([x, name]) => [
      write(name, { at: [x, 58], fill: colors.quiet }),
      rule(x, 68, x, bottom - 18, colors.line, "3 4")
    ]),
    ...steps.flatMap(([who, way, text, outcome], index) => {
      const y = 96 + index * 40
      const [x, inset] = who === "one" ? [one, 5] : [two, -5]
      const stroke = outcome === undefined ? colors.quiet : colors[outcome]
      return [
        way === "from" ? arrow(store - inset, x + inset, y, stroke) : arrow(x + inset, store - inset, y, stroke),
        write(text, { at: [(x + store) / 2, y - 7], fill: outcome === undefined ? colors.text : stroke, size: 12.5 })
      ]
    }),
    `<rect x="${left + 40}" y="${bottom - 10}" width="${width - 80}" height="38" rx="6" fill="${colors.box}" stroke="${colors[outcome]}"/>`,
    write(text, { at: [store, bottom + 14], fill: colors[outcome], size: 14, weight: 600 })
  ].join("\n")
}

const drawRace = (colors: Colors): string => {
  const reads: ReadonlyArray<Step> = [
    ["one", "from", "reads: tea"],
    ["two", "from", "reads: tea"]
  ]
  const others: Panel = {
    title: "The last writer wins",
    left: 0,
    steps: [...reads, ["one", "to", "writes: tea, milk"], ["two", "to", "writes: tea, sugar", "bad"]],
    result: ["In the cart: tea, sugar. The milk is lost.", "bad"]
  }
  const ours: Panel = {
    title: "effect-sessions",
    left: width + 20,
    steps: [
      ...reads,
      ["one", "to", "adds milk: saved", "good"],
      ["two", "to", "adds sugar: out of date", undefined],
      ["two", "to", "adds sugar again: saved", "good"]
    ],
    result: ["In the cart: tea, milk, sugar.", "good"]
  }
  const middle = width + 10
  return svg(
    2 * width + 20,
    336,
    "Two requests change one session at once. If the last writer wins, one change is lost; with effect-sessions, both are kept.",
    [drawPanel(others, colors), rule(middle, 16, middle, 320, colors.line), drawPanel(ours, colors)]
  )
}

/** Requests a second, from docs/benchmarks.md. */
const requests: ReadonlyArray<readonly [server: string, perSecond: number]> = [
  ["Effect, no session", 40_823],
  ["fastify, @fastify/session", 12_286],
  ["hono, hono-sessions", 11_304],
  ["Effect, HttpSession on MemStore", 10_296],
  ["koa, koa-session on a Map", 8_444],
  ["express, express-session, memorystore", 3_857]
]

const drawRequests = (colors: Colors): string => {
  const most = Math.max(...requests.map(([, perSecond]) => perSecond))
  const bars = requests.flatMap(([server, perSecond], index) => {
    const y = 44 + index * 34
    const length = Math.round((perSecond / most) * 480)
    const fill = server.includes("HttpSession") ? colors.good : colors.line
    return [
      write(server, { at: [280, y + 15], fill: colors.text, anchor: "end" }),
      `<rect x="292" y="${y}" width="${length}" height="22" rx="3" fill="${fill}"/>`,
      write(perSecond.toLocaleString("en"), { at: [300 + length, y + 15], fill: colors.quiet, anchor: "start" })
    ]
  })
  return svg(
    860,
    54 + requests.length * 34,
    `Requests a second: ${requests.map(([server, n]) => `${server} ${n}`).join("; ")}`,
    [write("Requests a second", { at: [292, 26], fill: colors.quiet, anchor: "start" }), ...bars]
  )
}

/** Each picture by the name of its file. */
export const pictures = (): Readonly<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(themes).flatMap(([theme, colors]) => [
      [`race-${theme}.svg`, drawRace(colors)],
      [`requests-${theme}.svg`, drawRequests(colors)]
    ])
  )

if (process.argv[1] === import.meta.filename) {
  for (const [file, text] of Object.entries(pictures())) writeFileSync(new URL(file, import.meta.url), text)
}
