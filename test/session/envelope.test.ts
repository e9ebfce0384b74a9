import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { vi } from "vitest"
import { isUnchanged, makeEnvelope, makeId, makeTombstone, restamp, touch } from "../../src/internal/envelope.ts"
import type { Contents } from "../../src/internal/state.ts"

const { decode, encode } = makeEnvelope("test/Session", Schema.Json)

const contents: Contents<Schema.Json> = {
  value: "value",
  createdAt: 1,
  issuedAt: 2,
  usedAt: 3,
  deadline: 4,
  idleTimeout: undefined,
  rememberMe: false,
  memberOf: [],
  former: undefined
}

const encoded = (changes: Partial<Contents<Schema.Json>>) => Effect.runSync(encode({ ...contents, ...changes }))

const decoded = (text: string) => Effect.runSync(decode(text))

/** A stored session with other fields, as another program or a later version might have written it. */
const withFields = (fields: object) => JSON.stringify({ ...JSON.parse(encoded({})), ...fields })

describe("the text of a session", () => {
  it.each([
    {},
    { idleTimeout: null },
    { idleTimeout: 0.5 },
    { rememberMe: true },
    { memberOf: ["index:a", "index:b"] },
    { former: "a-former-key" },
    { value: { nested: [null, { usedAt: 1 }] } }
  ])("comes back as it was: %j", (changes) => {
    const text = encoded(changes)
    const found = decoded(text)
    assert.deepStrictEqual(found, {
      _tag: "Session",
      text,
      isPending: false,
      contents: { ...contents, ...changes }
    })
  })

  it.each([
    ["createdAt", { createdAt: 1.5 }],
    ["issuedAt", { issuedAt: "2" }],
    ["usedAt", { usedAt: 8.64e15 + 1 }],
    ["deadline", { deadline: null }],
    ["idleTimeout", { idleTimeout: 0 }],
    ["idleTimeout", { idleTimeout: -1 }],
    ["idleTimeout", { idleTimeout: "1" }],
    ["rememberMe", { rememberMe: 1 }],
    ["pending", { pending: 1 }],
    ["memberOf", { memberOf: "index:a" }],
    ["memberOf", { memberOf: ["index:a", 1] }],
    ["memberOf", { memberOf: { length: 0 } }],
    ["former", { former: 1 }]
  ])("does not decode if the field %s does not fit: %j", (field, fields) => {
    const error = Effect.runSync(Effect.flip(decode(withFields(fields))))
    assert.deepStrictEqual(error.cause, new Error(`The field ${field} does not fit`))
  })

  it.each([{ session: 1 }, { session: undefined }, { version: 2 }, { version: undefined }])(
    "does not decode if it is no session of this version: %j",
    (fields) => {
      const error = Effect.runSync(Effect.flip(decode(withFields(fields))))
      assert.deepStrictEqual(error.cause, new Error("The data is not a session of version 1"))
    }
  )

  it.each([{ session: "test/Other" }, { index: "user", session: 1 }])(
    "is not looked into if it is foreign: %j",
    (fields) => {
      assert.deepStrictEqual(decoded(withFields(fields)), { _tag: "Foreign" })
    }
  )

  it("is a tombstone if it names a successor, whatever its other fields", () => {
    const text = JSON.stringify({ ...JSON.parse(makeTombstone("test/Session", "next")), held: 1, merge: 2, ended: 3 })
    const expected = {
      _tag: "Tombstone" as const,
      text,
      successor: "next",
      isSealed: false,
      held: undefined,
      merge: undefined
    }
    assert.deepStrictEqual(decoded(text), expected)
    const sealed = JSON.stringify({ version: 1, session: "test/Session", successor: 1, ended: true })
    assert.deepStrictEqual(decoded(sealed), { ...expected, text: sealed, successor: undefined, isSealed: true })
  })
})

describe("two texts are the same session", () => {
  const text = encoded({})

  it("if they differ in the time of use, the former key and the write alone", () => {
    assert.isTrue(isUnchanged(text, text))
    assert.isTrue(isUnchanged(text, encoded({ usedAt: 33 })))
    assert.isTrue(isUnchanged(text, encoded({ usedAt: -3, former: "a-former-key" })))
    assert.isTrue(isUnchanged(text, touch(text, 5)))
    assert.isTrue(isUnchanged(text, restamp(text)))
  })

  it("and not if they differ in anything else, of the same length or another", () => {
    for (const changes of [
      { value: "valuE" },
      { value: "values" },
      { createdAt: 9 },
      { deadline: 10 },
      { rememberMe: true }
    ]) {
      assert.isFalse(isUnchanged(text, encoded(changes)))
      assert.isFalse(isUnchanged(encoded(changes), text))
    }
  })

  it("and not if a value ends like a session", () => {
    const tail = text.slice(text.lastIndexOf(',"usedAt":'))
    assert.isFalse(isUnchanged(encoded({ value: `a${tail}` }), encoded({ value: `b${tail}` })))
    // Other programs may order the fields in another way. Then every character counts.
    const [one, other] = [`{"write":"a","value":1${tail}}`, `{"write":"a","value":1${tail} }`]
    assert.isFalse(isUnchanged(one, other))
    assert.isFalse(isUnchanged("{}", "[]"))
    assert.isTrue(isUnchanged("{}", "{}"))
  })
})

describe("another write", () => {
  it("of a session has the same fields but the time of use, no former key, and another id", () => {
    const text = encoded({ former: "a-former-key" })
    const [{ write, former, ...before }, { write: next, ...after }] = [JSON.parse(text), JSON.parse(touch(text, 7))]
    assert.deepStrictEqual(after, { ...before, usedAt: 7 })
    assert.strictEqual(former, "a-former-key")
    assert.notStrictEqual(next, write)
  })

  it("at the same time of use is another text, and keeps that time", () => {
    const text = encoded({ usedAt: -12 })
    const again = restamp(text)
    assert.notStrictEqual(again, text)
    assert.strictEqual(JSON.parse(again).usedAt, -12)
  })

  it("of what does not end like a session is the same text", () => {
    for (const text of ["{}", "", `${encoded({})} `]) assert.strictEqual(restamp(text), text)
  })

  it("has an id of twelve characters that no other has, in this process or another", async () => {
    vi.resetModules()
    const another: { readonly makeId: () => string } = await import("../../src/internal/envelope.ts")
    const ids = Array.from({ length: 10_000 }, () => [makeId(), another.makeId()]).flat()
    assert.strictEqual(new Set(ids).size, ids.length)
    for (const id of ids) assert.match(id, /^\w{12}$/)
    // After the first seven characters comes a count, so the ids of one process always differ.
    assert.strictEqual(new Set(ids.map((id) => id.slice(0, 7))).size, 2)
  })
})
