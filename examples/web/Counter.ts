/**
 * The page at `/account`: a counter, which is all that this application keeps for its users.
 */
import { Effect, Layer, Stream } from "effect"
import { HttpRouter } from "effect/http"
import { html } from "./Html.ts"
import { page } from "./Layout.ts"
import { untilEnded, watch } from "./Live.ts"
import { CurrentUser, redirect, UserSession, WithUntouchedSession, WithUser } from "./UserSession.ts"

const show = Effect.gen(function* () {
  const name = yield* CurrentUser
  const { count } = yield* UserSession.use((session) => session.get)
  return yield* page({
    title: `Hello, ${name}`,
    source: "Counter.ts",
    style: html`
      .counter { justify-items: center; padding: 2.5rem 1.25rem; text-align: center }
      .counter span { white-space: nowrap }
      .counter strong { color: var(--accent); font-size: 2rem; line-height: 1; font-variant-numeric: tabular-nums }
      .counter .primary { padding-inline: 2rem }`,
    main: html`<section class="counter">
<p>In this session you have counted to <span><strong>${count}</strong>.</span></p>
<form method="post" action="/count"><button class="primary">Count</button></form>
</section>
${watch("/account/events")}`
  })
})

const count = Effect.gen(function* () {
  const session = yield* UserSession
  yield* session.update((user) => ({ ...user, count: user.count + 1 }))
  return redirect("/account")
})

const PageRoutes = HttpRouter.addAll([
  HttpRouter.route("GET", "/account", show),
  HttpRouter.route("POST", "/count", count)
]).pipe(Layer.provide(WithUser.layer))

const EventRoutes = HttpRouter.add(
  "GET",
  "/account/events",
  untilEnded(() => Stream.empty)
).pipe(Layer.provide(WithUntouchedSession.layer))

export const Routes = Layer.merge(PageRoutes, EventRoutes)
