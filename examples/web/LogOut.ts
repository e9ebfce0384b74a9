/**
 * The page at `/logged-out`, which says how a session ended. An open page goes there by itself: see Live.ts.
 */
import { Effect, Layer, Option, Schema } from "effect"
import { HttpRouter, HttpServerRequest } from "effect/http"
import { html } from "./Html.ts"
import { page } from "./Layout.ts"
import { redirect, takeFlash, UserSession, WithSession, WithUser } from "./UserSession.ts"

const says = {
  destroyed: "You were logged out on another page or device.",
  expired: "You were logged out, because nothing happened for a while.",
  renewed: "You have logged in again on another page.",
  gone: "You are logged in no longer: you logged out elsewhere, or nothing happened for a while."
}

const Query = Schema.Struct({ how: Schema.Literals(["destroyed", "expired", "renewed", "gone"]) })

const show = Effect.gen(function* () {
  const query = yield* Effect.option(HttpServerRequest.schemaSearchParams(Query))
  const { name } = yield* UserSession.use((session) => session.get)
  if (Option.isNone(query) && name !== undefined) return redirect("/account")
  const message = Option.isSome(query) ? says[query.value.how] : yield* takeFlash
  if (message === undefined) return redirect("/")
  return yield* page({
    title: "Logged out",
    source: "LogOut.ts",
    style: html`
      main { width: 100%; max-width: 26rem; justify-self: center }
      .button { text-align: center }`,
    message,
    main: html`<section>
${
  name === undefined
    ? html`<a class="button primary" href="/">Log in again</a>`
    : html`<a class="button primary" href="/account">Go on as ${name}</a>`
}
</section>`
  })
})

/** Ends the session of this browser, and shows that with a message. */
export const logOutHere = Effect.fnUntraced(function* (message: string) {
  const session = yield* UserSession
  yield* session.destroy
  // This belongs to a new session, with a new cookie. Chromium keeps private pages for the back button, even with
  // `no-store`. It drops them when a cookie is set, but not when one is only deleted.
  yield* session.update((user) => ({ ...user, flash: message }))
  return redirect("/logged-out")
})

const PublicRoutes = HttpRouter.add("GET", "/logged-out", show).pipe(Layer.provide(WithSession.layer))

const PrivateRoutes = HttpRouter.add("POST", "/log-out", logOutHere("You are logged out.")).pipe(
  Layer.provide(WithUser.layer)
)

export const Routes = Layer.merge(PublicRoutes, PrivateRoutes)
