/**
 * Random numbers that the package draws from the process, drawn from a seed. Of two sessions that merge each other, the one
 * with the smaller key gives in, so that a schedule depends on the tokens too.
 */
import { Effect, Stream } from "effect"
import { makeDice } from "./draw.ts"
import type { Subject } from "./subject.ts"

/** Runs something that does not wait for anything, with what it draws taken from the seed. */
export const seeded = <A>(seed: number, subject: Subject, body: () => A): A => {
  const dice = makeDice(seed)
  const { random } = Math
  let refills = 0
  Math.random = dice.next
  Object.defineProperty(globalThis.crypto, "getRandomValues", {
    configurable: true,
    value: (bytes: Uint8Array) => {
      refills++
      // Not by the dice, which take longer than all the rest of a schedule.
      let state = dice.int(2 ** 32) >>> 0
      for (let i = 0; i < bytes.length; i++) {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
        bytes[i] = state >>> 24
      }
      return bytes
    }
  })
  try {
    // Tokens are drawn several at a time. Those that are left were drawn from another seed.
    for (let drawn = 0; refills === 0 && drawn < 64; drawn++) drawToken(subject)
    return body()
  } finally {
    Math.random = random
    Reflect.deleteProperty(globalThis.crypto, "getRandomValues")
  }
}

/** A new session draws a token, even if it is never saved. */
const drawToken = ({ SessionStore, classesOf }: Subject): void => {
  const nowhere = SessionStore.make({
    find: () => Effect.succeedNone,
    create: () => Effect.succeed(true),
    commit: () => Effect.void,
    replace: () => Effect.succeed(true),
    delete: () => Effect.void,
    entries: Stream.empty
  })
  const [sessionClass] = classesOf({ hasIdleTimeout: false, indexes: undefined })
  if (sessionClass === undefined) return
  const commit = Effect.flatMap(sessionClass.open(), (session) =>
    Effect.andThen(
      session.update((value) => ({ ...value, user: 0 })),
      session.commit
    )
  )
  Effect.runSync(Effect.provideService(commit, SessionStore, nowhere))
}
