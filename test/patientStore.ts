/** The layer of docs/stores.md, which has this file from here on. */
import { Effect, Fiber, Layer, Schedule } from "effect"
import { SessionStore, SessionStoreError, type SessionStoreOperation } from "effect-sessions"

/** Fails after a second, whatever the store does: it is interrupted, without waiting for it to stop. */
const withinASecond = <A>(operation: SessionStoreOperation, effect: Effect.Effect<A, SessionStoreError>) =>
  Effect.acquireUseRelease(
    Effect.forkDetach(effect),
    (fiber) =>
      Effect.timeoutOrElse(Fiber.join(fiber), {
        duration: "1 second",
        orElse: () => Effect.fail(new SessionStoreError({ operation, cause: new Error("no answer for a second") }))
      }),
    (fiber) => Effect.forkDetach(Fiber.interrupt(fiber))
  )

export const Patient = Layer.effect(
  SessionStore,
  Effect.map(SessionStore, (store) =>
    SessionStore.of({
      ...store,
      find: (token) =>
        withinASecond("find", store.find(token)).pipe(
          Effect.retry({ schedule: Schedule.exponential("50 millis"), times: 1 })
        ),
      create: (token, data, expiry) => withinASecond("create", store.create(token, data, expiry)),
      commit: (token, data, expiry) => withinASecond("commit", store.commit(token, data, expiry)),
      replace: (token, expected, data, expiry) =>
        withinASecond("replace", store.replace(token, expected, data, expiry)),
      delete: (token) => withinASecond("delete", store.delete(token))
    })
  )
)
