/**
 * Watches: if several fibers of one process wait for the same session to end, only one of them asks the store.
 *
 * ```
 * waiter ─┐
 * waiter ─┼─▶ Watch, one for each session: looks, sleeps, looks again ◀── poke ── Hub ◀── SessionEvents
 * waiter ─┘
 * ```
 *
 * A {@link Hub} has the watches of one session class in one store, and listens to the events of their sessions. An
 * event only makes a watch look immediately; what it finds in the store decides. A watch ends with its last waiter.
 */
import { Clock, Context, Effect, Exit, type Fiber, Result, Tracer } from "effect"
import type { SessionEvent, SessionEventBus } from "../SessionEvents.ts"
import type { SessionStoreError } from "../SessionStore.ts"

/**
 * How a session ended. `"destroyed"`: it was logged out or ended in another way. `"renewed"`: it continues under a
 * token that another request made, or was merged into another session. `"expired"`: its time was up.
 */
export type Ending = "destroyed" | "renewed" | "expired"

/** What a look found. `end` is when the session expires, as far as is known, in milliseconds. */
export type Verdict =
  | { readonly _tag: "Alive"; readonly text: string | undefined; readonly end: number }
  /** A renewal is in progress, or was cancelled a moment ago. */
  | { readonly _tag: "Moving"; readonly since: number; readonly end: number }
  | { readonly _tag: "Over"; readonly ending: Ending; readonly successor?: string }

export type Over = Extract<Verdict, { readonly _tag: "Over" }>

/** Looks up the session under a key. Given the last verdict, it need not decode the same text again. */
export type Look = (key: string, last: Exclude<Verdict, Over>) => Effect.Effect<Verdict, SessionStoreError>

export type Waiter = (exit: Exit.Exit<Over, SessionStoreError>) => void

/** How long a cancelled renewal may take to put the old session back, in milliseconds. */
export const movingTime = 1_000

/** For how many intervals the store may fail before the waiters are told. */
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
    // The context of the first waiter, without its span, which may end long before.
    this.runFork = Effect.runForkWith(Context.omit(Tracer.ParentSpan)(options.context))
    this.#close = close
  }

  /** Calls a waiter when the session under a key is over, until you call the function that this returns. */
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

/** Watches one session for all its waiters. */
class Watch {
  readonly waiters = new Set<Waiter>()
  readonly #hub: Hub
  readonly #key: string
  #last: Exclude<Verdict, Over>
  #fiber: Fiber.Fiber<void> | undefined
  #isLooking = false
  /** Whether an event arrived during a look. */
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

  /** Makes it look immediately. One fiber sleeps and looks; racing a sleep against a signal would take three. */
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

  /** The result for the waiters, if there is one. */
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
    // A waiter that leaves later has nothing to stop.
    this.waiters.clear()
    this.#hub.remove(this.#key)
    for (const waiter of waiters) waiter(exit)
  }

  /** The time until the next look, in milliseconds: at most until the session would expire. */
  get #pause(): number {
    const { recheckInterval } = this.#hub.options
    if (this.#last._tag === "Moving") return Math.min(recheckInterval, movingTime)
    const left = this.#last.end - this.#hub.clock.currentTimeMillisUnsafe() + 1
    return left > 0 ? Math.min(recheckInterval, left) : recheckInterval
  }
}

/** The hubs of one session class: one for each store and bus that has waiters. */
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
