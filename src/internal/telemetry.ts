/**
 * Metrics, traces and events of sessions: counters by class, a span around each call that asks the store, and events.
 * None of them contains a token or a value.
 */
import { Context, Effect, Metric, Option, Tracer } from "effect"
import { type SessionEvent, SessionEvents } from "../SessionEvents.ts"

const sessionsCreated = Metric.counter("sessions_created", {
  description: "Sessions that a first commit added to the store",
  incremental: true
})

const sessionsDestroyed = Metric.counter("sessions_destroyed", {
  description: "Calls of destroy on a session that was in the store",
  incremental: true
})

const sessionConflicts = Metric.counter("session_conflicts", {
  description: "Commits that applied their changes again because another was faster",
  incremental: true
})

const sessionsUndecodable = Metric.counter("sessions_undecodable", {
  description: "Sessions met in the store that did not decode",
  incremental: true
})

export interface Telemetry {
  readonly created: Effect.Effect<void>
  readonly destroyed: Effect.Effect<void>
  readonly conflict: Effect.Effect<void>
  readonly undecodable: Effect.Effect<void>
  readonly span: <A, E>(
    context: Context.Context<never>,
    name: string,
    effect: Effect.Effect<A, E>
  ) => Effect.Effect<A, E>
}

export const makeTelemetry = (session: string): Telemetry => {
  const attributes = { session }
  const count = (counter: Metric.Counter<number>) => Metric.update(Metric.withAttributes(counter, attributes), 1)
  return {
    created: count(sessionsCreated),
    destroyed: count(sessionsDestroyed),
    conflict: count(sessionConflicts),
    undecodable: count(sessionsUndecodable),
    // Creating a span costs time on every request; skip it when no tracer is installed.
    span: (context, name, effect) =>
      Context.get(context, Tracer.Tracer) === Tracer.nativeTracer
        ? effect
        : withSecret(effect, (effect) => Effect.withSpan(effect, name, { attributes, captureStackTrace: false }))
  }
}

/**
 * A span records what its effect returns, which here would be a session or its token. So the result bypasses the span.
 */
const withSecret = <A, E>(
  effect: Effect.Effect<A, E>,
  around: (effect: Effect.Effect<void, E>) => Effect.Effect<void, E>
): Effect.Effect<A, E> =>
  Effect.suspend(() => {
    let result = Option.none<A>()
    const kept = Effect.map(effect, (value) => {
      result = Option.some(value)
    })
    return Effect.map(around(kept), () => Option.getOrThrow(result))
  })

/** Publishes an event. The store has already confirmed the change, so this must not fail. */
export const publish = (event: SessionEvent): Effect.Effect<void> =>
  Effect.contextWith((context: Context.Context<never>) => {
    try {
      Context.get(context, SessionEvents).publish(event)
      return Effect.void
    } catch (cause) {
      return Effect.logWarning(`${event.session}: publishing the event ${event._tag} failed`, cause)
    }
  })
