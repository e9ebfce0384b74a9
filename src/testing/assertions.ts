/**
 * The assertions of the test suites, for any test runner and any clock.
 */
import { Clock, Effect, Equal, Formatter } from "effect"

const shown = (value: unknown): string => {
  const text = Formatter.format(value)
  return text.length > 1_000 ? `${text.slice(0, 1_000)}… (${text.length} characters)` : text
}

/** Fails the test if two values differ. Runners show a difference between `actual` and `expected`. */
export const assertEqual = <A>(actual: A, expected: NoInfer<A>): void => {
  if (Equal.equals(actual, expected)) return
  const values = { actual: shown(actual), expected: shown(expected) }
  throw Object.assign(new Error(`expected ${values.expected}, but it is ${values.actual}`), values)
}

export const isTestClock = Effect.map(Clock.Clock, (clock) => "adjust" in clock)
