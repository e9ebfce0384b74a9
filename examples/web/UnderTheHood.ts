/**
 * The panel on each page: what its response does to the cookie, and what the store holds. Of a token, only the start is
 * shown.
 */
import { Effect, Option, Stream } from "effect"
import { Cookies, HttpServerRequest, type HttpServerResponse } from "effect/http"
import { SessionStore } from "effect-sessions"
import { html } from "./Html.ts"
import { UserSession } from "./UserSession.ts"

const cookieIn = Effect.map(HttpServerRequest.HttpServerRequest, ({ cookies: { session } }) =>
  session === undefined ? undefined : `session=${session.slice(0, 6)}…`
)

const setCookieIn = ({ cookies }: HttpServerResponse.HttpServerResponse): string | undefined =>
  Cookies.toSetCookieHeaders(cookies)
    .find((header) => header.startsWith("session="))
    ?.replace(/^(session=[\w-]{6})[\w-]*/, "$1…")

const inStore = Effect.gen(function* () {
  const session = yield* UserSession
  const id = yield* session.id
  const held = Option.isSome(id) ? yield* SessionStore.use((store) => store.find(id.value)) : Option.none()
  if (Option.isNone(id) || Option.isNone(held)) {
    return html`<dt>In the store</dt>
<dd>Nothing of you: a visitor who only reads costs no memory.</dd>`
  }
  const { name } = yield* session.get
  const count = name === undefined ? 0 : yield* Stream.runCount(UserSession.sessionsOf("user", name))
  return html`<dt>The key in the store: the SHA-256 of the cookie’s value. It opens nothing.</dt>
<dd><code>${id.value}</code></dd>
<dt>What the store holds under that key</dt>
<dd><pre>${JSON.stringify(JSON.parse(held.value), undefined, 2)}</pre></dd>
<dt>Sessions of this user, found by the index</dt>
<dd>${count}</dd>`
})

/** Describes a response whose session is committed and whose cookie is set. */
export const underTheHood = Effect.fnUntraced(function* (response: HttpServerResponse.HttpServerResponse) {
  return html`<details open>
<summary>Under the hood</summary>
<dl>
<dt>The cookie that your browser sent. No script can read it, and no form of another site carries it.</dt>
<dd><code>${(yield* cookieIn) ?? "none"}</code></dd>
<dt>Set-Cookie in this response. It is there only if the browser needs it.</dt>
<dd><code>${setCookieIn(response) ?? "none"}</code></dd>
${yield* inStore}
</dl>
</details>`
})
