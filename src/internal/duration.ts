/**
 * Parses the durations in options. A value that is not a duration is rejected, not read as zero.
 */
import { Duration, Formatter, Option, Predicate } from "effect"

const units = [
  "weeks",
  "days",
  "hours",
  "minutes",
  "seconds",
  "milliseconds",
  "microseconds",
  "nanoseconds"
] as const satisfies ReadonlyArray<keyof Duration.DurationObject>

// `Duration` reads a NaN, and an object that names no unit, as zero.
const isDurationInput = (input: Duration.Input): boolean => {
  if (typeof input !== "object" || Duration.isDuration(input)) return !Number.isNaN(input)
  const parts = "length" in input ? input : units.map((unit) => input[unit]).filter(Predicate.isNotUndefined)
  return parts.length > 0 && parts.every((part) => Predicate.isNumber(part) && !Number.isNaN(part))
}

export const parseDuration = (input: Duration.Input): Option.Option<Duration.Duration> =>
  Option.filter(Duration.fromInput(input), () => isDurationInput(input))

const refuse = (what: string, input: unknown): never => {
  throw new TypeError(`${what}: ${Formatter.format(input)}`)
}

/** A duration longer than zero, in milliseconds; `null` for an infinite one. Throws a `TypeError` that names the value. */
export const toMillis = (what: string, input: Duration.Input): number | null => {
  const duration = Option.getOrUndefined(parseDuration(input))
  if (duration === undefined || !Duration.isPositive(duration)) {
    return refuse(`${what} is not a duration longer than zero`, input)
  }
  return Duration.isFinite(duration) ? Duration.toMillis(duration) : null
}

/** A duration of zero or more, in milliseconds. Throws a `TypeError` that names the value. */
export const toMillisOrZero = (what: string, input: Duration.Input): number => {
  const duration = Option.getOrUndefined(parseDuration(input))
  return duration === undefined || Duration.isNegative(duration)
    ? refuse(`${what} is not a duration of zero or more`, input)
    : Duration.toMillis(duration)
}
