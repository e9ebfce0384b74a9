/**
 * What the application looks like: pages of plain HTML, whose forms work without JavaScript. A script of a few lines tells a
 * page that is left open when it was logged out.
 */
import { Data, DateTime } from "effect"
import { HttpServerResponse } from "effect/http"

/** Markup, as opposed to text. */
class Html extends Data.Class<{ readonly markup: string }> {}

type Content = string | number | undefined | Html | ReadonlyArray<Html>

const escapes: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;"
}

const toMarkup = (content: Content): string => {
  if (content instanceof Html) return content.markup
  if (Array.isArray(content)) return content.map(toMarkup).join("")
  return String(content ?? "").replace(/[&<>"']/g, (character) => escapes[character] ?? character)
}

/** Makes markup from a template, and escapes all text that is put into it. */
const html = (template: TemplateStringsArray, ...contents: ReadonlyArray<Content>): Html =>
  new Html({ markup: String.raw({ raw: template }, ...contents.map(toMarkup)) })

const style = html`<style>
  :root {
    color-scheme: light dark;
    --back: light-dark(#f4f6fa, #0f1218); --card: light-dark(#fff, #171b23); --line: light-dark(#dde2ea, #2b323d);
    --quiet: light-dark(#5a6472, #9aa5b4); --accent: light-dark(#2453c9, #8fb0ff); --on-accent: light-dark(#fff, #10131a)
  }
  * { box-sizing: border-box }
  body { max-width: 58rem; margin: 0 auto; padding: 2rem 1rem; font: 1rem/1.5 system-ui, sans-serif; background: var(--back) }
  main { display: grid; gap: 1.25rem; grid-template-columns: minmax(0, 1fr) }
  h1, h2, p, pre { margin: 0 }
  h1 { font-size: 1.75rem; letter-spacing: -.01em }
  h2 { font-size: 1.125rem }
  section, details {
    display: grid; gap: 1rem; padding: 1.25rem; border: 1px solid var(--line); border-radius: .75rem; background: var(--card)
  }
  form { display: grid; gap: .75rem; justify-items: start }
  .row { display: flex; flex-wrap: wrap; gap: .75rem }
  .scroll { overflow-x: auto }
  [role=status], [role=alert] {
    padding: .75rem 1rem; border-left: .25rem solid var(--accent); border-radius: .375rem; background: light-dark(#e8eefc, #1d2740)
  }
  input[type=text], button { padding: .5rem .875rem; border: 1px solid var(--line); border-radius: .5rem; font: inherit }
  input[type=text] { width: 100%; max-width: 20rem; background: var(--back) }
  button { cursor: pointer; background: var(--card); color: inherit }
  button:hover { border-color: var(--accent) }
  .primary { border-color: var(--accent); background: var(--accent); color: var(--on-accent) }
  .count { font-size: 1.5rem; font-variant-numeric: tabular-nums }
  a { color: var(--accent) }
  :focus-visible { outline: .1875rem solid var(--accent); outline-offset: .125rem }
  table { width: 100%; border-collapse: collapse }
  th { color: var(--quiet); font-size: .875rem; font-weight: 500 }
  th, td { padding: .5rem .75rem .5rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
  td:first-child { min-width: 12rem; overflow-wrap: anywhere }
  td button { white-space: nowrap }
  summary { cursor: pointer; font-weight: 600 }
  dl { display: grid; gap: .25rem; margin: 0 }
  dt { color: var(--quiet); font-size: .875rem }
  dd { margin: 0 0 .75rem; min-width: 0 }
  pre, code { font: .875rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap }
  .quiet { color: var(--quiet); font-size: .875rem }
</style>`

/** What the session of this request is, as its cookie and the store have it. */
interface Stored {
  /** The start of the cookie's value, if the browser sent one that opens a session. */
  readonly token: string | undefined
  readonly id: string | undefined
  /** The text in the store. */
  readonly data: string | undefined
}

const indented = (json: string): string => JSON.stringify(JSON.parse(json), undefined, 2)

const underTheHood = ({ data, id, token }: Stored) => html`<details>
<summary>Under the hood</summary>
${
  token === undefined || id === undefined || data === undefined
    ? html`<p>You have no cookie, and the store has nothing of you: a visitor who only reads costs no memory.</p>`
    : html`<dl>
<dt>The cookie in this browser, which no script can read (HttpOnly, Secure, SameSite=Lax)</dt>
<dd><code>session=${token}…</code></dd>
<dt>The key in the store: the SHA-256 of the cookie's value, which opens nothing</dt>
<dd><code>${id}</code></dd>
<dt>What the store held when this page was asked for</dt>
<dd><pre>${indented(data)}</pre></dd>
</dl>`
}
<p class="quiet">The source of this page:
<a href="/source/Routes.ts">what it does</a>,
<a href="/source/Pages.ts">what it looks like</a>,
<a href="/source/Store.ts">where sessions are kept</a></p>
</details>`

const page = (title: string, flash: string | undefined, main: Html): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.html(
    html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<link rel="icon" href="data:,">
${style}
</head>
<body>
<main>
<h1>${title}</h1>
${flash === undefined ? flash : html`<p role="status">${flash}</p>`}
${main}
</main>
</body>
</html>
`.markup
  )

export const logIn = ({ flash, stored }: { readonly flash: string | undefined; readonly stored: Stored }) =>
  page(
    "Log in",
    flash,
    html`<section>
<p>This is an example without passwords: any name will do.</p>
<form method="post" action="/log-in">
<label for="name">Name</label>
<input type="text" id="name" name="name" required maxlength="40" autocomplete="username" autofocus>
<label><input type="checkbox" name="remember"> Remember me when the browser closes</label>
<button class="primary">Log in</button>
</form>
</section>
${underTheHood(stored)}`
  )

// Needs no more than this: a page without JavaScript notices at the next click.
const watch = html`<script>
  const says = {
    destroyed: "You were logged out on another page or device.",
    expired: "You were logged out, because nothing happened for a while.",
    renewed: "You have logged in again on another page."
  }
  const events = new EventSource("/ended")
  events.addEventListener("ended", ({ data }) => {
    events.close()
    const text = document.createElement("p")
    text.setAttribute("role", "alert")
    text.append(says[data])
    const link = document.createElement("a")
    link.setAttribute("href", "/")
    link.append("Go on")
    document.querySelector("main").replaceChildren(text, link)
  })
</script>`

const time = (instant: DateTime.Utc): string =>
  DateTime.formatLocal(instant, { locale: "en", dateStyle: "medium", timeStyle: "short" })

interface Device {
  readonly id: string
  readonly isHere: boolean
  readonly user: { readonly count: number; readonly device?: string }
  readonly createdAt: DateTime.Utc
  readonly usedAt: DateTime.Utc
}

const row = ({ createdAt, id, isHere, usedAt, user: { count, device } }: Device) => html`<tr>
<td>${device}${isHere ? html` <strong>(this one)</strong>` : undefined}</td>
<td>${count}</td>
<td>${time(createdAt)}</td>
<td>${time(usedAt)}</td>
<td><form method="post" action="/log-out-device"><button name="id" value="${id}">Log out this device</button></form></td>
</tr>
`

export const account = ({
  name,
  count,
  flash,
  devices,
  stored
}: {
  readonly name: string
  readonly count: number
  readonly flash: string | undefined
  readonly devices: ReadonlyArray<Device>
  readonly stored: Stored
}) =>
  page(
    `Hello, ${name}`,
    flash,
    html`<section aria-labelledby="counter">
<h2 id="counter">Counter</h2>
<p>In this session you have counted to <strong class="count">${count}</strong>.</p>
<form method="post" action="/count"><button class="primary">Count</button></form>
</section>
<section aria-labelledby="devices">
<h2 id="devices">Your devices</h2>
<div class="scroll"><table>
<thead><tr>
<th scope="col">Device</th><th scope="col">Counter</th><th scope="col">Logged in</th><th scope="col">Last used</th>
<th scope="col"></th>
</tr></thead>
<tbody>
${devices.map(row)}</tbody>
</table></div>
<p class="quiet">At most five at a time: with a sixth, the oldest is logged out.</p>
<div class="row">
<form method="post" action="/log-out"><button>Log out</button></form>
<form method="post" action="/log-out-others"><button>Log out all others</button></form>
<form method="post" action="/log-out-everywhere"><button>Log out everywhere</button></form>
</div>
</section>
${underTheHood(stored)}
${watch}`
  )
