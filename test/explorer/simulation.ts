/**
 * Time and turns, in one thread and without a timer: events in the order of their time, each of which runs until no
 * fiber has anything left to do. Nothing depends on the event loop, so a schedule runs the same way each time.
 */
import { type Clock, type Duration, Duration as Durations, Effect, type Scheduler } from "effect"

interface Event {
  readonly time: number
  readonly order: number
  readonly run: () => void
}

export interface Simulation {
  readonly clock: Clock.Clock
  readonly scheduler: Scheduler.Scheduler
  /** Milliseconds since the simulation began, without the jumps of the clock. */
  readonly time: () => number
  /** What the clock shows. */
  readonly now: () => number
  readonly after: (delay: number, run: () => void) => void
  readonly jump: (by: number) => void
  /** Runs what fibers have to do by now. */
  readonly settle: () => void
  /** Runs all events, and those that they add, while `goOn` says so. */
  readonly run: (goOn: () => boolean) => void
}

/** When a simulation begins, in milliseconds since 1970. */
const epoch = 1_700_000_000_000

const makeClock = (now: () => number, sleep: (duration: Duration.Duration) => Effect.Effect<void>): Clock.Clock => ({
  currentTimeMillisUnsafe: now,
  currentTimeMillis: Effect.sync(now),
  currentTimeNanosUnsafe: () => BigInt(now()) * 1_000_000n,
  currentTimeNanos: Effect.sync(() => BigInt(now()) * 1_000_000n),
  monotonicTimeNanosUnsafe: () => BigInt(now()) * 1_000_000n,
  monotonicTimeNanos: Effect.sync(() => BigInt(now()) * 1_000_000n),
  sleep
})

export const makeSimulation = (): Simulation => {
  const events: Array<Event> = []
  let tasks: Array<() => void> = []
  let time = 0
  let jumped = 0
  let ordered = 0

  const settle = () => {
    for (let turns = 0; tasks.length > 0; turns++) {
      if (turns > 100_000) throw new Error("The fibers never come to rest")
      const due = tasks
      tasks = []
      for (const task of due) task()
    }
  }

  const now = () => epoch + Math.floor(time) + jumped

  const after = (delay: number, run: () => void) => {
    const event = { time: time + delay, order: ordered++, run }
    let index = events.length
    // Sorted with the earliest last; there are few.
    while (index > 0 && (events[index - 1] as Event).time <= event.time) index--
    events.splice(index, 0, event)
  }

  const sleep = (duration: Duration.Duration) =>
    Effect.callback<void>((resume) => {
      let isCancelled = false
      after(Math.max(Durations.toMillis(duration), 0), () => {
        if (!isCancelled) resume(Effect.void)
      })
      return Effect.sync(() => {
        isCancelled = true
      })
    })

  return {
    clock: makeClock(now, sleep),
    scheduler: {
      executionMode: "async",
      shouldYield: () => false,
      makeDispatcher: () => ({ scheduleTask: (task) => void tasks.push(task), flush: settle })
    },
    time: () => time,
    now,
    after,
    jump: (by) => {
      jumped += by
    },
    settle,
    run: (goOn) => {
      for (let event = events.pop(); event !== undefined && goOn(); event = events.pop()) {
        time = Math.max(time, event.time)
        event.run()
        settle()
      }
    }
  }
}
