/** A site whose users have several devices, with a page that stays open until its session ends. */
import { Effect, Layer, Option, Schema, Stream } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Session } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"

/** What can be wrong with the site on purpose, to see that the soak notices. */
export const plantedLeaks = ["heap", "fiber", "timer"] as const
export type PlantedLeak = (typeof plantedLeaks)[number]

class Device extends Session.Service<Device>()("soak/Device", {
  schema: Schema.Struct({ userId: Schema.optionalKey(Schema.String), changes: Schema.Int }),
  initial: () => ({ changes: 0 }),
  idleTimeout: "1 minute",
  recheckInterval: "2 seconds",
  indexes: { user: ({ userId }) => userId },
  maxSessions: { user: 4 }
}) {}

const Sessions = HttpSession.middleware(Device)

/** Answers with the name of the user, or with nothing. */
const answer = Effect.gen(function* () {
  const { userId = "" } = yield* (yield* Device).get
  return HttpServerResponse.text(userId)
})

const change = Effect.gen(function* () {
  const device = yield* Device
  yield* device.update((value) => ({ ...value, changes: value.changes + 1 }))
  return yield* answer
})

const logIn = Effect.gen(function* () {
  const { user } = yield* HttpServerRequest.schemaSearchParams(Schema.Struct({ user: Schema.String }))
  const device = yield* Device
  yield* device.renewToken
  yield* device.update((value) => ({ ...value, userId: user }))
  return yield* answer
})

const logOut = Effect.gen(function* () {
  yield* (yield* Device).destroy
  return HttpServerResponse.text("")
})

const devices = Effect.gen(function* () {
  const { userId } = yield* (yield* Device).get
  if (userId !== undefined) yield* Stream.runDrain(Device.sessionsOf("user", userId))
  return yield* answer
})

const logOutEverywhere = Effect.gen(function* () {
  const device = yield* Device
  const { userId } = yield* device.get
  if (userId !== undefined) yield* Device.destroyAllOf("user", userId)
  yield* device.destroy
  return HttpServerResponse.text("")
})

const events = Effect.gen(function* () {
  const device = yield* Device
  if (Option.isNone(yield* device.id)) return HttpServerResponse.empty({ status: 204 })
  const farewell = Stream.fromEffect(Effect.map(device.ended, (how) => `event: ended\ndata: ${how}\n\n`))
  const news = Stream.concat(Stream.make("data: hello\n\n"), Stream.never)
  const body = Stream.merge(news, farewell, { haltStrategy: "right" })
  return HttpServerResponse.stream(Stream.encodeText(body), { contentType: "text/event-stream" })
})

const leaked: Array<ReadonlyArray<number>> = []

const leak: Record<PlantedLeak, Effect.Effect<void>> = {
  heap: Effect.sync(() => void leaked.push(Array.from({ length: 1000 }, () => leaked.length))),
  fiber: Effect.asVoid(Effect.forkDetach(Effect.never)),
  timer: Effect.sync(() => void setInterval(() => {}, 60_000))
}

export const routes = (planted: PlantedLeak | undefined) =>
  Layer.mergeAll(
    HttpRouter.addAll([
      HttpRouter.route("GET", "/", answer),
      HttpRouter.route("POST", "/change", change),
      HttpRouter.route("POST", "/log-in", planted === undefined ? logIn : Effect.andThen(leak[planted], logIn)),
      HttpRouter.route("POST", "/log-out", logOut),
      HttpRouter.route("POST", "/log-out-everywhere", logOutEverywhere),
      HttpRouter.route("GET", "/devices", devices)
    ]).pipe(Layer.provide(Sessions.layer)),
    HttpRouter.add("GET", "/events", events).pipe(Layer.provide(Sessions.with({ touch: false }).layer))
  )
