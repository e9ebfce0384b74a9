/**
 * What a simulated request does with its session, and what it tells the model of what it meant and was told.
 */
import { Effect, Exit, Option, Redacted, Stream } from "effect"
import type { SessionStore } from "effect-sessions"
import { draw } from "./draw.ts"
import { indexOf, type Value } from "./held.ts"
import type { Listing, Revocation } from "./indexModel.ts"
import { hashOf, type Model } from "./model.ts"
import { type Action, delay, type Fate, fateOf, type Plan, type RequestPlan, type Step } from "./plan.ts"
import type { StoreCaller } from "./virtualStore.ts"

/** What the explorer uses of a session. */
export interface SessionUnderTest {
  readonly get: Effect.Effect<Value>
  readonly update: (f: (value: Value) => Value) => Effect.Effect<void>
  readonly renewToken: Effect.Effect<void, unknown>
  readonly destroy: Effect.Effect<void, unknown>
  readonly merge: (
    token: Redacted.Redacted<string>,
    combine: (value: Value, other: Value) => Value
  ) => Effect.Effect<void, unknown>
  readonly reload?: Effect.Effect<boolean, unknown>
  readonly status: Effect.Effect<string>
  readonly id: Effect.Effect<Option.Option<string>>
  readonly commit: Effect.Effect<
    Option.Option<{
      readonly token: Redacted.Redacted<string>
      readonly isTokenNew: boolean
      readonly isExpiryNew: boolean
    }>,
    unknown
  >
}

export interface SessionClass {
  readonly open: (
    token?: Redacted.Redacted<string>,
    options?: { readonly touch?: boolean }
  ) => Effect.Effect<SessionUnderTest, unknown, SessionStore>
  readonly sessions: Stream.Stream<SessionUnderTest, unknown, SessionStore>
  /** Without an index there is none to name. */
  readonly sessionsOf: (index: never, value: string) => Stream.Stream<SessionUnderTest, unknown, SessionStore>
  readonly destroyAllOf: (
    index: never,
    value: string,
    options?: { readonly except?: never }
  ) => Effect.Effect<number, unknown, SessionStore>
  readonly byId: (id: string) => Effect.Effect<Option.Option<SessionUnderTest>, unknown, SessionStore>
}

/** What became of a request, as its browser learns it. */
export interface Response {
  readonly isOk: boolean
  readonly cookie: { readonly token: string } | "removed" | "untouched"
  /** The last log-in or log-out in it that succeeded. */
  readonly told:
    | { readonly _tag: "LogIn"; readonly user: number; readonly key: string }
    | { readonly _tag: "LogOut"; readonly key: string | undefined }
    | undefined
  /** It meant to log in or out, or to renew, and its user does not know whether it did. */
  readonly isUnclear: boolean
}

export interface World {
  readonly plan: Plan
  readonly model: Model
  readonly now: () => number
  /** All tokens that were handed out so far, oldest first. */
  readonly tokens: ReadonlyArray<string>
  readonly jarOf: (browser: number) => string | undefined
  readonly handOut: (token: string) => void
  readonly say: (request: RequestPlan, line: () => string) => void
}

type Program = Effect.Effect<unknown, unknown, SessionStore>

/** A request asks for one effect after the other, or for a pause in milliseconds. */
export type Script<A> = Generator<Program | number, A, Exit.Exit<unknown, unknown>>

const redact = (token: string): Redacted.Redacted<string> => Redacted.make(token)

/** What a session shows at one moment. */
const peek = <A>(effect: Effect.Effect<A>): A => Effect.runSync(effect)

const tries = 3

export class Request {
  readonly plan: RequestPlan
  readonly token: string | undefined
  readonly startedAt: number
  readonly caller: StoreCaller
  readonly #world: World
  readonly #class: SessionClass
  key: string | undefined
  #step = 0
  #calls = 0
  #changes: Array<number> = []
  /** The keys of the sessions that it takes in, and what was last taken of each. */
  readonly #merges = new Map<string, ReadonlyArray<number>>()
  #told: Response["told"]
  #logIn: number | undefined
  /** All that it has meant to belong to. */
  readonly #values = new Set<string>()
  #openedAt: number
  #isKilled = false
  #meansToTell = false
  #isUnderWay = false
  /** How many writes had reached the store when it opened its session. */
  readonly #writes: number
  /** In this try, and in the worst of all tries. */
  #faults = 0
  #mostFaults = 0

  constructor(world: World, plan: RequestPlan, sessionClass: SessionClass, onHang: (fate: Fate) => void) {
    this.#world = world
    this.plan = plan
    this.#class = sessionClass
    this.startedAt = world.now()
    this.#openedAt = this.startedAt
    this.#writes = world.model.writes
    this.token = world.jarOf(plan.browser)
    const request = this
    this.caller = {
      id: plan.id,
      touch: plan.touch,
      get key() {
        return request.key
      },
      get openedAt() {
        return request.#openedAt
      },
      get isKilled() {
        return request.#isKilled
      },
      nextFate: (key) => {
        const isSpared = world.plan.budget === "one" && this.#faults > 0
        const fate = fateOf(world.plan, plan, this.#step, this.#calls++, isSpared)
        if (fate.fault !== "none") this.onFailed()
        // A caller that asks for a held session is releasing it, or putting it back after a fault.
        const isHeld = key !== undefined && world.model.held(key)?._tag === "Hold"
        if (fate.fault !== "none" && isHeld) this.#mostFaults = Math.max(this.#mostFaults, 2)
        return fate
      },
      onHang,
      say: (line) => world.say(plan, line)
    }
  }

  #say(line: () => string): void {
    this.#world.say(this.plan, line)
  }

  #chance(...names: ReadonlyArray<number>): number {
    return draw(this.#world.plan.seed, 7, this.plan.id, this.#step, ...names)
  }

  /** Tries again after a failure or a timeout, mostly. */
  *#attempt<A>(what: string, effect: Effect.Effect<A, unknown, SessionStore>, times = tries): Script<Option.Option<A>> {
    for (let attempt = 1; ; attempt++) {
      this.#faults = 0
      const exit = (yield effect) as Exit.Exit<A, unknown>
      if (Exit.isSuccess(exit)) return Option.some(exit.value)
      if (Exit.hasDies(exit)) this.#world.model.fail("something died", `${what}: ${String(exit.cause)}`)
      const goesOn = attempt < times && this.#chance(this.#calls, attempt) < 0.85
      this.#say(
        () => `${what} ${Exit.hasInterrupts(exit) ? "timed out" : "failed"}${goesOn ? ", and is tried again" : ""}`
      )
      if (!goesOn) return Option.none()
    }
  }

  /** The response, unless the client goes away first. */
  *run(): Script<Response> {
    const { model } = this.#world
    this.#say(
      () => `starts with ${this.token === undefined ? "no token" : `the token of ${model.nameOf(hashOf(this.token))}`}`
    )
    yield delay(this.#world.plan, this.plan.id, 90)
    this.#step = 99
    const token = this.token === undefined ? undefined : redact(this.token)
    const tokenKey = this.token === undefined ? undefined : hashOf(this.token)
    const expected = tokenKey === undefined ? [] : model.confirmedIn(tokenKey)
    this.key = tokenKey
    this.#openedAt = this.#world.now()
    const opened = yield* this.#attempt("open", this.#class.open(token, { touch: this.plan.touch }), 1)
    if (Option.isNone(opened)) return this.#failed()
    const session = opened.value
    this.key = this.#keyOf(session, tokenKey)
    this.#checkRead(session, expected, "opened")
    for (const step of this.plan.steps) {
      this.#step = step.id
      this.#calls = 0
      yield delay(this.#world.plan, this.plan.id, 100 + step.id)
      if (!(yield* this.#act(session, step))) return this.#failed()
    }
    this.#step = 98
    this.#calls = 0
    yield delay(this.#world.plan, this.plan.id, 91)
    return yield* this.#commit(session, true)
  }

  #keyOf(session: SessionUnderTest, tokenKey: string | undefined): string | undefined {
    const id = Option.getOrUndefined(peek(session.id))
    return id ?? (peek(session.status) === "ended" ? tokenKey : undefined)
  }

  #checkRead(session: SessionUnderTest, expected: ReadonlyArray<number>, how: string): void {
    const { model } = this.#world
    const value = peek(session.get)
    const status = peek(session.status)
    this.#say(
      () =>
        `${how}: ${status === "ended" ? "ended" : this.key === undefined ? "new" : model.nameOf(this.key)} [${value.log.join(", ")}]`
    )
    if (this.key === undefined || status === "ended") return
    // A merge that was not committed yet shows the other session too.
    if (this.#merges.size === 0) model.checkShown(this.key, value.log, this.plan.id)
    if (model.isExcused(this.key)) return
    const missing = expected.filter((change) => !value.log.includes(change))
    if (missing.length > 0) model.fail("what was read is out of date", `change ${missing.join(", ")} is missing`)
  }

  *#act(session: SessionUnderTest, { action }: Step): Script<boolean> {
    switch (action._tag) {
      case "Read":
        this.#say(() => `reads [${peek(session.get).log.join(", ")}]`)
        return true
      case "Update":
        return yield* this.#update(session, action.change)
      case "LogIn":
        this.#noteLogIn(action.user)
        yield session.update((value) => ({ ...value, user: action.user }))
        return yield* this.#renew(session)
      case "LogInByIndex":
        this.#noteLogIn(action.user)
        yield session.update((value) => ({ ...value, user: action.user }))
        this.#isUnderWay = true
        return true
      case "DestroyAllOf":
        return yield* this.#destroyAllOf(session, action)
      case "SessionsOf":
        return yield* this.#sessionsOf(action.value)
      case "ById":
        return yield* this.#byId(action.pick)
      case "Renew":
        this.#meansToTell = true
        this.#say(() => "renews the token")
        return yield* this.#renew(session)
      case "LogOut":
        return yield* this.#logOut(session)
      case "Merge":
        return yield* this.#merge(session, action)
      case "Reload":
        return yield* this.#reload(session)
      case "ListAndDestroy":
      case "ListAndUpdate":
        return yield* this.#list(action)
      case "Commit":
        return (yield* this.#commit(session, false)).isOk
    }
  }

  #noteLogIn(user: number): void {
    this.#meansToTell = true
    this.#logIn = user
    const value = indexOf({ user, log: [] })
    if (value !== undefined) this.#values.add(value)
    this.#say(() => `logs in as user ${user}`)
  }

  *#destroyAllOf(
    session: SessionUnderTest,
    { isSparing, value }: Action & { readonly _tag: "DestroyAllOf" }
  ): Script<boolean> {
    const indexes = this.#world.model.indexes
    if (indexes === undefined) return true
    this.#say(() => `ends all of ${value}${isSparing ? " but its own" : ""}`)
    let revocation: Revocation | undefined
    const attempt = Effect.suspend(() => {
      const spared = isSparing ? Option.getOrUndefined(peek(session.id)) : undefined
      revocation = indexes.onRevoking(this.caller, value, spared)
      // There are two kinds of class, and one has no index.
      return this.#class.destroyAllOf("user" as never, value, isSparing ? { except: session as never } : {})
    })
    const ended = yield* this.#attempt("destroyAllOf", attempt)
    indexes.onRevocationOver(this.caller, Option.isSome(ended) ? revocation : undefined)
    if (Option.isNone(ended)) return false
    this.#say(() => `is told that all of ${value} have ended, ${ended.value}`)
    return true
  }

  *#sessionsOf(value: string): Script<boolean> {
    const indexes = this.#world.model.indexes
    if (indexes === undefined) return true
    let listing: Listing | undefined
    const attempt = Effect.suspend(() => {
      listing = indexes.onListing(value)
      return Stream.runCollect(this.#class.sessionsOf("user" as never, value))
    })
    const listed = yield* this.#attempt("sessionsOf", attempt)
    if (Option.isNone(listed) || listing === undefined) return false
    const values = listed.value.map((session) => {
      const key = Option.getOrElse(peek(session.id), () => "")
      return [key, indexOf(peek(session.get))] as const
    })
    this.#say(() => `lists ${value}: ${values.map(([key]) => this.#world.model.nameOf(key)).join(", ")}`)
    indexes.onListed(value, listing, new Map(values))
    return true
  }

  /** A session whose token was handed out at some time. */
  *#byId(pick: number): Script<boolean> {
    const { model, tokens } = this.#world
    const token = tokens[Math.floor(pick * tokens.length)]
    if (token === undefined) return true
    const key = hashOf(token)
    let writes = 0
    let wasActive = false
    const attempt = Effect.suspend(() => {
      writes = model.writes
      wasActive = model.isActive(key)
      return this.#class.byId(key)
    })
    const found = yield* this.#attempt("byId", attempt)
    if (Option.isNone(found)) return false
    const isFound = Option.isSome(found.value)
    this.#say(() => `looks for ${model.nameOf(key)}: ${isFound ? "yes" : "no"}`)
    const isThere = wasActive && model.isActive(key) && (model.keys.get(key)?.activeSince ?? 0) <= writes
    if (isThere && !isFound) model.fail("a list lacks a session", model.nameOf(key))
    if (isFound && !model.wasActiveSince(key, writes)) {
      model.fail("a list has what is not to be in it", model.nameOf(key))
    }
    return true
  }

  *#update(session: SessionUnderTest, change: number): Script<boolean> {
    this.#say(() => `makes change ${change}`)
    this.#world.model.onChange(change, this.plan.id)
    this.#changes.push(change)
    yield session.update((value) => ({ ...value, log: [...value.log, change] }))
    return true
  }

  *#renew(session: SessionUnderTest): Script<boolean> {
    this.#isUnderWay = true
    return Option.isSome(yield* this.#attempt("renewToken", session.renewToken))
  }

  *#logOut(session: SessionUnderTest): Script<boolean> {
    const { key } = this
    const { model } = this.#world
    this.#meansToTell = true
    this.#say(() => "logs out")
    if (key !== undefined) model.onEnding(key)
    if (Option.isNone(yield* this.#attempt("destroy", session.destroy))) return false
    this.#say(() => "is told that it is logged out")
    if (key !== undefined) model.onEnded(key)
    this.key = undefined
    this.#changes = []
    this.#merges.clear()
    this.#logIn = undefined
    this.#told = { _tag: "LogOut", key }
    return true
  }

  *#merge(session: SessionUnderTest, { from, pick }: Action & { readonly _tag: "Merge" }): Script<boolean> {
    const { model, tokens, jarOf } = this.#world
    const token = from === "OtherBrowser" ? jarOf(1 - this.plan.browser) : tokens[Math.floor(pick * tokens.length)]
    if (token === undefined) return true
    const other = hashOf(token)
    this.#say(() => `merges ${model.nameOf(other)}`)
    this.#merges.set(other, [])
    const merge = session.merge(redact(token), (value, taken) => {
      this.#merges.set(other, taken.log)
      return { user: value.user, log: [...value.log, ...taken.log] }
    })
    return Option.isSome(yield* this.#attempt("merge", merge))
  }

  *#reload(session: SessionUnderTest): Script<boolean> {
    if (session.reload === undefined) return true
    const expected = this.key === undefined ? [] : this.#world.model.confirmedIn(this.key)
    const reloaded = yield* this.#attempt("reload", session.reload)
    if (Option.isNone(reloaded)) return false
    this.#checkRead(session, expected, reloaded.value ? "reloads" : "reloads, and is told that it has ended")
    return true
  }

  *#list(action: Action & { readonly _tag: "ListAndDestroy" | "ListAndUpdate" }): Script<boolean> {
    const { model } = this.#world
    const listed = yield* this.#attempt("list", Stream.runCollect(this.#class.sessions))
    if (Option.isNone(listed)) return false
    const sessions = listed.value.map((session) => ({ session, key: Option.getOrUndefined(peek(session.id)) }))
    this.#say(() => `lists ${sessions.map(({ key }) => model.nameOf(key ?? "")).join(", ")}`)
    for (const { key } of sessions) if (key !== undefined) this.#checkListed(key)
    const picked = sessions[Math.floor(action.pick * sessions.length)]
    if (picked?.key === undefined) return true
    yield delay(this.#world.plan, this.plan.id, 200 + this.#step)
    return action._tag === "ListAndDestroy"
      ? yield* this.#destroyListed(picked.session, picked.key)
      : yield* this.#updateListed(picked.session, picked.key, action.change)
  }

  /** What can still be called off is not to be listed. */
  #checkListed(key: string): void {
    const { model } = this.#world
    const known = model.keys.get(key)
    const before = known?.predecessor
    const held = model.held(key)
    if (
      held?._tag === "Pending" ||
      (before !== undefined && model.held(before)?._tag === "Pending" && !known?.isHanded)
    ) {
      model.fail("what is not handed out is listed", model.nameOf(key))
    }
  }

  *#destroyListed(session: SessionUnderTest, key: string): Script<boolean> {
    const { model } = this.#world
    this.#say(() => `ends ${model.nameOf(key)}`)
    model.onEnding(key)
    if (Option.isNone(yield* this.#attempt("destroy", session.destroy))) return false
    this.#say(() => `is told that ${model.nameOf(key)} has ended`)
    model.onEnded(key)
    return true
  }

  *#updateListed(session: SessionUnderTest, key: string, change: number): Script<boolean> {
    const { model } = this.#world
    this.#say(() => `makes change ${change} in ${model.nameOf(key)}`)
    model.onChange(change, this.plan.id)
    yield session.update((value) => ({ ...value, log: [...value.log, change] }))
    if (Option.isNone(yield* this.#attempt("commit", session.commit))) return false
    const hasEnded = peek(session.status) === "ended"
    this.#say(() => `is told that it is ${hasEnded ? "not " : ""}saved`)
    if (hasEnded) model.onDropped({ id: this.plan.id, key }, [change], this.startedAt, this.#writes)
    else model.onListedCommitted(key, [change])
    return true
  }

  *#commit(session: SessionUnderTest, isLast: boolean): Script<Response> {
    const { model } = this.#world
    const [changes, logIn] = [this.#changes, this.#logIn]
    this.#isUnderWay = true
    model.onCommitting(this.caller)
    const committed = yield* this.#attempt("commit", session.commit)
    model.onCommitOver(this.caller)
    if (Option.isNone(committed)) return this.#failed()
    this.#isUnderWay = false
    this.#changes = []
    this.#logIn = undefined
    if (Option.isNone(committed.value)) {
      const status = peek(session.status)
      this.#say(() => `commit: none, ${status}`)
      model.onDropped(this.caller, changes, this.startedAt, this.#writes, this.#values)
      // The log-in was refused, and what came before it in this request brings no cookie either.
      if (logIn !== undefined) this.#told = undefined
      this.#noteMerges()
      this.#merges.clear()
      return this.#respond(status === "destroyed" && this.token !== undefined ? "removed" : "untouched")
    }
    const { isExpiryNew, isTokenNew, token } = committed.value.value
    const text = Redacted.value(token)
    const key = hashOf(text)
    model.onCommitted(key, changes, this.caller, this.#taken(session))
    this.#say(() => `commit: the token of ${model.nameOf(key)}${isTokenNew ? ", a new one" : ""}`)
    model.checkShown(key, peek(session.get).log, this.plan.id)
    this.#world.handOut(text)
    this.#noteMerges()
    this.#merges.clear()
    this.key = key
    if (logIn !== undefined) this.#told = { _tag: "LogIn", user: logIn, key }
    model.checkIdle(key, this.startedAt, this.plan.touch)
    const isSent = isLast && (isTokenNew || (isExpiryNew && this.#world.plan.isPersistent))
    return this.#respond(isSent ? { token: text } : "untouched")
  }

  #noteMerges(): void {
    if (this.#merges.size === 0 || this.#mostFaults === 0) return
    this.#world.model.onMergeUnclear(this.caller, [...this.#merges.keys()], this.#writes)
  }

  /** What its merges brought, of what the session holds now. A merge of what had ended brings nothing. */
  #taken(session: SessionUnderTest): ReadonlyMap<string, ReadonlyArray<number>> {
    const { log } = peek(session.get)
    return new Map(
      [...this.#merges].map(([key, taken]) => [key, taken.every((change) => log.includes(change)) ? taken : []])
    )
  }

  #respond(cookie: Response["cookie"]): Response {
    return { isOk: true, cookie, told: this.#told, isUnclear: false }
  }

  #failed(): Response {
    this.giveUp()
    return { isOk: false, cookie: "untouched", told: undefined, isUnclear: this.#meansToTell }
  }

  /** For a while, the held value may exist nowhere else. */
  onFailed(): void {
    this.#mostFaults = Math.max(this.#mostFaults, ++this.#faults)
    this.#world.model.onFailed(this.caller, this.#merges.keys())
  }

  /** The client disconnects, or gets an error. */
  giveUp(): Response {
    this.#say(() => "gives up")
    if (this.#isUnderWay || this.#merges.size > 0)
      this.#world.model.onGivenUp(this.caller, [...this.#merges.keys()], this.#mostFaults > 1)
    return { isOk: false, cookie: "untouched", told: undefined, isUnclear: this.#meansToTell }
  }

  /** Its process is killed: it does nothing any more, and puts nothing back. */
  onKilled(): Response {
    this.#isKilled = true
    this.onFailed()
    this.#mostFaults = Math.max(this.#mostFaults, 2)
    return this.giveUp()
  }

  /** Its response is lost on the way. */
  onLost(): void {
    this.#world.model.onGivenUp(this.caller, [], true)
  }
}
