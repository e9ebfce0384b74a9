/** Tests the checker of `npm run faults` on histories with a known answer. */
import { assert, describe, it } from "@effect/vitest"
import { checkConfirmed, type SessionInput, type SessionOperation, type SessionOutput } from "./faults/confirmed.ts"

/** Operations one after the other. One without an output has no answer. */
const historyOf = (operations: ReadonlyArray<readonly [input: SessionInput, output?: SessionOutput]>) =>
  operations.map(
    ([input, output], place): SessionOperation => ({
      client: "client",
      on: "session",
      input,
      called: 2 * place,
      answer: output === undefined ? undefined : { at: 2 * place + 1, output }
    })
  )

const add = (mark: number): SessionInput => ({ name: "update", mark, mostTries: 1 })
const saved = { saved: true, tries: 1 }
const look: SessionInput = { name: "look" }
const logOut: SessionInput = { name: "log out" }

const firstLines = (operations: ReadonlyArray<SessionOperation>) =>
  checkConfirmed(operations).violations.map((violation) => violation.split(":")[0])

describe("what was confirmed", () => {
  it("holds if each saved change is there once, and one without an answer once or not at all", () => {
    for (const marks of [
      [1, 2],
      [1, 2, 3]
    ]) {
      assert.deepStrictEqual(firstLines(historyOf([[add(1), saved], [add(2), saved], [add(3)], [look, { marks }]])), [])
    }
  })

  it("does not if a saved change is missing", () => {
    const history = historyOf([
      [add(1), saved],
      [look, { marks: [] }]
    ])
    assert.deepStrictEqual(firstLines(history), ["A confirmed change was lost"])
  })

  it("does not if a change was made more often than it was tried", () => {
    const history = historyOf([
      [add(1), saved],
      [look, { marks: [1, 1] }]
    ])
    assert.deepStrictEqual(firstLines(history), ["A change was made 2 times"])
  })

  it("counts a change that was made twice in two tries", () => {
    const { twice, violations } = checkConfirmed(
      historyOf([
        [add(1), { saved: true, tries: 2 }],
        [look, { marks: [1, 1] }]
      ])
    )
    assert.deepStrictEqual({ twice, violations }, { twice: 1, violations: [] })
  })

  it("counts one that was made twice because another one, which it was saved with, failed", () => {
    const { twice, violations } = checkConfirmed(historyOf([[add(2)], [add(1), saved], [look, { marks: [1, 1, 2] }]]))
    assert.deepStrictEqual({ twice, violations }, { twice: 1, violations: [] })
  })

  it("does not if a session is there, or saves, after a log-out was confirmed", () => {
    const seen = historyOf([
      [logOut, "logged out"],
      [look, { marks: [] }]
    ])
    const changed = historyOf([
      [logOut, "logged out"],
      [add(1), saved]
    ])
    for (const history of [seen, changed]) assert.deepStrictEqual(firstLines(history), ["A log-out came undone"])
  })

  it("allows both if the log-out had no answer", () => {
    assert.deepStrictEqual(firstLines(historyOf([[logOut], [look, { marks: [] }]])), [])
    assert.deepStrictEqual(firstLines(historyOf([[logOut], [look, { marks: null }]])), [])
  })

  it("does not if a session has ended that nobody logged out", () => {
    assert.deepStrictEqual(firstLines(historyOf([[look, { marks: null }]])), ["A session was lost"])
  })
})
