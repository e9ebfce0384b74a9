/**
 * Sees all that leaves the library in a run: what is logged, traced, failed with and answered. It tells what of it holds a
 * secret.
 */
import { inspect } from "node:util"
import { Cause, Effect, Exit, Layer, Logger, References, Tracer } from "effect"

/** Strange enough to be found nowhere else. */
export const secrets = {
  value: "Xq7-secret-value-41927",
  user: "Xq7-secret-user-58163"
} as const

const show = (input: unknown): string =>
  typeof input === "string" ? input : inspect(input, { depth: 12, maxStringLength: null, maxArrayLength: null })

export interface Witness {
  readonly seen: Array<string>
  /** Logs down to the finest level, and traces. */
  readonly layer: Layer.Layer<never>
  readonly see: (input: unknown) => void
  readonly run: <A, E>(effect: Effect.Effect<A, E>) => Promise<Exit.Exit<A, E>>
}

export const makeWitness = (): Witness => {
  const seen: Array<string> = []
  const see = (input: unknown): void => void seen.push(show(input))
  const logger = Logger.make(({ cause, fiber, logLevel, message }) => {
    see([logLevel, message, Cause.pretty(cause), cause, fiber.getRef(References.CurrentLogAnnotations)])
  })
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  const layer = Layer.mergeAll(
    Logger.layer([logger]),
    Layer.succeed(References.MinimumLogLevel, "All"),
    Layer.succeed(Tracer.Tracer, tracer)
  )
  return {
    seen,
    see,
    layer,
    run: async (effect) => {
      const exit = await Effect.runPromiseExit(Effect.provide(effect, layer))
      if (Exit.isFailure(exit)) see([Cause.pretty(exit.cause), exit.cause])
      for (const { attributes, events, name, status } of spans.splice(0)) see([name, attributes, events, status])
      return exit
    }
  }
}

/** Throws if something that was seen holds one of these. */
export const holdsNone = ({ seen }: Witness, secrets: Iterable<string>): void => {
  for (const secret of secrets) {
    const leak = seen.find((text) => text.includes(secret))
    if (leak !== undefined) throw new Error(`A secret is in what was logged, traced, failed with or answered:\n${leak}`)
  }
}
