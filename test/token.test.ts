import { createHash } from "node:crypto"
import { assert, describe, it } from "@effect/vitest"
import * as Token from "../src/internal/token.ts"
import { bundle, runIn } from "./bundle.ts"

/** FIPS 180-2, appendix B, and the empty text. */
const vectors: ReadonlyArray<readonly [text: string, hash: string]> = (
  [
    ["", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
    ["abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"],
    [
      "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    ]
  ] as const
).map(([text, hex]) => [text, Buffer.from(hex, "hex").toString("base64url")])

/** Tokens, and what else a client may send in place of one: any length, any characters. */
const texts: ReadonlyArray<string> = [
  ...Array.from({ length: 500 }, Token.makeToken),
  ...Array.from({ length: 200 }, (_, length) => "x".repeat(length)),
  "\0",
  "\u00e9\u{1f36a}",
  "a lone \ud800 surrogate"
]

const hashOfNode = (text: string): string => createHash("sha256").update(text).digest("base64url")

const module = 'export * from "./internal/token.ts"'

const crypto = { getRandomValues: (bytes: Uint8Array) => globalThis.crypto.getRandomValues(bytes) }

describe("makeToken", () => {
  it("makes 32 bytes in base64url", () => {
    for (let i = 0; i < 100; i++) {
      const token = Token.makeToken()
      assert.strictEqual(Buffer.from(token, "base64url").toString("base64url"), token)
      assert.strictEqual(Buffer.from(token, "base64url").length, 32)
    }
  })

  it("encodes the random bytes, each once, from the first to the last, and keeps none", async () => {
    const script = await bundle(module, "neutral")
    const drawn: Array<Uint8Array> = []
    const kept = new Set<Uint8Array>()
    const getRandomValues = (bytes: Uint8Array) => {
      crypto.getRandomValues(bytes)
      drawn.push(Uint8Array.from(bytes))
      kept.add(bytes)
      return bytes
    }
    const { makeToken } = runIn<typeof Token>(script, { TextEncoder, crypto: { getRandomValues } })
    // A number of tokens for which no drawn byte is left over.
    const tokens = Array.from({ length: 128 }, makeToken)
    const bytes = Buffer.concat(drawn)
    assert.deepStrictEqual(
      tokens,
      Array.from({ length: bytes.length / 32 }, (_, i) => bytes.subarray(i * 32, i * 32 + 32).toString("base64url"))
    )
    for (const left of kept) assert.isTrue(left.every((byte) => byte === 0))
  })

  it("never makes one twice", () => {
    assert.strictEqual(new Set(Array.from({ length: 10_000 }, Token.makeToken)).size, 10_000)
  })

  it("makes none of bytes that it could not draw", async () => {
    const script = await bundle(module, "neutral")
    let isFailing = true
    const getRandomValues = (bytes: Uint8Array) => {
      if (isFailing) throw new Error("no entropy")
      return crypto.getRandomValues(bytes)
    }
    const { makeToken } = runIn<typeof Token>(script, { TextEncoder, crypto: { getRandomValues } })
    for (let i = 0; i < 2; i++) assert.throws(makeToken, "no entropy")
    isFailing = false
    assert.notStrictEqual(makeToken(), "A".repeat(43))
  })
})

describe("isToken", () => {
  it("takes 43 characters of base64url", () => {
    for (const text of [...Array.from({ length: 100 }, Token.makeToken), `${"-_".repeat(21)}A`]) {
      assert.isTrue(Token.isToken(text), text)
    }
  })

  it("takes nothing else", () => {
    const token = Token.makeToken().slice(1)
    for (const text of [
      "",
      token,
      `${token}aa`,
      ...["=", "+", "/", " ", "\n", "\0", "\u00e9", "%"].map((c) => token + c)
    ]) {
      assert.isFalse(Token.isToken(text), JSON.stringify(text))
    }
    assert.isFalse(Token.isToken(`a${token}\n`))
  })
})

describe("hashToken", () => {
  it("is the SHA-256 in base64url", () => {
    for (const [text, hash] of vectors) assert.strictEqual(Token.hashToken(text), hash)
    for (const text of texts) assert.strictEqual(Token.hashToken(text), hashOfNode(text), JSON.stringify(text))
  })
})

describe.each(["browser", "neutral"] as const)("in a bundle for the platform %s", (platform) => {
  const places: ReadonlyArray<readonly [place: string, globals: object]> = [
    ["without Node", {}],
    ["with a process that has no modules", { process: {} }],
    ["with a process that has none by that name", { process: { getBuiltinModule: () => undefined } }],
    ["with a node:crypto that lacks the function", { process: { getBuiltinModule: () => ({}) } }]
  ]

  it.each(places)("tokens have the same hash %s", async (_, globals) => {
    const script = await bundle(module, platform)
    const { hashToken } = runIn<typeof Token>(script, { TextEncoder, crypto, ...globals })
    for (const [text, hash] of vectors) assert.strictEqual(hashToken(text), hash)
    for (const text of texts) assert.strictEqual(hashToken(text), hashOfNode(text), JSON.stringify(text))
  })

  it("nothing is drawn until a token is made", async () => {
    const script = await bundle(module, platform)
    const draws: Array<number> = []
    const getRandomValues = (bytes: Uint8Array) => {
      draws.push(bytes.length)
      return crypto.getRandomValues(bytes)
    }
    const { hashToken, isToken, makeToken } = runIn<typeof Token>(script, { TextEncoder, crypto: { getRandomValues } })
    assert.isFalse(isToken(hashToken("abc").slice(1)))
    assert.deepStrictEqual(draws, [])
    assert.isTrue(isToken(makeToken()))
    assert.strictEqual(draws.length, 1)
  })
})
