import { assert, describe, it } from "@effect/vitest"
import { Option } from "effect"
import { assertEqual } from "../src/testing/assertions.ts"

/** The assertion of the published suites, which works with any test runner. */

const errorOf = (actual: unknown, expected: unknown): unknown => {
  try {
    assertEqual(actual, expected)
  } catch (error) {
    return error
  }
  return assert.fail("passed")
}

describe("assertEqual", () => {
  it("compares as Effect does", () => {
    assertEqual(Option.some("a"), Option.some("a"))
    assert.instanceOf(errorOf(Option.some("a"), Option.some("b")), Error)
  })

  it("says what was expected and what it is, also as a runner shows a difference", () => {
    const error = errorOf(1, "one")
    assert.strictEqual(String(error), 'Error: expected "one", but it is 1')
    assert.deepEqual({ ...Object(error) }, { actual: "1", expected: '"one"' })
  })

  it("shows a thousand characters of a value at most", () => {
    const textOf = (characters: number) => String(errorOf("a".repeat(characters), 1))
    assert.strictEqual(textOf(998), `Error: expected 1, but it is "${"a".repeat(998)}"`)
    assert.strictEqual(textOf(999), `Error: expected 1, but it is "${"a".repeat(999)}… (1001 characters)`)
  })
})
