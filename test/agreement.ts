/**
 * Random operations on two stores, the same in each run, so a failure can be reproduced.
 */
import { assert } from "@effect/vitest"
import { type DateTime, Effect, Option } from "effect"
import type { SessionStoreOperations } from "effect-sessions"

/** Whole numbers below another one, by a Lehmer generator. */
export const makeBelow = () => {
  let seed = 42
  return (n: number): number => {
    seed = (seed * 48_271) % 2_147_483_647
    return seed % n
  }
}

/** Does one thing to both stores, and holds that both answer alike and have the same session afterwards. */
export const doToBoth = Effect.fnUntraced(function* <E>(
  store: SessionStoreOperations<E>,
  other: SessionStoreOperations<E>,
  below: (n: number) => number,
  {
    expiry,
    someText,
    token
  }: { readonly token: string; readonly expiry: DateTime.DateTime; readonly someText: () => string }
): Effect.fn.Return<void, E> {
  const data = someText()
  const held = Option.getOrElse(yield* other.find(token), someText)
  switch (below(4)) {
    case 0:
      yield* other.commit(token, data, expiry)
      yield* store.commit(token, data, expiry)
      break
    case 1:
      assert.strictEqual(
        yield* store.replace(token, held, data, expiry),
        yield* other.replace(token, held, data, expiry)
      )
      break
    case 2:
      assert.strictEqual(yield* store.create(token, data, expiry), yield* other.create(token, data, expiry))
      break
    case 3:
      if (below(3) > 0) break
      yield* other.delete(token)
      yield* store.delete(token)
  }
  assert.deepStrictEqual(yield* store.find(token), yield* other.find(token))
})
