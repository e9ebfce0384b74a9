/**
 * What a request costs in operations of the store: the table of docs/Session.md.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Option, type Redacted, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { MemStore, Session, SessionStore } from "effect-sessions"

const User = Schema.Struct({ userId: Schema.optionalKey(Schema.String), visits: Schema.optionalKey(Schema.Int) })

const options = { schema: User, initial: () => ({}), idleTimeout: "20 minutes" } as const

class Plain extends Session.Service<Plain>()("test/Plain", options) {}

class Indexed extends Session.Service<Indexed>()("test/Indexed", {
  ...options,
  indexes: { user: (value) => value.userId }
}) {}

class AtMostFive extends Session.Service<AtMostFive>()("test/AtMostFive", {
  ...options,
  indexes: { user: (value) => value.userId },
  maxSessions: { user: 5 }
}) {}

/** Says what a store was asked for since the last time. */
class Asked extends Context.Service<Asked, Effect.Effect<ReadonlyArray<string>>>()("test/Asked") {}

const Spy = Layer.effectContext(
  Effect.map(SessionStore, (store) => {
    let asked: Array<string> = []
    const note = <A, E>(operation: string, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
      Effect.suspend(() => {
        asked.push(operation)
        return effect
      })
    const spy = SessionStore.of({
      ...store,
      find: (token) => note("find", store.find(token)),
      create: (...args) => note("create", store.create(...args)),
      commit: (...args) => note("commit", store.commit(...args)),
      replace: (...args) => note("replace", store.replace(...args)),
      delete: (token) => note("delete", store.delete(token))
    })
    const take = Effect.sync(() => {
      const taken = asked
      asked = []
      return taken
    })
    return Context.make(SessionStore, spy).pipe(Context.add(Asked, take))
  })
).pipe(Layer.provide(MemStore.layerWithCleanupInterval(0)))

type UserClass = Pick<Session.ServiceClass<unknown, string, typeof User.Type>, "open">

type Token = Redacted.Redacted<string> | undefined

/** How many operations an effect takes. */
const count = Effect.fnUntraced(function* <A, E, R>(effect: Effect.Effect<A, E, R>) {
  const asked = yield* Asked
  yield* asked
  yield* effect
  return (yield* asked).length
})

/** Opens a session, does something to it, commits it, and returns its token. */
const request = (
  session: UserClass,
  token: Token,
  f: (opened: Session.Session<typeof User.Type>) => Effect.Effect<unknown, unknown>
) =>
  Effect.gen(function* () {
    const opened = yield* session.open(token)
    yield* f(opened)
    return Option.getOrUndefined(Option.map(yield* opened.commit, ({ token }) => token))
  })

const read = (opened: Session.Session<typeof User.Type>) => opened.get
const change = (opened: Session.Session<typeof User.Type>) =>
  opened.update((user) => ({ ...user, visits: (user.visits ?? 0) + 1 }))
const logIn = (opened: Session.Session<typeof User.Type>) =>
  Effect.andThen(
    opened.renewToken,
    opened.update((user) => ({ ...user, userId: "ada" }))
  )
const renew = (opened: Session.Session<typeof User.Type>) => opened.renewToken
const logOut = (opened: Session.Session<typeof User.Type>) => opened.destroy

/** The requests of a visitor, and what each takes. */
const costsOf = Effect.fnUntraced(function* (session: UserClass) {
  const costs: Record<string, number> = {}
  let token: Token
  const ask = (name: string, f: typeof read | typeof logIn | typeof logOut) =>
    Effect.map(
      count(
        Effect.map(request(session, token, f), (next) => {
          token = next
        })
      ),
      (operations) => {
        costs[name] = operations
      }
    )
  yield* ask("visitor", read)
  yield* ask("firstChange", change)
  yield* ask("read", read)
  yield* ask("change", change)
  yield* TestClock.adjust("2 minutes")
  yield* ask("touch", read)
  yield* ask("logIn", logIn)
  yield* ask("changeLoggedIn", change)
  yield* ask("renewal", renew)
  yield* ask("logOut", logOut)
  yield* ask("logInAtOnce", logIn)
  return costs
})

const test = <E>(title: string, body: () => Effect.Effect<void, E, SessionStore | Asked>) =>
  it.effect(title, () => Effect.provide(body(), Spy))

describe("operations of the store", () => {
  test("are as few as can be without an index", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* costsOf(Plain), {
        visitor: 0,
        firstChange: 1,
        read: 1,
        change: 2,
        touch: 2,
        logIn: 4,
        changeLoggedIn: 2,
        renewal: 4,
        logOut: 2,
        logInAtOnce: 1
      })
    }))

  test("are no more with an index, save for what changes or renews what belongs to it", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* costsOf(Indexed), {
        visitor: 0,
        firstChange: 1,
        read: 1,
        change: 2,
        touch: 2,
        logIn: 7,
        changeLoggedIn: 2,
        renewal: 9,
        logOut: 4,
        logInAtOnce: 4
      })
    }))

  test("grow with the sessions of the user, and with no others", () =>
    Effect.gen(function* () {
      for (let i = 0; i < 100; i++) yield* request(Indexed, undefined, change)
      for (let n = 1; n <= 4; n++) yield* request(Indexed, undefined, logIn)
      assert.strictEqual(yield* count(Stream.runDrain(Indexed.sessionsOf("user", "ada"))), 5)
      assert.strictEqual(yield* count(Indexed.destroyAllOf("user", "ada")), 12)
      assert.strictEqual(yield* count(Indexed.destroyAllOf("user", "ada")), 2)
      const token = yield* request(Indexed, undefined, change)
      const id = Option.getOrThrow(yield* (yield* Indexed.open(token)).id)
      assert.strictEqual(yield* count(Indexed.byId(id)), 1)
    }))

  test("of a log-in that is one too many end the oldest, and look for those that may be gone", () =>
    Effect.gen(function* () {
      for (let n = 1; n <= 5; n++) yield* request(AtMostFive, undefined, logIn)
      assert.strictEqual(yield* count(request(AtMostFive, undefined, logIn)), 8)
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* count(request(AtMostFive, undefined, logIn)), 13)
    }))
})
