/**
 * What the pages share: the frame around them, with the navigation, a message that is shown once, the panel "Under the
 * hood" and the links to the source. The forms work without JavaScript.
 */
import { Effect } from "effect"
import { HttpBody, HttpEffect, HttpServerRequest, HttpServerResponse } from "effect/http"
import type { SessionStore } from "effect-sessions"
import { type Html, html } from "./Html.ts"
import { underTheHood } from "./UnderTheHood.ts"
import { takeFlash, UserSession } from "./UserSession.ts"

const style = html`
  :root {
    color-scheme: light dark;
    --back: light-dark(#f4f6fa, #0f1218); --card: light-dark(#fff, #171b23); --line: light-dark(#dde2ea, #2b323d);
    --edge: light-dark(#818b99, #6b7686); --quiet: light-dark(#5a6472, #9aa5b4); --accent: light-dark(#2453c9, #8fb0ff);
    --on-accent: light-dark(#fff, #10131a); --note: light-dark(#e8eefc, #1d2740)
  }
  * { box-sizing: border-box }
  body { margin: 0; font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; background: var(--back) }
  h1, p, pre, dl, dd { margin: 0 }
  h1 { font-size: 1.75rem; line-height: 1.25; letter-spacing: -.01em }
  body > header { border-bottom: 1px solid var(--line); background: var(--card) }
  body > header > div, body > div { max-width: 70rem; margin: 0 auto; padding: .75rem 1rem }
  body > header > div { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; align-items: center; min-height: 4rem }
  .brand { color: inherit; font-weight: 600; text-decoration: none }
  .brand .quiet { font-weight: 400 }
  nav { display: flex; gap: 1.25rem }
  nav a { padding: .25rem 0; border: solid transparent; border-width: .125rem 0; color: var(--quiet); text-decoration: none }
  nav a:hover { color: inherit }
  nav [aria-current] { border-bottom-color: var(--accent); color: inherit }
  header form { margin-left: auto }
  header button { padding: .25rem .75rem }
  body > div { display: grid; gap: 2rem; grid-template-columns: minmax(0, 1fr); padding-block: 2rem }
  @media (min-width: 60rem) { body > div { grid-template-columns: minmax(0, 1fr) 26rem } }
  main { display: grid; gap: 1.25rem; grid-template-columns: minmax(0, 1fr); align-content: start }
  section, details { padding: 1.25rem; border: 1px solid var(--line); border-radius: .75rem; background: var(--card) }
  section, section form { display: grid; gap: 1rem; grid-template-columns: minmax(0, 1fr) }
  .row { display: flex; flex-wrap: wrap; gap: .75rem }
  [role=status] { padding: .75rem 1rem; border-left: .25rem solid var(--accent); border-radius: .375rem; background: var(--note) }
  input[type=text], button, .button { padding: .5rem .875rem; border: 1px solid var(--edge); border-radius: .5rem; font: inherit }
  input[type=text] { width: 100%; background: var(--back); color: inherit }
  button, .button { cursor: pointer; background: var(--card); color: inherit; text-decoration: none }
  button:hover, .button:hover { border-color: var(--accent) }
  .primary { border-color: var(--accent); background: var(--accent); color: var(--on-accent) }
  .primary:hover { filter: brightness(1.1) }
  a { color: var(--accent) }
  :focus-visible { outline: .1875rem solid var(--accent); outline-offset: .125rem }
  summary { cursor: pointer; font-size: 1rem; font-weight: 600 }
  dl { margin-top: 1rem }
  dt { color: var(--quiet) }
  dd + dt { margin-top: .875rem }
  pre, code { font: .8125rem/1.5 ui-monospace, monospace; white-space: pre-wrap }
  pre { word-break: break-all }
  .quiet { color: var(--quiet); font-size: .875rem }
  aside { font-size: .875rem }
  aside > p { padding: 1rem 1.25rem }`

const link = (path: string, name: string, current: string) =>
  path === current ? html`<a href="${path}" aria-current="page">${name}</a>` : html`<a href="${path}">${name}</a>`

const navigation = (current: string) => html`<nav aria-label="Pages">
${link("/account", "Counter", current)}
${link("/devices", "Your devices", current)}
</nav>
<form method="post" action="/log-out"><button>Log out</button></form>`

const shared = ["UserSession.ts", "Layout.ts", "Html.ts", "Live.ts", "UnderTheHood.ts", "Store.ts"]

const sourceOf = (file: string) => html`<a href="/source/${file}">${file}</a>`

interface Content {
  readonly title: string
  /** The file that makes the page. */
  readonly source: string
  readonly style: Html
  readonly main: Html
  /** The message of the page itself. Then the one in the session stays there, for the next page. */
  readonly message?: string
}

const frame = (
  content: Content,
  header: Html | undefined,
  flash: string | undefined,
  panel: Html
) => html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${content.title}</title>
<link rel="icon" href="data:,">
<style>${style}${content.style}
</style>
</head>
<body>
<header><div>
<a class="brand" href="/">effect-sessions <span class="quiet">example</span></a>
${header}
</div></header>
<div>
<main>
<h1>${content.title}</h1>
${flash === undefined ? undefined : html`<p role="status">${flash}</p>`}
${content.main}
</main>
<aside aria-label="How this page was made">
${panel}
<p class="quiet">The source of this page: ${sourceOf(content.source)}.
What all pages share: ${shared.map((file) => html`${sourceOf(file)} `)}</p>
</aside>
</div>
</body>
</html>
`

/**
 * Responds with a page. It is written at the last moment, when the session is committed and the cookie set, so the
 * panel can show both. No cache and no history keeps it.
 */
export const page = Effect.fnUntraced(function* (content: Content) {
  const request = yield* HttpServerRequest.HttpServerRequest
  const { name } = yield* UserSession.use((session) => session.get)
  const header = name === undefined ? undefined : navigation(request.url)
  const flash = content.message ?? (yield* takeFlash)
  const context = yield* Effect.context<HttpServerRequest.HttpServerRequest | SessionStore | UserSession>()

  const write = Effect.fnUntraced(function* (response: HttpServerResponse.HttpServerResponse) {
    const { markup } = frame(content, header, flash, yield* underTheHood(response))
    return HttpServerResponse.setBody(response, HttpBody.text(markup, "text/html"))
  })
  yield* HttpEffect.appendPreResponseHandler((_, response) =>
    // Not if the session could not be committed.
    response.status === 200 ? Effect.orDie(Effect.provideContext(write(response), context)) : Effect.succeed(response)
  )
  return HttpServerResponse.empty({ status: 200, headers: { "cache-control": "no-store" } })
})
