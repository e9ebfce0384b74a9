import { assert, describe, it, vi } from "@effect/vitest"
import { Clock, DateTime, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { compareAndSet, look, type Step, wait, write } from "../../src/internal/records.ts"

/** The one loop in which everything is written that others may write too. */

const soon = DateTime.makeUnsafe(1_000)

const delays = [0, 2, 4, 8, 16, 32, 64, 100, 100]

/** When each try of a loop came that never wins, in milliseconds after the one before, if every wait is the longest. */
const delaysOf = Effect.fnUntraced(function* (step: Step<void>) {
  const random = vi.spyOn(Math, "random").mockReturnValue(1)
  yield* Effect.addFinalizer(() => Effect.sync(() => random.mockRestore()))
  const tries: Array<number> = []
  const loses = { create: () => Effect.succeed(false), replace: () => Effect.succeed(false) }
  const find = Effect.map(Clock.currentTimeMillis, (now) => void tries.push(now))
  const fiber = yield* Effect.forkChild(
    compareAndSet(loses, "key", find, () => Effect.succeed(step), undefined),
    {
      startImmediately: true
    }
  )
  for (let i = 0; i < 400; i++) yield* TestClock.adjust(1)
  yield* Fiber.interrupt(fiber)
  assert.isTrue(Exit.isFailure(yield* Fiber.await(fiber)))
  return tries.slice(1, delays.length + 1).map((at, i) => at - (tries[i] ?? 0))
})

describe("the compare-and-set loop", () => {
  const steps = { "loses to others": write("text", "next", soon, undefined), "has to wait for another": wait }
  for (const [what, step] of Object.entries(steps)) {
    it.effect(`tries again at once if it ${what}, then after twice as long each time, up to a tenth of a second`, () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* delaysOf(step), delays)
      })
    )
  }

  it.effect("takes no look for a loss", () =>
    Effect.gen(function* () {
      const store = { create: () => Effect.succeed(true), replace: () => Effect.succeed(true) }
      let looks = 0
      const decide = () => Effect.succeed(++looks < 10 ? look : write("text", "next", soon, "done"))
      assert.strictEqual(yield* compareAndSet(store, "key", Effect.succeed("found"), decide, undefined), "done")
      assert.strictEqual(looks, 10)
    })
  )

  it.effect("begins with what is known, and looks only if that is not enough", () =>
    Effect.gen(function* () {
      const seen: Array<readonly [found: string, isFresh: boolean]> = []
      const store = { create: () => Effect.succeed(true), replace: () => Effect.succeed(true) }
      const decide = (found: string, isFresh: boolean) => {
        seen.push([found, isFresh])
        return Effect.succeed(isFresh ? write(found, "next", soon, "done") : look)
      }
      assert.strictEqual(yield* compareAndSet(store, "key", Effect.succeed("found"), decide, "known"), "done")
      assert.deepStrictEqual(seen, [
        ["known", false],
        ["found", true]
      ])
    })
  )
})
