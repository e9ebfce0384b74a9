/**
 * The page at `/`: log in.
 */
import { Effect, Layer, Option, Schema } from "effect"
import { HttpRouter, HttpServerRequest } from "effect/http"
import { html } from "./Html.ts"
import { page } from "./Layout.ts"
import { redirect, UserSession, WithSession } from "./UserSession.ts"

const show = Effect.gen(function* () {
  const { name } = yield* UserSession.use((session) => session.get)
  if (name !== undefined) return redirect("/account")
  return yield* page({
    title: "Log in",
    source: "LogIn.ts",
    style: html`
      main { width: 100%; max-width: 26rem; justify-self: center }
      .field { display: grid; gap: .375rem }
      .check { display: flex; gap: .5rem; align-items: baseline }`,
    main: html`<section>
<p>This is an example without passwords: any name will do.</p>
<form method="post" action="/log-in">
<label class="field">Name
<input type="text" name="name" required maxlength="40" autocomplete="username" autofocus></label>
<label class="check"><input type="checkbox" name="remember"> Remember me when the browser closes</label>
<button class="primary">Log in</button>
</form>
</section>`
  })
})

const LogInForm = Schema.Struct({
  name: Schema.Trim.check(Schema.isNonEmpty(), Schema.isMaxLength(40)),
  remember: Schema.optionalKey(Schema.Literal("on"))
})

const logIn = Effect.gen(function* () {
  const session = yield* UserSession
  const form = yield* Effect.option(HttpServerRequest.schemaBodyUrlParams(LogInForm))
  if (Option.isNone(form)) {
    yield* session.update((user) => ({ ...user, flash: "Please enter a name of 1 to 40 characters." }))
    return redirect("/")
  }

  const { name, remember } = form.value
  yield* session.renewToken // anyone who knew the old token does not know this one
  const { headers } = yield* HttpServerRequest.HttpServerRequest
  const device = (headers["user-agent"] ?? "Unknown device").slice(0, 200)
  yield* session.set({ name, count: 0, device, flash: `Welcome, ${name}!` })
  yield* session.setRememberMe(remember === "on")
  return redirect("/account")
})

export const Routes = HttpRouter.addAll([
  HttpRouter.route("GET", "/", show),
  HttpRouter.route("POST", "/log-in", logIn)
]).pipe(Layer.provide(WithSession.layer))
