/**
 * Watches: of all that wait in one process for one session to end, one looks.
 *
 * ```
 * waiter ─┐
 * waiter ─┼─▶ Watch, one for each session: looks, sleeps, looks again ◀── poke ── Hub ◀── SessionEvents
 * waiter ─┘
 * ```
 *
 * A {@link Hub} has the watches of one session class in one store, and hears what happens to their sessions. All that an
 * event does is to have a watch look at once; what it finds decides. A watch ends with its last waiter.
 */
import { Clock, Context, Effect, Exit, type Fiber, Result, Tracer } from "effect"
import type { SessionEvent, SessionEventBus } from "../SessionEvents.ts"
import type { SessionStoreError } from "../SessionStore.ts"

/**
 * How a session ended: it was logged out or ended otherwise; it goes on under a token that was made elsewhere, or in
 * another session that took it in; or its time was up.
 */
export type Ending = "destroyed" | "renewed" | "expired"

/** What a look has found. `end` is when the session expires, as far as is known, in milliseconds. */
export type Verdict =
  | { readonly _tag: "Alive"; readonly text: string | undefined; readonly end: number }
  /** A renewal is under way, or was called off a moment ago. */
  | { readonly _tag: "Moving"; readonly since: number; readonly end: number }
  | { readonly _tag: "Over"; readonly ending: Ending; readonly successor?: string }

export type Over = Extract<Verdict, { readonly _tag: "Over" }>

/** Looks what has become of the session under a key. What was seen there last spares it to read the same again. */
export type Look = (key: string, last: Exclude<Verdict, Over>) => Effect.Effect<Verdict, SessionStoreError>

export type Waiter = (exit: Exit.Exit<Over, SessionStoreError>) => void

/** How long a renewal that is called off may take to put the old session back, in milliseconds. */
export const movingTime = 1_000

/** How many intervals long the store may fail before those who wait are told. */
const patience = 3

interface HubOptions {
  /** In milliseconds. */
  readonly recheckInterval: number
  readonly look: Look
  readonly bus: SessionEventBus
  readonly context: Context.Context<never>
}

/** The watches of one session class in one store. */
class Hub {
  readonly options: HubOptions
  readonly clock: Clock.Clock
  readonly runFork: <E>(effect: Effect.Effect<void, E>) => Fiber.Fiber<void, E>
  readonly #watches = new Map<string, Watch>()
  readonly #close: () => void
  #stop: (() => void) | undefined

  constructor(options: HubOptions, close: () => void) {
    this.options = options
    this.clock = Context.get(options.context, Clock.Clock)
    // That of the first one who waits, whose span may end long before.
    this.runFork = Effect.runForkWith(Context.omit(Tracer.ParentSpan)(options.context))
    this.#close = close
  }

  /** Has a waiter told when the session under a key is over, until the function that this returns is called. */
  join(key: string, end: number, waiter: Waiter): () => void {
    this.#stop ??= this.options.bus.listen((event) => this.#hear(event))
    const known = this.#watches.get(key)
    const watch = known ?? new Watch(this, key, end)
    watch.waiters.add(waiter)
    if (known === undefined) {
      this.#watches.set(key, watch)
      watch.start()
    }
    return () => {
      if (watch.waiters.delete(waiter) && watch.waiters.size === 0) watch.stop()
    }
  }

  remove(key: string): void {
    this.#watches.delete(key)
    if (this.#watches.size > 0) return
    this.#stop?.()
    this.#stop = undefined
    this.#close()
  }

  #hear(event: SessionEvent): void {
    this.#watches.get(event._tag === "Renewed" ? event.former : event.id)?.poke()
  }
}

/** Looks after one session for all who wait for it. */
class Watch {
  readonly waiters = new Set<Waiter>()
  readonly #hub: Hub
  readonly #key: string
  #last: Exclude<Verdict, Over>
  #fiber: Fiber.Fiber<void> | undefined
  #isLooking = false
  /** Whether an event came while it was looking. */
  #isPoked = false
  #failingSince: number | undefined

  constructor(hub: Hub, key: string, end: number) {
    this.#hub = hub
    this.#key = key
    this.#last = { _tag: "Alive", text: undefined, end }
  }

  start(): void {
    this.#fiber = this.#hub.runFork(this.#run)
  }

  stop(): void {
    this.#fiber?.interruptUnsafe()
    this.#hub.remove(this.#key)
  }

  /** Has it look at once. One fiber sleeps and looks; to race it against a signal would take three. */
  poke(): void {
    this.#isPoked = this.#isLooking
    if (this.#isLooking) return
    this.#fiber?.interruptUnsafe()
    this.start()
  }

  get #run(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.#isLooking = true
      return Effect.flatMap(Effect.exit(this.#hub.options.look(this.#key, this.#last)), (exit) => {
        this.#isLooking = false
        const over = this.#judge(exit)
        if (over !== undefined) return Effect.sync(() => this.#tell(over))
        if (this.#isPoked) {
          this.#isPoked = false
          return this.#run
        }
        return Effect.andThen(Effect.sleep(this.#pause), this.#run)
      })
    })
  }

  /** What those who wait are told, if anything. */
  #judge(exit: Exit.Exit<Verdict, SessionStoreError>): Exit.Exit<Over, SessionStoreError> | undefined {
    if (Exit.isFailure(exit)) {
      const now = this.#hub.clock.currentTimeMillisUnsafe()
      const { recheckInterval } = this.#hub.options
      this.#failingSince ??= now
      const isPatient = Number.isFinite(recheckInterval) && now - this.#failingSince < patience * recheckInterval
      return isPatient && Result.isSuccess(Exit.findError(exit)) ? undefined : Exit.failCause(exit.cause)
    }
    this.#failingSince = undefined
    if (exit.value._tag === "Over") return Exit.succeed(exit.value)
    this.#last = exit.value
    return undefined
  }

  #tell(exit: Exit.Exit<Over, SessionStoreError>): void {
    const waiters = [...this.waiters]
    // Those who leave later have nothing to stop.
    this.waiters.clear()
    this.#hub.remove(this.#key)
    for (const waiter of waiters) waiter(exit)
  }

  /** Until the next look, in milliseconds: no longer than to the instant at which the session expires if it is not used. */
  get #pause(): number {
    const { recheckInterval } = this.#hub.options
    if (this.#last._tag === "Moving") return Math.min(recheckInterval, movingTime)
    const left = this.#last.end - this.#hub.clock.currentTimeMillisUnsafe() + 1
    return left > 0 ? Math.min(recheckInterval, left) : recheckInterval
  }
}

/** The hubs of one session class: one for each store and bus where somebody waits, and no other. */
export class Hubs {
  readonly #stores = new WeakMap<object, Map<SessionEventBus, Hub>>()

  get(store: object, bus: SessionEventBus, options: () => HubOptions): Hub {
    const hubs = this.#stores.get(store) ?? new Map<SessionEventBus, Hub>()
    this.#stores.set(store, hubs)
    const known = hubs.get(bus)
    if (known !== undefined) return known
    const hub = new Hub(options(), () => hubs.delete(bus))
    hubs.set(bus, hub)
    return hub
  }
}
