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
  :root { color-scheme: light dark; --line: light-dark(#d5d9e0, #3a404a); --accent: light-dark(#2453c9, #8fb0ff) }
  * { box-sizing: border-box }
  body { max-width: 40rem; margin: 0 auto; padding: 2rem 1rem; font: 1rem/1.5 system-ui, sans-serif }
  main { display: grid; gap: 1.5rem }
  h1, h2, p { margin: 0 }
  section { display: grid; gap: 1rem; padding: 1.25rem; border: 1px solid var(--line); border-radius: .5rem }
  form { display: grid; gap: .75rem; justify-items: start }
  .row { display: flex; flex-wrap: wrap; gap: .75rem }
  [role=status], [role=alert] { padding: .75rem 1rem; border-left: .25rem solid var(--accent); background: light-dark(#eef3ff, #1d2740) }
  input[type=text], button { padding: .5rem .75rem; border: 1px solid var(--line); border-radius: .375rem; font: inherit }
  input[type=text] { width: 100%; max-width: 20rem }
  button { cursor: pointer }
  .primary { border-color: var(--accent); background: var(--accent); color: light-dark(#fff, #10131a) }
  :focus-visible { outline: .1875rem solid var(--accent); outline-offset: .125rem }
  table { width: 100%; border-collapse: collapse }
  th, td { padding: .375rem .5rem .375rem 0; border-bottom: 1px solid var(--line); text-align: left }
</style>`

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

export const logIn = ({ flash }: { readonly flash: string | undefined }) =>
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
</section>`
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
  devices
}: {
  readonly name: string
  readonly count: number
  readonly flash: string | undefined
  readonly devices: ReadonlyArray<Device>
}) =>
  page(
    `Hello, ${name}`,
    flash,
    html`<section aria-labelledby="counter">
<h2 id="counter">Counter</h2>
<p>In this session you have counted to <strong>${count}</strong>.</p>
<form method="post" action="/count"><button class="primary">Count</button></form>
</section>
<section aria-labelledby="devices">
<h2 id="devices">Your devices</h2>
<table>
<thead><tr>
<th scope="col">Device</th><th scope="col">Counter</th><th scope="col">Logged in</th><th scope="col">Last used</th>
<th scope="col"></th>
</tr></thead>
<tbody>
${devices.map(row)}</tbody>
</table>
<p>At most five at a time: with a sixth, the oldest is logged out.</p>
<div class="row">
<form method="post" action="/log-out"><button>Log out</button></form>
<form method="post" action="/log-out-others"><button>Log out all others</button></form>
<form method="post" action="/log-out-everywhere"><button>Log out everywhere</button></form>
</div>
</section>
${watch}`
  )
