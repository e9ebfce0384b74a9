/**
 * What happens to sessions: for audit logs, and for `ended` of every session.
 *
 * An event is a hint. It is published after the store has confirmed the change, at most once, and possibly never, for
 * example after a crash. Do not depend on events: `ended` checks the store by itself, and an event only makes it check
 * sooner.
 *
 * Without a layer, events reach every listener in this process. `RedisEvents` of `effect-sessions/redis` carries them to
 * every server.
 *
 * @module
 */
import { Context } from "effect"

/**
 * What happened to a session, with its class and its public id, which opens nothing:
 *
 * - `Created`: it was committed for the first time.
 * - `Renewed`: it replaced the session with the id `former`, which was renewed or merged into it.
 * - `Destroyed`: it was ended by a log-out, by `destroyAllOf` or by `maxSessions`.
 *
 * There is no event for an expired session, because nothing runs when it expires.
 *
 * @example
 * ```ts
 * import { Effect, Stream } from "effect"
 * import type { Session, SessionEvent } from "effect-sessions"
 *
 * const toLine = (event: SessionEvent) =>
 *   event._tag === "Renewed" ? `${event.former} is now ${event.id}` : `${event.id}: ${event._tag}`
 *
 * toLine({ _tag: "Created", session: "app/UserSession", id: "kP3v" }) // => "kP3v: Created"
 *
 * const audit = <Self, A>(UserSession: Session.ServiceClass<Self, string, A>) =>
 *   Stream.runForEach(UserSession.events, (event) => Effect.log(toLine(event)))
 * ```
 */
export type SessionEvent =
  | { readonly _tag: "Created"; readonly session: string; readonly id: string }
  | { readonly _tag: "Renewed"; readonly session: string; readonly id: string; readonly former: string }
  | { readonly _tag: "Destroyed"; readonly session: string; readonly id: string }

/**
 * Carries events from publishers to listeners.
 *
 * **When to use**: to carry events between servers by something other than Redis. `SessionEvents.make` makes a bus for
 * this process that you can build on.
 */
export interface SessionEventBus {
  /**
   * Publishes an event. It is called during a commit, so it must return immediately: queue slow work, such as sending
   * the event to another server, and drop it if the queue is full. If it throws, a warning is logged, and the commit
   * continues.
   */
  readonly publish: (event: SessionEvent) => void
  /** Calls a listener with every event from now on, until you call the function that it returns. */
  readonly listen: (listener: (event: SessionEvent) => void) => () => void
}

/** `SessionEvents.make`. */
const make = (): SessionEventBus => {
  const listeners = new Set<(event: SessionEvent) => void>()
  return {
    publish: (event) => {
      let failure: { readonly error: unknown } | undefined
      for (const listener of listeners) {
        try {
          listener(event)
        } catch (error) {
          failure ??= { error }
        }
      }
      // Only after every listener was called.
      if (failure !== undefined) throw failure.error
    },
    listen: (listener) => {
      // Wrapped, so the same function can listen twice.
      const own = (event: SessionEvent) => listener(event)
      listeners.add(own)
      return () => {
        listeners.delete(own)
      }
    }
  }
}

/**
 * The bus of session events. Without a layer, the whole process shares one.
 *
 * **When to use**: to provide another bus, such as one that reaches other servers. To follow the sessions of a class,
 * use its `events` stream.
 *
 * **Gotchas**: provide it to the whole application, not only to the store. A session uses the bus of the code that
 * commits it, destroys it or waits for it.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Option, Schema } from "effect"
 * import { MemStore, Session, type SessionEvent, SessionEvents } from "effect-sessions"
 *
 * class UserSession extends Session.Service<UserSession>()("app/UserSession", {
 *   schema: Schema.Struct({ userId: Schema.optionalKey(Schema.String) }),
 *   initial: () => ({})
 * }) {}
 *
 * const program = Effect.gen(function* () {
 *   const bus = yield* SessionEvents
 *   const heard: Array<SessionEvent["_tag"]> = []
 *   const stop = bus.listen(({ _tag }) => heard.push(_tag))
 *   const session = yield* UserSession.open()
 *   yield* session.set({ userId: "ada" })
 *   yield* session.commit
 *   yield* session.destroy
 *   stop()
 *   return heard
 * })
 *
 * // A separate bus, as in a test.
 * const layer = Layer.merge(MemStore.layer, Layer.sync(SessionEvents, SessionEvents.make))
 *
 * await Effect.runPromise(Effect.provide(program, layer)) // => ["Created", "Destroyed"]
 * ```
 */
export const SessionEvents: Context.Reference<SessionEventBus> & {
  /** Makes a bus that reaches every listener in this process. */
  readonly make: () => SessionEventBus
} = /* @__PURE__ */ Object.assign(
  /* @__PURE__ */ Context.Reference<SessionEventBus>("effect-sessions/SessionEvents", { defaultValue: make }),
  { make }
)
