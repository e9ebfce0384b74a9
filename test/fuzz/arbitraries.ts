/**
 * The input for the library: text that looks like valid input, and text that does not.
 */
import fc from "fast-check"

export const cookieName = "__Host-session"

export const token: fc.Arbitrary<string> = fc.string({
  minLength: 43,
  maxLength: 43,
  unit: fc.constantFrom(..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
})

const latin1 = fc.string({ unit: fc.integer({ min: 0x20, max: 0xff }).map((code) => String.fromCharCode(code)) })

const often = (part: string) => fc.integer({ min: 1, max: 3_000 }).map((times) => part.repeat(times))

const part = (known: string): fc.Arbitrary<string> =>
  fc.oneof(
    fc.constantFrom(cookieName, cookieName.slice(2), `${cookieName}=`, `;${cookieName}=`, `; ${cookieName}=${known}`),
    fc.constantFrom("=", ";", "; ", " ", "\t", "\xa0", '"', ",", "%", "%00", "=;", `"${known}"`, known, "__proto__="),
    token,
    latin1,
    fc.constantFrom(" ", ";", "=", cookieName, `${cookieName} `, `${cookieName}=`, "a=%;", '"').chain(often)
  )

/** A `Cookie` header of pieces that mean something to a parser, in any order. */
export const cookieHeader = (known: string): fc.Arbitrary<string> =>
  fc.array(part(known), { maxLength: 12 }).map((parts) => parts.join(""))

const otherHeaders = [
  "origin",
  "host",
  "sec-fetch-site",
  "sec-fetch-mode",
  "upgrade",
  "connection",
  "x-forwarded-proto",
  "forwarded",
  "content-type",
  "cache-control",
  "vary"
] as const

const otherValue = fc.oneof(
  latin1,
  fc.constantFrom("null", "none", "cross-site", "same-site", "same-origin", "websocket", "navigate", "https", "*"),
  fc.constantFrom("http://", "http://[", "https://example.com:99999", "http://localhost", "//", "a:b@c", "localhost:x"),
  fc.constantFrom(" ", ",", "a", "https ").chain(often)
)

const authorization = (known: string) =>
  fc.oneof(
    cookieHeader(known),
    fc.constantFrom(`Bearer ${known}`, `bearer    ${known}`, "Bearer", `Bearer ${known} `, `Bearer${known}`),
    fc.nat(20_000).map((blanks) => `Bearer${" ".repeat(blanks)}${known}`)
  )

/** Headers. Only the headers that carry the token contain it, because others may be logged. */
export const headers = (known: string): fc.Arbitrary<ReadonlyArray<readonly [string, string]>> =>
  fc.array(
    fc.oneof(
      fc.tuple(fc.constant("cookie"), cookieHeader(known)),
      fc.tuple(fc.constant("authorization"), authorization(known)),
      fc.tuple(fc.constantFrom(...otherHeaders), otherValue)
    ),
    { maxLength: 8 }
  )

/** The values of a JSON field, including numbers that are invalid for dates and arrays. */
export const json: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom(null, true, -1, 0, 1.5, 8.64e15, 8.64e15 + 1, Number.MAX_SAFE_INTEGER, -Number.MAX_SAFE_INTEGER),
  fc.constantFrom(1e300, "", "__proto__", [], {}, [[]]),
  fc.jsonValue()
)

const cut = (text: string) => fc.nat(text.length).map((end) => text.slice(0, end))

const flip = (text: string) =>
  fc
    .array(fc.tuple(fc.nat(Math.max(text.length - 1, 0)), fc.integer({ min: 0, max: 6 })), {
      minLength: 1,
      maxLength: 4
    })
    .map((flips) => {
      const codes = [...text].map((char) => char.charCodeAt(0))
      for (const [at, bit] of flips) codes[at] = (codes[at] ?? 0) ^ (1 << bit)
      return String.fromCharCode(...codes)
    })

const doubled = (text: string) => fc.nat(text.length).map((at) => text.slice(0, at) + text)

/** A JSON text of an object, with some fields put in the place of what was there. */
const withFields = (text: string) => {
  const fields: Record<string, unknown> = JSON.parse(text)
  const names = fc.constantFrom(
    ...Object.keys(fields),
    "successor",
    "held",
    "merge",
    "ended",
    "index",
    "members",
    "value"
  )
  return fc
    .array(fc.tuple(names, json), { minLength: 1, maxLength: 4 })
    .map((put) => JSON.stringify({ ...fields, ...Object.fromEntries(put) }))
}

/** A text that was damaged on its way. */
export const spoiltText = (text: string): fc.Arbitrary<string> => fc.oneof(cut(text), flip(text), doubled(text))

/** What a store might hold in the place of this text. */
export const spoilt = (text: string): fc.Arbitrary<string> =>
  fc.oneof(
    spoiltText(text),
    withFields(text),
    json.map((value) => JSON.stringify(value)),
    fc.string({ unit: "binary" }).filter((text) => text.isWellFormed()),
    fc.nat(12_000).map((depth) => `${text.slice(0, -1)},"value":${"[".repeat(depth)}${"]".repeat(depth)}}`)
  )

const durationInput = fc.oneof(
  fc.constantFrom(
    undefined,
    0,
    -1,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
    1e300,
    Number.MIN_VALUE,
    10n,
    -10n
  ),
  fc.constantFrom("1 minute", "0 millis", "-1 days", "", "soon", "1e400 days", {}, [], [0, 0], [1, 2, 3], null),
  fc.double(),
  fc.integer(),
  fc.record({ days: fc.double(), seconds: fc.double() }, { requiredKeys: [] }),
  fc.string()
)

export const classOptions = fc.record(
  {
    lifetime: durationInput,
    idleTimeout: durationInput,
    touchInterval: durationInput,
    recheckInterval: durationInput,
    undecodable: fc.constantFrom("renew", "fail"),
    maxSessions: fc.record({ user: fc.oneof(fc.double(), fc.integer(), fc.constantFrom(undefined, Number.NaN)) })
  },
  { requiredKeys: [] }
)

const anyText = fc.oneof(
  latin1,
  fc.string({ unit: "binary" }),
  fc.constantFrom("", "/", ";", "a;b", "\r\nSet-Cookie: a=b")
)

export const middlewareOptions = fc.record(
  {
    touch: fc.boolean(),
    carrier: fc.constantFrom("cookie", "bearer"),
    clearSiteData: fc.boolean(),
    crossOrigin: fc.oneof(
      fc.constant(false),
      fc.record({ trusted: fc.array(fc.oneof(anyText, fc.webUrl()), { maxLength: 3 }) }, { requiredKeys: [] })
    ),
    cookie: fc.record(
      {
        name: fc.oneof(anyText, fc.constantFrom(cookieName, "__Secure-a", "__host-a", "sid")),
        domain: fc.oneof(anyText, fc.domain()),
        path: fc.oneof(anyText, fc.constantFrom("/", "/a", "a")),
        httpOnly: fc.boolean(),
        secure: fc.boolean(),
        sameSite: fc.constantFrom("lax", "strict", "none"),
        partitioned: fc.boolean(),
        priority: fc.constantFrom("low", "medium", "high"),
        persist: fc.boolean()
      },
      { requiredKeys: [] }
    )
  },
  { requiredKeys: [] }
)
