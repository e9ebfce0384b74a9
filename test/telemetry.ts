/**
 * What an effect logs and traces, for tests to look at.
 */
import { Effect, Logger, Tracer } from "effect"

/** Collects the messages logged in the meantime, one text each. */
export const withLog = <A, E, R>(
  body: (logged: ReadonlyArray<string>) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const logged: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => void logged.push(`${logLevel}: ${String(message)}`))
  return Effect.provide(body(logged), Logger.layer([logger]))
}

/** Collects the spans begun in the meantime; the caller may remove those that it has seen. */
export const withSpans = <A, E, R>(
  body: (spans: Array<Tracer.NativeSpan>) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return Effect.provideService(body(spans), Tracer.Tracer, tracer)
}
