/**
 * The source of the pages, at `/source/` and the name of a file.
 */
import { readFile } from "node:fs/promises"
import { Effect, Schema } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"

const Source = Schema.Struct({
  file: Schema.Literals([
    "Counter.ts",
    "Devices.ts",
    "Html.ts",
    "Layout.ts",
    "Live.ts",
    "LogIn.ts",
    "LogOut.ts",
    "Routes.ts",
    "Source.ts",
    "Store.ts",
    "UnderTheHood.ts",
    "UserSession.ts"
  ])
})

const source = Effect.gen(function* () {
  const { file } = yield* HttpRouter.schemaPathParams(Source)
  const text = yield* Effect.promise(() => readFile(new URL(file, import.meta.url), "utf8"))
  return HttpServerResponse.text(text, { contentType: "text/plain; charset=utf-8" })
})

export const Routes = HttpRouter.add("GET", "/source/:file", source)
