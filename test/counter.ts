/**
 * A counter in a session. It loses no increment only if `replace` is atomic.
 */
import { type DateTime, Effect, Option } from "effect"
import type { SessionStoreOperations } from "effect-sessions"

/** Adds one to the number in a session: finds, changes and replaces it until no one else was faster. */
export const increment = <E>(
  store: SessionStoreOperations<E>,
  token: string,
  expiry: DateTime.DateTime
): Effect.Effect<void, E> =>
  Effect.gen(function* () {
    const found = Option.getOrThrow(yield* store.find(token))
    yield* Effect.yieldNow
    return yield* store.replace(token, found, `${Number(found) + 1}`, expiry)
  }).pipe(Effect.repeat({ until: (replaced) => replaced }), Effect.asVoid)
