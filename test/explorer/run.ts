/**
 * Runs one schedule: starts its requests, delivers their responses to the cookie jars of its browsers, and checks at the
 * end what every token opens.
 */
import { Clock, Context, Effect, Exit, type Fiber, Random, Redacted, References, Scheduler } from "effect"
import type { SessionStoreError, SessionStoreOperations } from "effect-sessions"
import { makeDice } from "./draw.ts"
import { type Counts, type Entry, hashOf, Model, type Violation } from "./model.ts"
import { browsers, delay, type Fate, type Plan, type RequestPlan } from "./plan.ts"
import { Request, type Response, type Script, type SessionClass, type World } from "./requests.ts"
import { makeSimulation } from "./simulation.ts"
import { idleTimeout, lifetime, type Subject, touchInterval } from "./subject.ts"
import { CurrentCaller, makeVirtualStore, type PlantedFault } from "./virtualStore.ts"

/** Longer than a renewal may be pending, and than a tombstone stays. */
const grace = 61_000

/** Most schedules have about a hundred. */
const mostEvents = 3000

export interface Outcome {
  readonly violations: ReadonlyArray<Violation>
  readonly history: ReadonlyArray<string>
  readonly counts: Counts
}

export interface RunOptions {
  readonly subject: Subject
  readonly planted?: PlantedFault | undefined
  readonly keepsHistory?: boolean | undefined
}

interface Browser {
  jar: string | undefined
  isUnclear: boolean
  /** All cookies that were set, and when the request began that each came from. */
  readonly cookies: Array<{ readonly key: string; readonly started: number }>
  readonly told: Array<{ readonly response: Response; readonly started: number; readonly delivered: number }>
}

export const run = (plan: Plan, options: RunOptions): Outcome => new Run(plan, options).run()

class Run {
  readonly #plan: Plan
  readonly #subject: Subject
  readonly #classes: Array<SessionClass>
  /** Ends each running request, as if its process were killed. */
  readonly #underWay = new Map<RequestPlan, () => void>()
  readonly #simulation = makeSimulation()
  readonly #entries = new Map<string, Entry>()
  readonly #model: Model
  readonly #history: Array<string> = []
  readonly #keepsHistory: boolean
  readonly #browsers: ReadonlyArray<Browser>
  readonly #tokens: Array<string> = []
  readonly #servers: ReadonlyArray<SessionStoreOperations>
  readonly #base: Context.Context<never>
  readonly #world: World

  constructor(plan: Plan, { keepsHistory = false, planted, subject }: RunOptions) {
    this.#plan = plan
    this.#subject = subject
    this.#classes = [...subject.classesOf(plan)]
    this.#keepsHistory = keepsHistory
    const { now } = this.#simulation
    this.#model = new Model({
      now,
      entries: this.#entries,
      idleTimeout: plan.hasIdleTimeout ? idleTimeout : undefined,
      touchInterval,
      lifetime,
      maxSessions: plan.indexes?.max
    })
    const primitives = makeVirtualStore({
      simulation: this.#simulation,
      model: () => this.#model,
      entries: this.#entries,
      planted
    })
    const toError = (operation: SessionStoreError["operation"], cause: string) =>
      new subject.SessionStoreError({ operation, cause })
    this.#servers = [0, 1].map(() => subject.SessionStore.make(primitives, toError))
    this.#browsers = Array.from({ length: browsers }, () => ({
      jar: undefined,
      isUnclear: false,
      told: [],
      cookies: []
    }))
    this.#base = this.#makeBase()
    this.#world = {
      plan,
      model: this.#model,
      now,
      tokens: this.#tokens,
      jarOf: (browser) => this.#browsers[browser]?.jar,
      handOut: (token) => {
        if (!this.#tokens.includes(token)) this.#tokens.push(token)
      },
      say: (request, line) => this.#say(`${this.#nameOf(request)}`, line)
    }
  }

  #makeBase(): Context.Context<never> {
    const dice = makeDice(this.#plan.seed + 1)
    return Context.make(Clock.Clock, this.#simulation.clock).pipe(
      Context.add(Scheduler.Scheduler, this.#simulation.scheduler),
      Context.add(References.CurrentLoggers, new Set()),
      Context.add(Random.Random, {
        nextDoubleUnsafe: dice.next,
        nextIntUnsafe: () => dice.int(Number.MAX_SAFE_INTEGER)
      })
    )
  }

  #nameOf({ browser, id, server }: RequestPlan): string {
    return `request ${id} (browser ${browser}, server ${server})`
  }

  #say(who: string, line: () => string): void {
    if (!this.#keepsHistory) return
    const seconds = (this.#simulation.now() - 1_700_000_000_000) / 1000
    this.#history.push(`${seconds.toFixed(3).padStart(9)}  ${who}: ${line()}`)
  }

  run(): Outcome {
    const { after, run } = this.#simulation
    for (const request of this.#plan.requests) after(request.start, () => this.#start(request))
    for (const jump of this.#plan.jumps) {
      after(jump.at, () => {
        this.#simulation.jump(jump.by)
        this.#say("clock", () => `jumps by ${jump.by / 1000} s`)
        this.#model.onTime()
      })
    }
    const goOn = () => this.#model.violations.length === 0
    let events = 0
    run(() => {
      if (++events > mostEvents) this.#model.fail("it never came to rest", `${mostEvents} events`)
      return goOn()
    })
    if (goOn()) this.#checkBrowsers()
    this.#simulation.jump(grace)
    if (goOn()) this.#model.checkEnd()
    if (goOn()) this.#checkTokens()
    return {
      violations: this.#model.violations,
      history: this.#history,
      counts: this.#model.counts
    }
  }

  #start(plan: RequestPlan): void {
    const sessionClass = this.#classes[plan.server] as SessionClass
    let fiber: Fiber.Fiber<unknown, unknown> | undefined
    let isAborted = false
    let isOver = false
    const interrupt = () => fiber?.interruptUnsafe()
    const abort = () => {
      if (isOver) return
      isAborted = true
      request.caller.say(() => "is aborted by its client")
      request.onFailed()
      if (fiber === undefined) finish(request.giveUp())
      else interrupt()
    }
    const onHang = (fate: Fate) =>
      this.#simulation.after(20 + fate.lateness / 3, () => {
        if (isOver) return
        if (fate.isKill) this.#kill(plan.server)
        else if (fate.fault === "abort") abort()
        else interrupt()
      })
    const request = new Request(this.#world, plan, sessionClass, onHang)
    const context = this.#base.pipe(
      Context.add(this.#subject.SessionStore, this.#servers[plan.server] as SessionStoreOperations),
      Context.add(CurrentCaller, request.caller)
    )
    const script = request.run()
    const finish = (response: Response) => {
      if (isOver) return
      isOver = true
      this.#underWay.delete(plan)
      this.#respond(request, response)
    }
    this.#underWay.set(plan, () => {
      request.caller.say(() => "is killed, with its process")
      finish(request.onKilled())
    })
    const advance = (next: ReturnType<Script<Response>["next"]>) => {
      if (isOver) return
      if (isAborted) return finish(request.giveUp())
      if (next.done === true) return finish(next.value)
      if (typeof next.value === "number") {
        return this.#simulation.after(next.value, () => {
          if (!isOver) advance(script.next(Exit.void))
        })
      }
      const running = Effect.runForkWith(context)(next.value)
      fiber = running
      running.addObserver((exit) => {
        fiber = undefined
        advance(script.next(exit))
      })
    }
    if (plan.abortAt !== undefined) this.#simulation.after(plan.abortAt - plan.start, abort)
    advance(script.next(Exit.void))
  }

  /** Everything that a server is doing stops, and nothing is put back. It restarts immediately. */
  #kill(server: number): void {
    for (const [request, end] of this.#underWay) if (request.server === server) end()
    this.#classes[server] = this.#subject.makeClass(this.#plan)
  }

  #respond(request: Request, response: Response): void {
    const browser = this.#browsers[request.plan.browser] as Browser
    if (!response.isOk || request.plan.isLost) {
      browser.isUnclear ||= response.isUnclear || request.plan.isLost
      if (request.plan.isLost) request.onLost()
      request.caller.say(() => (request.plan.isLost ? "its response is lost" : "its browser shows an error"))
      return
    }
    this.#simulation.after(delay(this.#plan, request.plan.id, 92), () => this.#deliver(browser, request, response))
  }

  #deliver(browser: Browser, request: Request, response: Response): void {
    const { cookie } = response
    if (response.told !== undefined) {
      browser.told.push({ response, started: request.startedAt, delivered: this.#simulation.now() })
    }
    if (cookie === "removed") {
      request.caller.say(() => "its response removes the cookie")
      browser.jar = undefined
    } else if (cookie !== "untouched") {
      const [key, current] = [hashOf(cookie.token), browser.jar === undefined ? undefined : hashOf(browser.jar)]
      if (current !== undefined && current !== key && this.#isOlder(key, current)) {
        request.caller.say(() => `its response with the older token of ${this.#model.nameOf(key)} arrives late`)
        this.#model.counts.staleCookies++
        return
      }
      request.caller.say(() => `its response sets the cookie to the token of ${this.#model.nameOf(key)}`)
      browser.cookies.push({ key, started: request.startedAt })
      browser.jar = cookie.token
    } else {
      request.caller.say(() => "its response arrives")
    }
  }

  #isOlder(key: string, other: string): boolean {
    const [one, two] = [this.#model.keys.get(key), this.#model.keys.get(other)]
    return one !== undefined && two !== undefined && one.order < two.order && this.#model.areOneLine(key, other)
  }

  #checkBrowsers(): void {
    for (const [index, browser] of this.#browsers.entries()) this.#checkBrowser(index, browser)
  }

  /** Logged in if and only if the last log-in or log-out that the user saw succeed says so. */
  #checkBrowser(index: number, browser: Browser): void {
    const model = this.#model
    // Of several that overlap, each may be the last.
    const last = browser.told.filter(
      ({ delivered, started }) => !browser.told.some((later) => later.started >= delivered && later.started > started)
    )
    if (browser.isUnclear || last.length === 0) return
    const logIns = last.flatMap(({ delivered, response: { told } }) =>
      told?._tag === "LogIn" ? [{ ...told, delivered }] : []
    )
    const jarKey = browser.jar === undefined ? undefined : hashOf(browser.jar)
    const held = jarKey === undefined ? undefined : model.held(jarKey)
    const user = held?._tag === "Session" ? held.value.user : null
    if (logIns.length === 0) {
      const logOuts = last.flatMap(({ response: { told } }) => (told?._tag === "LogOut" ? [told.key] : []))
      const isSame = jarKey === undefined || logOuts.some((key) => key !== undefined && model.areOneLine(key, jarKey))
      if (!isSame) return
      model.counts.browsersChecked++
      if (user !== null) {
        model.fail("the browser is not what its user was told", `browser ${index} is still logged in as user ${user}`)
      }
      return
    }
    if (logIns.length < last.length) return
    if (logIns.some(({ key }) => model.isExcused(key))) return
    // It has another session from a request that overlapped the log-in.
    const isOther = !logIns.some(({ key }) => jarKey !== undefined && model.areOneLine(key, jarKey))
    const born = browser.cookies.filter(({ key }) => jarKey !== undefined && model.areOneLine(key, jarKey))
    // Or had one for a while, which has ended since.
    const isOfLogIn = (key: string) => logIns.some((logIn) => model.areOneLine(logIn.key, key))
    const later = browser.cookies.slice(browser.cookies.findLastIndex(({ key }) => isOfLogIn(key)) + 1)
    const overlaps = ({ started }: { readonly started: number }) => logIns.some(({ delivered }) => started <= delivered)
    if (isOther && (born.some(overlaps) || later.some(overlaps))) return
    model.counts.browsersChecked++
    if (!logIns.some((logIn) => logIn.user === user)) {
      const names = logIns.map((logIn) => logIn.user).join(" or ")
      model.fail("the browser is not what its user was told", `browser ${index} is user ${user}, not user ${names}`)
    }
  }

  /** What each token that was ever handed out opens by now. */
  #checkTokens(): void {
    const context = Context.add(this.#base, this.#subject.SessionStore, this.#servers[0] as SessionStoreOperations)
    for (const token of this.#tokens) {
      const key = hashOf(token)
      const held = this.#model.held(key)
      const opening = Effect.runForkWith(context)(
        Effect.flatMap((this.#classes[0] as SessionClass).open(Redacted.make(token)), (session) =>
          Effect.all([session.get, session.id, session.status])
        )
      )
      this.#simulation.settle()
      const exit = opening.pollUnsafe()
      if (exit === undefined || Exit.isFailure(exit)) {
        this.#model.fail("something died", `open of the token of ${this.#model.nameOf(key)}`)
        continue
      }
      const [value, , status] = exit.value
      const log = held?._tag === "Session" && status !== "ended" ? held.value.log : []
      if (value.log.join() !== log.join()) {
        this.#model.fail(
          "a token opens what it must not",
          `that of ${this.#model.nameOf(key)} shows [${value.log.join(", ")}], the store has [${log.join(", ")}]`
        )
      }
    }
  }
}
