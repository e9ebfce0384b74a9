/**
 * What the application looks like: pages of plain HTML, whose forms work without JavaScript.
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
  [role=status] { padding: .75rem 1rem; border-left: .25rem solid var(--accent); background: light-dark(#eef3ff, #1d2740) }
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

export const account = ({
  name,
  count,
  flash,
  sessions
}: {
  readonly name: string
  readonly count: number
  readonly flash: string | undefined
  readonly sessions: ReadonlyArray<{
    readonly id: string
    readonly isHere: boolean
    readonly count: number
    readonly deadline: DateTime.Utc
  }>
}) =>
  page(
    `Hello, ${name}`,
    flash,
    html`<section aria-labelledby="counter">
<h2 id="counter">Counter</h2>
<p>In this session you have counted to <strong>${count}</strong>.</p>
<form method="post" action="/count"><button class="primary">Count</button></form>
</section>
<section aria-labelledby="sessions">
<h2 id="sessions">Your sessions</h2>
<table>
<thead><tr><th scope="col">Session</th><th scope="col">Counter</th><th scope="col">Ends at the latest</th></tr></thead>
<tbody>
${sessions.map(
  ({ id, isHere, count, deadline }) => html`<tr>
<td><code>${id.slice(0, 8)}</code>${isHere ? " (this one)" : undefined}</td>
<td>${count}</td>
<td>${DateTime.formatLocal(deadline, { locale: "en", dateStyle: "medium", timeStyle: "short" })}</td>
</tr>
`
)}</tbody>
</table>
<div class="row">
<form method="post" action="/log-out"><button>Log out</button></form>
<form method="post" action="/log-out-everywhere"><button>Log out everywhere</button></form>
</div>
</section>`
  )
