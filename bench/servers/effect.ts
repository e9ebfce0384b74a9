/** Effect's server, and no session: what a session on it adds to. */
import { Effect } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { serveEffect } from "./effectApp.ts"

serveEffect(
  HttpRouter.add(
    "GET",
    "/",
    Effect.sync(() => HttpServerResponse.text("Visit 1"))
  )
)
