/**
 * Chance that depends on a seed and on names, and on nothing else. What one request of a schedule draws stays the same
 * if another is taken out, which is what makes a schedule shrink.
 */

const mix = (hash: number, word: number): number => {
  let h = Math.imul(hash ^ word, 0x9e3779b1)
  h = Math.imul(h ^ (h >>> 15), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

/** A number from 0 up to 1. */
export const draw = (seed: number, ...names: ReadonlyArray<number>): number =>
  names.reduce((hash, name) => mix(hash, name + 0x7f4a7c15), mix(seed >>> 0, Math.floor(seed / 2 ** 32) + 1)) / 2 ** 32

/** Draws one after the other. */
export interface Dice {
  readonly next: () => number
  readonly int: (below: number) => number
  readonly chance: (probability: number) => boolean
  /** One of them, in proportion to its weight. */
  readonly weighted: <A>(weights: ReadonlyArray<readonly [weight: number, item: A]>) => A
}

export const makeDice = (seed: number): Dice => {
  let drawn = 0
  const next = () => draw(seed, ++drawn)
  return {
    next,
    int: (below) => Math.floor(next() * below),
    chance: (probability) => next() < probability,
    weighted: (weights) => {
      let rest = next() * weights.reduce((sum, [weight]) => sum + weight, 0)
      for (const [weight, item] of weights) {
        rest -= weight
        if (rest < 0) return item
      }
      return (weights.at(-1) as readonly [number, (typeof weights)[number][1]])[1]
    }
  }
}
