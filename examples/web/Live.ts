/**
 * What keeps an open page up to date: a stream of Server-Sent Events that ends with the session, and the script that
 * listens. Without JavaScript, a page notices at the next click.
 */
import { Effect, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import type { SessionStore } from "effect-sessions"
import { type Html, html } from "./Html.ts"
import { UserSession } from "./UserSession.ts"

/** An event. Its data has to be one line. */
export const event = (name: string, data: string): string =>
  `event: ${name}\ndata: ${data.replace(/[\r\n]+/g, " ")}\n\n`

/** Sends the news of a user until the session has ended, and at last how it ended. */
export const untilEnded = <E>(news: (name: string) => Stream.Stream<string, E, UserSession | SessionStore>) =>
  Effect.gen(function* () {
    const session = yield* UserSession
    const { name } = yield* session.get
    // A line each half minute finds out whether the page is still there.
    const alive = Stream.as(Stream.tick("30 seconds"), ":\n\n")
    const lasting = name === undefined ? Stream.empty : Stream.merge(alive, news(name))
    const ended = name === undefined ? Effect.succeed("gone") : session.ended
    const farewell = Stream.fromEffect(Effect.map(ended, (how) => event("ended", how)))
    const body = Stream.merge(lasting, farewell, { haltStrategy: "right" })
    const context = yield* Effect.context<UserSession | SessionStore>()
    return HttpServerResponse.stream(Stream.encodeText(Stream.provideContext(body, context)), {
      contentType: "text/event-stream",
      headers: { "cache-control": "no-store" }
    })
  })

/** Has a page listen to the stream at an address, and leave when the session has ended. */
export const watch = (address: string, more?: Html): Html => html`<script>
  const events = new EventSource("${address}")
  events.addEventListener("ended", ({ data }) => {
    events.close()
    location.replace("/logged-out?how=" + data)
  })
  addEventListener("submit", () => events.close()) // the answer to the form says what is next
  ${more}
</script>`
