/** Times in milliseconds: the longest, and what half of them and 99 of 100 do not exceed. */
export interface Times {
  readonly longest: number
  readonly p50: number
  readonly p99: number
}

export const timesOf = (millis: ReadonlyArray<number>): Times => {
  const sorted = Float64Array.from(millis).sort()
  const percentile = (percent: number) => sorted[Math.ceil((sorted.length * percent) / 100) - 1] ?? 0
  return { longest: percentile(100), p50: percentile(50), p99: percentile(99) }
}

export const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/**
 * Does some work, and returns how long the turns of the event loop were in the meantime: nothing else can run during
 * one.
 */
export const stallsDuring = async (work: () => unknown): Promise<Times> => {
  const turns: Array<number> = []
  let last = performance.now()
  let immediate: NodeJS.Immediate
  const turn = () => {
    const now = performance.now()
    turns.push(now - last)
    last = now
    immediate = setImmediate(turn)
  }
  immediate = setImmediate(turn)
  await work()
  await nextTurn()
  clearImmediate(immediate)
  return timesOf(turns)
}
