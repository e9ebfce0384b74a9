/**
 * The cleanup of stores that sweep: a scoped fiber that runs a sweep at an interval, even if the sweep before failed.
 */
import type { Scope } from "effect"
import { Cause, Duration, Effect, Fiber, Formatter, Metric, Option, Schedule } from "effect"
import { parseDuration } from "./duration.ts"

/** Update it during a sweep, so a sweep that is stopped half-way counts too. */
export const sessionsSwept = Metric.counter("sessions_swept", {
  description: "Expired sessions swept",
  incremental: true
})

const sweepDuration = Metric.timer("session_sweep_duration", {
  description: "Time of a sweep"
})

const decodeInterval = (store: string, input: Duration.Input): Effect.Effect<Duration.Duration> =>
  parseDuration(input).pipe(
    Option.match({
      onNone: () =>
        Effect.die(new TypeError(`${store}: the cleanup interval is no duration: ${Formatter.format(input)}`)),
      onSome: Effect.succeed
    })
  )

/**
 * Starts the cleanup in the current scope and returns the effect that stops it. The first sweep runs one interval after
 * the start, and each later one an interval after the end of the sweep before it. If the interval is zero, negative or
 * infinite, there is no cleanup. Dies with a `TypeError` that names the store and the value if it is not a duration.
 */
export const start: <E>(options: {
  readonly store: string
  readonly interval: Duration.Input
  /** Removes expired sessions, and returns how many. */
  readonly sweep: Effect.Effect<number, E>
  readonly report: (swept: number) => Effect.Effect<void>
}) => Effect.Effect<Effect.Effect<void>, never, Scope.Scope> = ({ store, interval, sweep, report }) => {
  const cleanup = Effect.timed(sweep).pipe(
    Effect.flatMap(([duration, swept]) => Effect.andThen(Metric.update(sweepDuration, duration), report(swept))),
    Effect.catchCauseIf(
      (cause) => !Cause.hasInterrupts(cause),
      (cause) => Effect.logWarning("Session cleanup failed; the next sweep tries again", cause)
    ),
    // A logger that throws must not end the cleanup: expired sessions would silently stay in the store.
    Effect.catchDefect(() => Effect.void)
  )
  return Effect.flatMap(decodeInterval(store, interval), (interval) =>
    Duration.isPositive(interval) && Duration.isFinite(interval)
      ? Effect.map(Effect.forkScoped(Effect.schedule(cleanup, Schedule.spaced(interval))), Fiber.interrupt)
      : Effect.succeed(Effect.void)
  )
}
