/**
 * The page at `/devices`: where a user is logged in. An open page shows changes immediately.
 */
import { DateTime, Effect, Layer, Option, Schema, Stream } from "effect"
import { HttpRouter, HttpServerRequest } from "effect/http"
import type { Session } from "effect-sessions"
import { html } from "./Html.ts"
import { page } from "./Layout.ts"
import { event, untilEnded, watch } from "./Live.ts"
import { logOutHere } from "./LogOut.ts"
import { CurrentUser, redirect, type User, UserSession, WithUntouchedSession, WithUser } from "./UserSession.ts"

// The first that is found: most browsers name others as well.
const browsers = { Edg: "Edge", OPR: "Opera", Firefox: "Firefox", Chrome: "Chrome", Safari: "Safari" }
const systems = {
  iPhone: "iPhone",
  iPad: "iPad",
  Android: "Android",
  Windows: "Windows",
  "Mac OS": "macOS",
  Linux: "Linux"
}

const find = (userAgent: string, names: Readonly<Record<string, string>>): string | undefined =>
  Object.entries(names).find(([part]) => userAgent.includes(part))?.[1]

/** A short name for what most browsers say of themselves; of the others, all that they say. */
const deviceName = (userAgent = ""): string => {
  const [browser, system] = [find(userAgent, browsers), find(userAgent, systems)]
  return browser === undefined || system === undefined ? userAgent : `${browser} on ${system}`
}

const units = [
  { unit: "day", seconds: 86_400 },
  { unit: "hour", seconds: 3_600 },
  { unit: "minute", seconds: 60 }
] as const
const relative = new Intl.RelativeTimeFormat("en")

const ago = (instant: DateTime.Utc, now: DateTime.Utc): string => {
  const elapsed = (now.epochMilliseconds - instant.epochMilliseconds) / 1000
  const largest = units.find(({ seconds }) => elapsed >= seconds)
  return largest === undefined ? "just now" : relative.format(-Math.floor(elapsed / largest.seconds), largest.unit)
}

const row = Effect.fnUntraced(function* (session: Session.Session<User>, here: Option.Option<string>) {
  const now = yield* DateTime.now
  const id = Option.getOrElse(yield* session.id, () => "")
  const { count, device } = yield* session.get
  const name = deviceName(device)
  const isHere = Option.contains(here, id)
  const begun = ago(yield* session.createdAt, now)
  const used = ago(yield* session.usedAt, now)
  return html`<li>
<div>
<p title="${device}"><strong>${name}</strong>${isHere ? html` <em>(this one)</em>` : undefined}</p>
<p class="quiet">Counter ${count} · logged in ${begun}${isHere ? "" : ` · used ${used}`}</p>
</div>
<form method="post" action="/log-out-device"><button name="id" value="${id}" aria-label="Log out ${name}">Log out</button></form>
</li>`
})

/** All sessions of a user, as items of a list. */
const rows = Effect.fnUntraced(function* (name: string) {
  const here = yield* UserSession.use((session) => session.id)
  const sessions = UserSession.sessionsOf("user", name)
  return yield* Stream.runCollect(Stream.mapEffect(sessions, (session) => row(session, here)))
})

const listen = html`
  events.addEventListener("devices", ({ data }) => {
    const list = document.querySelector("#devices")
    const focused = document.activeElement.value
    list.innerHTML = data
    list.querySelector("[value='" + focused + "']")?.focus()
  })`

const style = html`
  #devices { display: grid; margin: 0; padding: 0; list-style: none }
  #devices li {
    display: flex; gap: 1rem; align-items: center; justify-content: space-between;
    padding: .875rem 0; border-bottom: 1px solid var(--line)
  }
  #devices li:first-child { padding-top: 0 }
  #devices li > div { min-width: 0 }
  #devices form { flex: none }
  #devices em { white-space: nowrap; color: var(--accent); font-size: .875rem; font-style: normal }`

const show = Effect.gen(function* () {
  const name = yield* CurrentUser
  return yield* page({
    title: "Your devices",
    source: "Devices.ts",
    style,
    main: html`<section>
<ul id="devices">${yield* rows(name)}</ul>
<p class="quiet">Log in from another browser by the same name to see it here. At most five at a time: with a sixth, the
oldest is logged out.</p>
<div class="row">
<form method="post" action="/log-out-others"><button>Log out all others</button></form>
<form method="post" action="/log-out-everywhere"><button>Log out everywhere</button></form>
</div>
</section>
${watch("/devices/events", listen)}`
  })
})

const DeviceForm = Schema.Struct({ id: Schema.String })

const logOutDevice = Effect.gen(function* () {
  const user = yield* CurrentUser
  const { id } = yield* HttpServerRequest.schemaBodyUrlParams(DeviceForm)
  const session = yield* UserSession
  if (Option.contains(yield* session.id, id)) return yield* logOutHere("You are logged out.")
  const found = yield* UserSession.byId(id)
  if (Option.isNone(found)) return redirect("/devices")
  const { device, name } = yield* found.value.get
  // Ids are not secret: check that it belongs to this user.
  if (name !== user) return redirect("/devices")
  yield* found.value.destroy
  yield* session.update((value) => ({ ...value, flash: `Logged out: ${deviceName(device)}.` }))
  return redirect("/devices")
})

const logOutOthers = Effect.gen(function* () {
  const session = yield* UserSession
  const count = yield* UserSession.destroyAllOf("user", yield* CurrentUser, { except: session })
  yield* session.update((user) => ({ ...user, flash: `Devices logged out: ${count}.` }))
  return redirect("/devices")
})

const logOutEverywhere = Effect.gen(function* () {
  const count = yield* UserSession.destroyAllOf("user", yield* CurrentUser)
  return yield* logOutHere(count > 1 ? `You are logged out on all ${count} devices.` : "You are logged out.")
})

const PageRoutes = HttpRouter.addAll([
  HttpRouter.route("GET", "/devices", show),
  HttpRouter.route("POST", "/log-out-device", logOutDevice),
  HttpRouter.route("POST", "/log-out-others", logOutOthers),
  HttpRouter.route("POST", "/log-out-everywhere", logOutEverywhere)
]).pipe(Layer.provide(WithUser.layer))

/**
 * The list again when a session begins or ends, and from time to time, because there is no event for a session that
 * expires. Events are those of all users: if you have many, check the id of an event before you read the list.
 */
const changes = (name: string) =>
  UserSession.events.pipe(
    Stream.debounce("100 millis"),
    Stream.merge(Stream.tick("30 seconds")),
    Stream.mapEffect(() => rows(name)),
    Stream.map((items) => event("devices", html`${items}`.markup))
  )

const EventRoutes = HttpRouter.add("GET", "/devices/events", untilEnded(changes)).pipe(
  Layer.provide(WithUntouchedSession.layer)
)

export const Routes = Layer.merge(PageRoutes, EventRoutes)
