/**
 * The largest that may come in, one of each kind: how long it takes, and what comes of it.
 */
import { Effect, Exit, Schema } from "effect"
import { makeEnvelope } from "../../src/internal/envelope.ts"
import { isIn, tokensOf } from "../../src/internal/sessionCookie.ts"
import { hashToken, isToken } from "../../src/internal/token.ts"
import { cookieName } from "./arbitraries.ts"

interface Node {
  readonly next: Node | null
}

const Node: Schema.Codec<Node> = Schema.Struct({ next: Schema.NullOr(Schema.suspend(() => Node)) })

const strings = makeEnvelope("fuzz/Large", Schema.Array(Schema.String))
const nodes = makeEnvelope("fuzz/Large", Node)

const times = '"createdAt":0,"issuedAt":0,"deadline":1'
const dataOf = (value: string) => `{"version":1,"session":"fuzz/Large",${times},"value":${value},"usedAt":0}`

const outcomeOf = <A, E>(effect: () => Effect.Effect<A, E>): string =>
  Exit.match(Effect.runSyncExit(Effect.suspend(effect)), {
    onSuccess: () => "decodes",
    onFailure: ({ reasons }) => (reasons.every(({ _tag }) => _tag === "Fail") ? "does not decode" : "dies")
  })

const tenMegabytes = 10_000_000
const maxHeader = 16_384

const repeated = (part: string, length: number) => part.repeat(Math.ceil(length / part.length))

const inputs: Readonly<Record<string, () => string>> = (() => {
  const long = dataOf(`["${"x".repeat(tenMegabytes)}"]`)
  const many = dataOf(`[${'"0123456789abcdef",'.repeat(tenMegabytes / 19)}"x"]`)
  const deep = dataOf(`${'{"next":'.repeat(10_000)}null${"}".repeat(10_000)}`)
  const headers = ["=", ";", " ", '"', cookieName, `${cookieName}=`, `${cookieName} ;`, `${cookieName}="`, "a=%;"]
  const ofHeaders = headers.map((part) => {
    const header = repeated(part, maxHeader)
    const read = () => `${tokensOf(header, cookieName).length} tokens, ${isIn(header, cookieName)}`
    return [`16 kB of ${JSON.stringify(part)} as a Cookie header`, read] as const
  })
  const text = "a".repeat(tenMegabytes)
  return {
    "10 MB of one string": () => outcomeOf(() => strings.decode(long)),
    "10 MB of half a million strings": () => outcomeOf(() => strings.decode(many)),
    "10 MB that end too early": () => outcomeOf(() => strings.decode(many.slice(0, -20))),
    "10,000 levels": () => outcomeOf(() => nodes.decode(deep)),
    "10 MB as a token": () => String(isToken(text)),
    "10 MB of an indexed text": () => `a key of ${hashToken(text).length}`,
    ...Object.fromEntries(ofHeaders)
  }
})()

export const large = async () =>
  Object.entries(inputs).map(([name, run]) => {
    let millis = Number.POSITIVE_INFINITY
    let outcome = ""
    for (let i = 0; i < 3; i++) {
      const began = performance.now()
      outcome = run()
      millis = Math.min(millis, performance.now() - began)
    }
    return { name, millis, outcome }
  })
