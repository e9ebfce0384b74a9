/** Tests the checker of histories in `npm run faults` on histories with a known answer. */
import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { check, type Input, type RegisterOperation, step, type Value } from "./faults/linearizable.ts"

const values = ["a", "b", "c"]
const anyValue = fc.constantFrom(...values)

const anyInput: fc.Arbitrary<Input> = fc.oneof(
  fc.constant<Input>({ name: "find" }),
  fc.record({ name: fc.constant("create" as const), data: anyValue }),
  fc.record({ name: fc.constant("commit" as const), data: anyValue }),
  fc.record({ name: fc.constant("replace" as const), expected: anyValue, data: anyValue }),
  fc.constant<Input>({ name: "delete" })
)

/** An operation that happened at its place in the order; how long before it was called, and after it answered; if it did. */
const happened = fc.record({
  input: anyInput,
  before: fc.nat(5),
  after: fc.nat(5),
  fate: fc.constantFrom("answered", "answered", "answered", "unanswered", "never")
})

/** What a register does, one operation after the other, as clients see it that call early and hear late. */
const historyOf = (order: ReadonlyArray<typeof happened extends fc.Arbitrary<infer A> ? A : never>) => {
  let state: Value = null
  return order.map(({ after, before, fate, input }, place): RegisterOperation => {
    const operation = { client: `${place}`, on: "token", input, called: place - before }
    if (fate === "never") return operation
    const [output, next] = step(state, input)
    state = next
    return fate === "unanswered" ? operation : { ...operation, answer: { at: place + after, output } }
  })
}

const anyHistory = fc.array(happened, { maxLength: 60 }).map(historyOf)

/** Operations after all others, one after the other, on separate values, and without deletions in between. */
const followedBy = (
  history: ReadonlyArray<RegisterOperation>,
  last: ReadonlyArray<readonly [input: Input, output: Value | boolean]>
) => [
  ...history.filter(({ answer, input }) => answer !== undefined || input.name !== "delete"),
  ...last.map(([input, output], place): RegisterOperation => {
    const at = 1_000 + 2 * place
    return { client: "last", on: "token", input, called: at, answer: { at: at + 1, output } }
  })
]

const find: Input = { name: "find" }
const commit = (data: string): Input => ({ name: "commit", data })
const replace = (expected: string, data: string): Input => ({ name: "replace", expected, data })

const violations: Readonly<Record<string, ReadonlyArray<readonly [Input, Value | boolean]>>> = {
  "a lost update": [
    [commit("x"), true],
    [replace("x", "y"), true],
    [replace("x", "z"), true]
  ],
  "a stale read": [
    [commit("x"), true],
    [replace("x", "y"), true],
    [find, "x"]
  ],
  "a value that comes back after its deletion": [
    [commit("x"), true],
    [{ name: "delete" }, true],
    [find, "x"]
  ],
  "a session that was created twice": [
    [{ name: "delete" }, true],
    [commit("x"), true],
    [{ name: "create", data: "y" }, true]
  ],
  "a write that was confirmed and not done": [
    [commit("x"), true],
    [find, null]
  ],
  "a value that nobody wrote": [[find, "x"]]
}

/** Tries every order, and every choice of the operations without an answer: slow, and too simple to be wrong. */
const tryAll = (left: ReadonlyArray<RegisterOperation>, state: Value): boolean => {
  const until = Math.min(...left.map(({ answer }) => answer?.at ?? Number.POSITIVE_INFINITY))
  return (
    left.every(({ answer }) => answer === undefined) ||
    left.some((operation) => {
      if (operation.called > until) return false
      const [output, next] = step(state, operation.input)
      if (operation.answer !== undefined && operation.answer.output !== output) return false
      return tryAll(
        left.filter((other) => other !== operation),
        next
      )
    })
  )
}

const anyOperation: fc.Arbitrary<RegisterOperation> = fc
  .record({
    input: anyInput,
    called: fc.nat(8),
    takes: fc.option(fc.nat(8), { nil: undefined }),
    found: fc.constantFrom(...values, null),
    done: fc.boolean()
  })
  .map(({ called, done, found, input, takes }) => ({
    client: "client",
    on: "token",
    input,
    called,
    answer: takes === undefined ? undefined : { at: called + takes, output: input.name === "find" ? found : done }
  }))

describe("the checker of histories", () => {
  const parameters = { seed: 1, numRuns: 500 }

  it("finds an order of whatever a register has done", () => {
    fc.assert(
      fc.property(anyHistory, (history) => check(history).isLinearizable === true),
      parameters
    )
  })

  for (const [name, last] of Object.entries(violations)) {
    it(`finds ${name}`, () => {
      fc.assert(
        fc.property(anyHistory, (history) => check(followedBy(history, last)).isLinearizable === false),
        parameters
      )
    })
  }

  it("says of any short history what a search of all orders says", () => {
    const counts = { yes: 0, no: 0 }
    fc.assert(
      fc.property(fc.array(anyOperation, { maxLength: 6 }), (history) => {
        const { isLinearizable } = check(history)
        assert.strictEqual(isLinearizable, tryAll(history, null))
        counts[isLinearizable ? "yes" : "no"]++
      }),
      { seed: 1, numRuns: 5_000 }
    )
    assert.isAbove(counts.yes, 500)
    assert.isAbove(counts.no, 500)
  })

  it("says where it was stuck", () => {
    const { stuck } = check(followedBy([], violations["a stale read"] ?? []))
    assert.strictEqual(stuck.state, "y")
    assert.deepStrictEqual(
      stuck.operations.map(({ input }) => input),
      [find]
    )
  })

  it("gives up if it takes too long, and says so", () => {
    assert.isUndefined(check(followedBy([], violations["a stale read"] ?? []), 1).isLinearizable)
  })
})
