/**
 * The cleanup that sweeping stores have in common: a scoped fiber that runs a sweep at an interval, whatever becomes of
 * the sweep before.
 */
import type { Scope } from "effect"
import { Cause, Duration, Effect, Fiber, Formatter, Metric, Option, Schedule } from "effect"
import { parseDuration } from "./duration.ts"

/** To be updated as a sweep goes, so that a sweep that is stopped half-way counts too. */
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
 * Starts the cleanup in the current scope and returns the effect that stops it. The first sweep comes one interval after
 * the start, each further one an interval after the end of the one before. An interval of zero, a negative or an
 * infinite one means no cleanup; dies with a `TypeError` that names store and value where it is no duration at all.
 */
export const start: <E>(options: {
  readonly store: string
  readonly interval: Duration.Input
  /** Removes expired sessions and says how many. */
  readonly sweep: Effect.Effect<number, E>
  readonly report: (swept: number) => Effect.Effect<void>
}) => Effect.Effect<Effect.Effect<void>, never, Scope.Scope> = ({ store, interval, sweep, report }) => {
  const cleanup = Effect.timed(sweep).pipe(
    Effect.flatMap(([duration, swept]) => Effect.andThen(Metric.update(sweepDuration, duration), report(swept))),
    Effect.catchCauseIf(
      (cause) => !Cause.hasInterrupts(cause),
      (cause) => Effect.logWarning("Session cleanup failed; the next sweep tries again", cause)
    ),
    // An application's logger that throws must not end the cleanup, which would keep expired sessions in silence.
    Effect.catchDefect(() => Effect.void)
  )
  return Effect.flatMap(decodeInterval(store, interval), (interval) =>
    Duration.isPositive(interval) && Duration.isFinite(interval)
      ? Effect.map(Effect.forkScoped(Effect.schedule(cleanup, Schedule.spaced(interval))), Fiber.interrupt)
      : Effect.succeed(Effect.void)
  )
}
