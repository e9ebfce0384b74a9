import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Latch } from "effect"
import { makeLooks, share } from "../../src/internal/looks.ts"
import { settle } from "./virtualStore.ts"

/**
 * Look-ups of one session at once: one at a time, and those that wait share the next.
 */

const looking = () => {
  const looks = makeLooks<number, string>()
  const open = Latch.makeUnsafe(false)
  let [begun, running, most] = [0, 0, 0]
  const look = Effect.gen(function* () {
    const n = ++begun
    most = Math.max(most, ++running)
    yield* Effect.ensuring(
      open.await,
      Effect.sync(() => running--)
    )
    return n
  })
  return {
    looks,
    begin: (own: Effect.Effect<number, string> = look) =>
      Effect.forkChild(share(looks, own), { startImmediately: true }),
    look,
    open: Effect.andThen(open.open, settle),
    counts: () => ({ begun, most })
  }
}

describe("look-ups at once", () => {
  it.effect("need two: one for the first, and one for all that came meanwhile", () =>
    Effect.gen(function* () {
      const { begin, counts, looks, open } = looking()
      const fibers = yield* Effect.replicateEffect(begin(), 5)
      assert.deepStrictEqual(counts(), { begun: 1, most: 1 })
      yield* open
      assert.deepStrictEqual(yield* Effect.forEach(fibers, Fiber.join), [1, 2, 2, 2, 2])
      assert.deepStrictEqual(counts(), { begun: 2, most: 1 })
      assert.deepStrictEqual(looks, makeLooks())
    })
  )

  it.effect("share none that began before they came", () =>
    Effect.gen(function* () {
      const { begin, look, looks, open } = looking()
      const [first, second] = [yield* begin(), yield* begin()]
      const late = Effect.andThen(settle, look)
      const third = yield* begin(late)
      yield* Fiber.interrupt(first)
      const fourth = yield* begin()
      assert.isTrue(looks.isUnderWay)
      yield* open
      assert.deepStrictEqual(yield* Effect.forEach([second, third, fourth], Fiber.join), [2, 2, 3])
    })
  )

  it.effect("tell a failure to all that share it, and to nobody else", () =>
    Effect.gen(function* () {
      const { begin, open } = looking()
      const first = yield* begin()
      const failing = yield* begin(Effect.fail("down"))
      const sharing = yield* begin()
      yield* open
      assert.strictEqual(yield* Fiber.join(first), 1)
      for (const fiber of [failing, sharing]) assert.strictEqual(yield* Effect.flip(Fiber.join(fiber)), "down")
      assert.strictEqual(yield* Fiber.join(yield* begin()), 2)
    })
  )

  it.effect("are made by another, if the one that was to look is interrupted before that", () =>
    Effect.gen(function* () {
      const { begin, counts, looks, open } = looking()
      const first = yield* begin()
      const leaving = yield* begin()
      const sharing = yield* Effect.replicateEffect(begin(), 2)
      yield* Fiber.interrupt(leaving)
      yield* settle
      assert.deepStrictEqual(counts(), { begun: 1, most: 1 })
      yield* open
      assert.strictEqual(yield* Fiber.join(first), 1)
      assert.deepStrictEqual(yield* Effect.forEach(sharing, Fiber.join), [2, 2])
      assert.deepStrictEqual(looks, makeLooks())
    })
  )

  it.effect("are made by another, if the one that looks for all is interrupted", () =>
    Effect.gen(function* () {
      const { begin, counts, looks, open } = looking()
      const first = yield* begin()
      const leaving = yield* begin()
      const sharing = yield* Effect.replicateEffect(begin(), 2)
      yield* Fiber.interrupt(first)
      yield* settle
      assert.strictEqual(counts().begun, 2)
      yield* Fiber.interrupt(leaving)
      yield* settle
      yield* open
      assert.deepStrictEqual(yield* Effect.forEach(sharing, Fiber.join), [3, 3])
      assert.deepStrictEqual(counts(), { begun: 3, most: 1 })
      assert.deepStrictEqual(looks, makeLooks())
    })
  )
})
