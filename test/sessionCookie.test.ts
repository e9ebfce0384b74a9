import { assert, describe, it } from "@effect/vitest"
import { HttpServerResponse } from "effect/http"
import * as SessionCookie from "../src/internal/sessionCookie.ts"

// Always the same, since the tests are named by them.
const [a, b, c, d, e] = ["a".repeat(43), "b".repeat(43), "c".repeat(43), "d".repeat(43), "e".repeat(43)]

const tokensOf = (header: string | undefined) => SessionCookie.tokensOf(header, "session")

describe("the tokens of a Cookie header", () => {
  it.each<[header: string | undefined, tokens: ReadonlyArray<string>]>([
    [undefined, []],
    ["", []],
    [`session=${a}`, [a]],
    [`session=${a}; other=1; session=${b}`, [a, b]],
    [`session=${a};session=${a}`, [a]],
    [`\tsession \t= \t${a} \t; x=1`, [a]],
    [`session="${a}"`, [a]],
    [`session="${a}`, []],
    [`session=${a}"`, []],
    [`session=""${a}`, []],
    [`session=x${a}x`, []],
    [`session="${a}x`, []],
    [`session=x${a}"`, []],
    [`session=; session= \t; session=${a}`, [a]],
    [`session; session=${a}`, [a]],
    [`sessions=${a}; xsession=${b}; x session=${c}`, []],
    [`session x=${a}`, []],
    [`session;=${a}`, []],
    [`x=session=${a}`, []],
    [`x=session; session=${a}`, [a]],
    [`\xA0session=${a}`, []],
    [`session=\xA0${a}`, []],
    [`session=${a}x; session=${b}`, [b]],
    [[a, a, b, c, d, e].map((token) => `session=${token}`).join("; "), [a, b, c, d]]
  ])("%j", (header, tokens) => {
    assert.deepStrictEqual(tokensOf(header), tokens)
  })

  it("are looked at no further than the fourth", () => {
    const four = [a, b, c, d].map((token) => `session=${token}`).join("; ")
    assert.deepStrictEqual(tokensOf(`${four}; session=${e}`), [a, b, c, d])
  })
})

describe("a cookie of a name is there", () => {
  it.each<[header: string | undefined, isThere: boolean]>([
    [undefined, false],
    ["", false],
    ["session=", true],
    ["session=no token", true],
    ["a=1; session=1; session=2", true],
    ["session", false],
    ["sessions=1", false],
    ["x=session=1", false]
  ])("in %j: %s", (header, isThere) => {
    assert.strictEqual(SessionCookie.isIn(header, "session"), isThere)
  })
})

describe.each([
  ["Cookie", "cookie", SessionCookie.vary],
  ["Authorization", "authorization", SessionCookie.varyByAuthorization]
] as const)("a response that is told to vary by %s", (added, name, vary) => {
  it.each([
    [undefined, added],
    ["accept", `accept, ${added}`],
    [`Accept, ${name}`, `Accept, ${name}`],
    ["*", "*"],
    [`x-${name}`, `x-${name}, ${added}`],
    [`${name}-x`, `${name}-x, ${added}`]
  ])("and varied by %s, then varies by %s", (before, after) => {
    const response = HttpServerResponse.empty(before === undefined ? {} : { headers: { vary: before } })
    assert.nestedPropertyVal(vary(response), "headers.vary", after)
  })
})
