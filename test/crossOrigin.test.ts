import { assert, describe, it } from "@effect/vitest"
import { HttpServerRequest } from "effect/http"
import { make } from "../src/internal/crossOrigin.ts"

/** What decides whether a page of another origin made a request. `httpServer.test.ts` has it over real sockets. */

const post = (headers: Record<string, string>, originalUrl: string): HttpServerRequest.HttpServerRequest =>
  Object.create(HttpServerRequest.fromWeb(new Request("http://app.example", { method: "POST", headers })), {
    originalUrl: { value: originalUrl }
  })

const origin = "https://evil.example"

describe("the check of the origin", () => {
  it("takes the host of a request that has no such header from the beginning of its URL, and from nowhere else", () => {
    const check = make({})
    assert.isUndefined(check(post({ origin }, "https://evil.example/path")))
    for (const url of [`/?from=${origin}`, "http://app.example/?from=https://evil.example"]) {
      assert.isDefined(check(post({ origin }, url)))
    }
    assert.strictEqual(check(post({ origin }, "/")), 'Origin is "https://evil.example", and the host ""')
  })

  it("asks nothing of the application about a request that needs no exception", () => {
    const check = make({ exempt: () => assert.fail("asked") })
    assert.isUndefined(check(post({ origin, "sec-fetch-site": "same-origin" }, "/")))
  })
})
