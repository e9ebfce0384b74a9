/**
 * The tests of indexes on a store: two servers on the same data, and everything that can be in progress on one of them
 * while the other ends the sessions of a user.
 */
import { Context, DateTime, Effect, HashMap, Layer, Logger, Option, Redacted, Schema, type Scope, Stream } from "effect"
import * as TestClock from "effect/testing/TestClock"
import type * as Session from "../Session.ts"
import { Service } from "../Session.ts"
import { SessionStore } from "../SessionStore.ts"
import { assertEqual, isTestClock } from "./assertions.ts"
import type { Tester } from "./tester.ts"

const key = "effect-sessions/SessionStoreTest"

const Account = Schema.Struct({ user: Schema.optionalKey(Schema.String), device: Schema.String })

type Account = typeof Account.Type

const options = {
  schema: Account,
  initial: (): Account => ({ device: "" }),
  indexes: { user: ({ user }: Account) => user },
  maxSessions: { user: 5 }
}

// A class orders its own commits, so two classes with one key act like two processes.
class Here extends Service<Here>()(key, options) {}
class There extends Service<There>()(key, options) {}

/** The class of another version, whose sessions do not decode with the schema of this one. */
class Older extends Service<Older>()(key, {
  schema: Schema.Struct({ user: Schema.String }),
  initial: () => ({ user: "" }),
  indexes: { user: ({ user }) => user }
}) {}

type Sessions = Pick<
  Session.ServiceClass<unknown, string, Account, "user">,
  "open" | "sessions" | "sessionsOf" | "destroyAllOf" | "byId"
>

type Token = Redacted.Redacted<string>

const devices = <E>(sessions: Stream.Stream<Session.Session<Account>, E, SessionStore>) =>
  Stream.runCollect(Stream.mapEffect(sessions, (session) => Effect.map(session.get, ({ device }) => device)))

/** What an application does, on one server. */
const serverOf = (sessions: Sessions, store: SessionStore["Service"]) => {
  const run = Effect.provideService(SessionStore, store)
  const open = (token?: Token) => run(sessions.open(token))
  return {
    store,
    open,
    devices: run(devices(sessions.sessions)),
    devicesOf: (user: string) => run(devices(sessions.sessionsOf("user", user))),
    byId: (id: string) => run(sessions.byId(id)),
    userOf: (token: Token) => Effect.flatMap(open(token), userIn),
    destroyAllOf: (user: string, except?: Session.Session<Account>) =>
      run(sessions.destroyAllOf("user", user, { except })),
    /** A session whose user has logged in, in a request that is still running. */
    beginLogIn: (user: string, device: string) => Effect.tap(open(), (session) => session.set({ user, device }))
  }
}

type Server = ReturnType<typeof serverOf>

/** Two servers on the same data. */
interface Servers {
  readonly here: Server
  readonly there: Server
}

/** The token that a commit returns, if the session has not ended. */
const tokenOf = (session: Session.Session<Account>) =>
  Effect.map(
    session.commit,
    Option.map(({ token }) => token)
  )

const userIn = (session: Session.Session<Account>) => Effect.map(session.get, ({ user }) => user)

const idOf = (session: Session.Session<Account>) => Effect.map(session.id, Option.getOrThrow)

/** Logs a user in, and returns the token. */
const logIn = Effect.fnUntraced(function* (server: Server, user: string, device: string) {
  return Option.getOrThrow(yield* tokenOf(yield* server.beginLogIn(user, device)))
})

const range = (length: number): ReadonlyArray<number> => Array.from({ length }, (_, i) => i)

/** Lets a few milliseconds pass. */
const moment = Effect.flatMap(isTestClock, (isTest) =>
  isTest ? TestClock.adjust("5 millis") : Effect.sleep("5 millis")
)

/** A commit that loses a compare-and-set waits a moment. This lets the moment pass, under any clock. */
const passing = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.flatMap(isTestClock, (isTest) =>
    isTest
      ? Effect.raceFirst(effect, Effect.forever(Effect.andThen(Effect.yieldNow, TestClock.adjust("1 millis"))))
      : effect
  )

const atOnce = <A, E>(effects: ReadonlyArray<Effect.Effect<A, E>>): Effect.Effect<ReadonlyArray<A>, E> =>
  passing(Effect.all(effects, { concurrency: "unbounded" }))

/** A store that runs `meanwhile` to its end before one operation: the n-th after `count`. */
const storeWith = (store: SessionStore["Service"], n: number, meanwhile: Effect.Effect<unknown, unknown>) => {
  let left = Number.POSITIVE_INFINITY
  const within =
    <Args extends ReadonlyArray<unknown>, A, E>(operation: (...args: Args) => Effect.Effect<A, E>) =>
    (...args: Args): Effect.Effect<A, E> =>
      Effect.suspend(() =>
        left-- === 0 ? Effect.andThen(Effect.orDie(meanwhile), operation(...args)) : operation(...args)
      )
  return {
    count: () => {
      left = n
    },
    /** Whether there were fewer operations. */
    isOver: () => left >= 0,
    store: SessionStore.of({
      ...store,
      find: within(store.find),
      create: within(store.create),
      replace: within(store.replace),
      delete: within(store.delete)
    })
  }
}

/** How many of the tokens open the session of a user, on either server. */
const openOf = Effect.fnUntraced(function* ({ here, there }: Servers, tokens: ReadonlyArray<Token>) {
  const onHere = yield* Effect.filter(tokens, (token) => Effect.map(here.userOf(token), (user) => user !== undefined))
  const onThere = yield* Effect.filter(tokens, (token) => Effect.map(there.userOf(token), (user) => user !== undefined))
  assertEqual(onHere.length, onThere.length)
  return onHere.length
})

const silently = Effect.provide(Logger.layer([]))

type Test = (title: string, body: (servers: Servers) => Effect.fn.Return<void, unknown>) => void

const testMembers = (test: Test) => {
  test("a log-in joins: every server finds it by its user, in the order of the log-ins", function* ({ here, there }) {
    yield* logIn(here, "ada", "laptop")
    yield* logIn(there, "grace", "desktop")
    yield* logIn(there, "ada", "phone")
    for (const server of [here, there]) {
      assertEqual(yield* server.devicesOf("ada"), ["laptop", "phone"])
      assertEqual(yield* server.devicesOf("grace"), ["desktop"])
      assertEqual(yield* server.devicesOf("nobody"), [])
    }
  })

  test("a change of user moves the session, and renews its token", function* (servers) {
    const { here, there } = servers
    const before = yield* logIn(here, "ada", "laptop")
    const session = yield* there.open(before)
    yield* session.update((account) => ({ ...account, user: "grace" }))
    const after = Option.getOrThrow(yield* tokenOf(session))
    assertEqual([yield* here.devicesOf("ada"), yield* here.devicesOf("grace")], [[], ["laptop"]])
    assertEqual([yield* here.userOf(before), yield* here.userOf(after)], [undefined, "grace"])
    assertEqual(yield* there.destroyAllOf("ada"), 0)
    assertEqual(yield* openOf(servers, [after]), 1)
  })

  test("a renewal and a log-out leave the list as they should: with the session once, and without", function* (servers) {
    const { here, there } = servers
    const session = yield* there.open(yield* logIn(here, "ada", "laptop"))
    yield* session.renewToken
    const token = Option.getOrThrow(yield* tokenOf(session))
    assertEqual(yield* here.devicesOf("ada"), ["laptop"])
    yield* (yield* here.open(token)).destroy
    assertEqual(yield* there.devicesOf("ada"), [])
    assertEqual(yield* openOf(servers, [token]), 0)
  })

  test("byId finds one session by its public id, to be ended, and nothing else", function* (servers) {
    const { here, there } = servers
    const token = yield* logIn(here, "ada", "laptop")
    const id = yield* idOf(yield* here.open(token))
    const found = Option.getOrThrow(yield* there.byId(id))
    assertEqual(yield* found.get, { user: "ada", device: "laptop" })
    for (const other of [Redacted.value(token), "", id.slice(1)]) {
      assertEqual(Option.isNone(yield* there.byId(other)), true)
    }
    yield* found.destroy
    assertEqual(Option.isNone(yield* here.byId(id)), true)
    assertEqual(yield* openOf(servers, [token]), 0)
  })

  test("a session that has expired is neither listed nor ended", function* ({ here, there }) {
    const session = yield* here.beginLogIn("ada", "laptop")
    yield* session.setDeadline(DateTime.add(yield* DateTime.now, { seconds: 1 }))
    yield* session.commit
    yield* logIn(there, "ada", "phone")
    assertEqual(yield* there.devicesOf("ada"), ["laptop", "phone"])
    yield* (yield* isTestClock) ? TestClock.adjust("1100 millis") : Effect.sleep("1100 millis")
    assertEqual(yield* there.devicesOf("ada"), ["phone"])
    assertEqual(yield* there.destroyAllOf("ada"), 1)
  })

  test("tombstones and index records are neither opened nor listed", function* ({ here, there }) {
    const former = yield* logIn(here, "ada", "laptop")
    const session = yield* there.open(former)
    yield* session.renewToken
    yield* session.commit
    const id = yield* idOf(session)
    const keys = [...HashMap.keys(yield* here.store.all)]
    // The session, its tombstone and the record of its user.
    assertEqual(keys.length, 3)
    for (const server of [here, there]) {
      assertEqual(yield* server.devices, ["laptop"])
      for (const held of keys) {
        assertEqual(yield* (yield* server.open(Redacted.make(held))).id, Option.none())
        assertEqual(Option.isSome(yield* server.byId(held)), held === id)
      }
    }
  })
}

const testRevocation = (test: Test) => {
  test("destroyAllOf ends all sessions of a user but one, on every server", function* (servers) {
    const { here, there } = servers
    const tokens = [yield* logIn(here, "ada", "laptop"), yield* logIn(there, "ada", "phone")]
    const mine = yield* logIn(here, "ada", "tablet")
    const grace = yield* logIn(here, "grace", "desktop")
    assertEqual(yield* there.destroyAllOf("ada", yield* there.open(mine)), 2)
    assertEqual([yield* openOf(servers, tokens), yield* openOf(servers, [mine, grace])], [0, 2])
    assertEqual(yield* here.devicesOf("ada"), ["tablet"])
    assertEqual(yield* here.destroyAllOf("ada"), 1)
    assertEqual([yield* openOf(servers, [mine]), yield* openOf(servers, [grace])], [0, 1])
    assertEqual(yield* there.devicesOf("ada"), [])
  })

  test("no log-in whose request began before destroyAllOf saves anything, and later ones do", function* (servers) {
    const { here, there } = servers
    const slow = yield* here.beginLogIn("ada", "laptop")
    yield* moment
    assertEqual(yield* there.destroyAllOf("ada"), 0)
    assertEqual(yield* tokenOf(slow), Option.none())
    assertEqual(yield* slow.status, "ended")
    assertEqual(HashMap.size(yield* here.store.all), 1)
    yield* moment
    assertEqual(yield* openOf(servers, [yield* logIn(here, "ada", "laptop")]), 1)
  })

  test("no log-in escapes a destroyAllOf at the same time", function* (servers) {
    const { here, there } = servers
    for (const round of range(10)) {
      const user = `user ${round}`
      const logIns = yield* Effect.forEach([here, there, here, there], (server) => server.beginLogIn(user, "device"))
      const tokens: Array<Token> = []
      const commits = logIns.map((session) =>
        Effect.map(tokenOf(session), (token) => tokens.push(...Option.toArray(token)))
      )
      yield* atOnce([...commits.slice(0, 2), there.destroyAllOf(user), ...commits.slice(2)])
      assertEqual(yield* openOf(servers, tokens), 0)
      assertEqual([yield* here.devicesOf(user), yield* there.devicesOf(user)], [[], []])
    }
  })

  test("no renewal and no change under way escapes a destroyAllOf, save that which it spares", function* (servers) {
    const { here, there } = servers
    for (const round of range(10)) {
      const user = `user ${round}`
      const tokens = yield* Effect.forEach(range(4), () => logIn(here, user, "device"))
      const mine = yield* logIn(there, user, "mine")
      const spared = yield* there.open(mine)
      const commits = yield* Effect.forEach(tokens, (token, i) =>
        Effect.gen(function* () {
          const session = yield* (i % 2 === 0 ? here : there).open(token)
          yield* i < 2 ? session.renewToken : session.update((account) => ({ ...account, device: "changed" }))
          return Effect.map(tokenOf(session), (next) => tokens.push(...Option.toArray(next)))
        })
      )
      yield* atOnce([...commits.slice(0, 2), here.destroyAllOf(user, spared), ...commits.slice(2)])
      assertEqual([yield* openOf(servers, tokens), yield* openOf(servers, [mine])], [0, 1])
      assertEqual(yield* there.devicesOf(user), ["mine"])
    }
  })
}

/** What may be in progress when all sessions of a user end: each begins on a server, and returns the rest. */
const underWay: Readonly<
  Record<string, (server: Server, token: Token) => Effect.Effect<Session.Session<Account>, unknown>>
> = {
  "a log-in": (server) => server.beginLogIn("ada", "phone"),
  "a log-in of a visitor": (server) =>
    Effect.gen(function* () {
      const visitor = yield* server.open()
      yield* visitor.set({ device: "phone" })
      const session = yield* server.open(Option.getOrThrow(yield* tokenOf(visitor)))
      yield* session.update((account) => ({ ...account, user: "ada" }))
      return session
    }),
  "a renewal": (server, token) => Effect.tap(server.open(token), (session) => session.renewToken),
  "a change": (server, token) =>
    Effect.tap(server.open(token), (session) => session.update((account) => ({ ...account, device: "changed" })))
}

const testSteps = (test: Test) => {
  for (const [what, begin] of Object.entries(underWay)) {
    test(`${what} escapes no destroyAllOf that comes between any two of its operations`, function* (servers) {
      const { here, there } = servers
      for (let n = 0, isOver = false; !isOver; n++) {
        const token = yield* logIn(there, "ada", "laptop")
        const tokens = [token]
        const steps = storeWith(here.store, n, there.destroyAllOf("ada"))
        const session = yield* begin(serverOf(Here, steps.store), token)
        steps.count()
        tokens.push(...Option.toArray(yield* passing(tokenOf(session))))
        isOver = steps.isOver()
        if (isOver) yield* there.destroyAllOf("ada")
        assertEqual(yield* openOf(servers, tokens), 0)
        assertEqual(yield* there.devicesOf("ada"), [])
        yield* moment
      }
    })

    test(`${what} escapes no destroyAllOf between any two of whose operations it comes`, function* (servers) {
      const { here, there } = servers
      for (let n = 0, isOver = false; !isOver; n++) {
        const token = yield* logIn(there, "ada", "laptop")
        const tokens = [token]
        const session = yield* begin(here, token)
        const commit = Effect.map(tokenOf(session), (token) => tokens.push(...Option.toArray(token)))
        const steps = storeWith(there.store, n, commit)
        steps.count()
        yield* passing(serverOf(There, steps.store).destroyAllOf("ada"))
        isOver = steps.isOver()
        if (isOver) yield* commit
        assertEqual(yield* openOf(servers, tokens), 0)
        assertEqual(yield* here.devicesOf("ada"), [])
        yield* moment
      }
    })
  }

  test("a destroyAllOf that breaks off at any point hides no session from the next", function* (servers) {
    const { here, there } = servers
    for (let n = 0, isOver = false; !isOver; n++) {
      const tokens = yield* Effect.forEach(range(3), () => logIn(here, "ada", "laptop"))
      const steps = storeWith(here.store, n, Effect.die(new Error("The process dies")))
      steps.count()
      yield* Effect.exit(serverOf(Here, steps.store).destroyAllOf("ada"))
      isOver = steps.isOver()
      yield* there.destroyAllOf("ada")
      assertEqual(yield* openOf(servers, tokens), 0)
      assertEqual(yield* there.devicesOf("ada"), [])
      yield* moment
    }
  })
}

const testMaxSessions = (test: Test) => {
  test("maxSessions leaves exactly five of twenty log-ins at once, on two servers", function* (servers) {
    const { here, there } = servers
    const tokens = yield* atOnce(
      range(20).map((i) =>
        Effect.flatMap((i % 2 === 0 ? here : there).beginLogIn("ada", `device ${i}`), (session) => tokenOf(session))
      )
    )
    assertEqual(
      yield* openOf(
        servers,
        tokens.flatMap((token) => Option.toArray(token))
      ),
      5
    )
    assertEqual([(yield* here.devicesOf("ada")).length, (yield* there.devices).length], [5, 5])
  })

  test("maxSessions ends the oldest", function* (servers) {
    const { here, there } = servers
    const tokens = yield* Effect.forEach(range(7), (i) => logIn(i % 2 === 0 ? here : there, "ada", `device ${i}`))
    assertEqual(yield* openOf(servers, tokens.slice(0, 2)), 0)
    assertEqual(yield* openOf(servers, tokens.slice(2)), 5)
    assertEqual(
      yield* there.devicesOf("ada"),
      range(5).map((i) => `device ${i + 2}`)
    )
  })
}

const testUndecodable = (test: Test) => {
  /** Logs in with the class of the other version, and returns the key of the session. */
  const logInOlder = Effect.fnUntraced(function* (server: Server) {
    const session = yield* Effect.provideService(Older.open(), SessionStore, server.store)
    yield* session.set({ user: "ada" })
    yield* session.commit
    return Option.getOrThrow(yield* session.id)
  })

  test("a session that does not decode is not listed, and ends with the others", function* (servers) {
    const { here, there } = servers
    const first = yield* logIn(here, "ada", "laptop")
    const older = yield* logInOlder(there)
    const last = yield* logIn(there, "ada", "phone")
    assertEqual(yield* silently(here.devicesOf("ada")), ["laptop", "phone"])
    assertEqual(Option.isSome(yield* here.store.find(older)), true)
    assertEqual(yield* silently(here.destroyAllOf("ada")), 3)
    assertEqual(Option.isNone(yield* there.store.find(older)), true)
    assertEqual(yield* openOf(servers, [first, last]), 0)
  })

  test("a session that does not decode counts among maxSessions, and is ended as the oldest", function* (servers) {
    const { here, there } = servers
    const older = yield* logInOlder(there)
    const tokens = yield* silently(Effect.forEach(range(5), (i) => logIn(here, "ada", `device ${i}`)))
    assertEqual(Option.isNone(yield* there.store.find(older)), true)
    assertEqual(yield* openOf(servers, tokens), 5)
  })
}

/**
 * Two services of a store on the same data, if the caller passes a function to build them; otherwise the same one
 * twice.
 */
const storesOf = Effect.fnUntraced(function* <E, R>(
  layer: Layer.Layer<SessionStore, E, R> | ((name: string) => Layer.Layer<SessionStore, E, R>)
): Effect.fn.Return<readonly [SessionStore["Service"], SessionStore["Service"]], E, R | Scope.Scope> {
  const build = (layer: Layer.Layer<SessionStore, E, R>) =>
    Effect.map(Layer.build(Layer.fresh(layer)), Context.get(SessionStore))
  if (typeof layer !== "function") {
    const store = yield* build(layer)
    return [store, store]
  }
  const name = `sessions_${crypto.randomUUID().replaceAll("-", "")}`
  return [yield* build(layer(name)), yield* build(layer(name))]
})

/**
 * Registers tests of the indexes of a session class on a store: `sessionsOf`, `destroyAllOf`, `byId` and `maxSessions`,
 * with two servers on the same data.
 *
 * **When to use**: together with {@link suite}, in the tests of your own store. Indexes need only the contract of a
 * store. These tests show that they work on yours, whatever is in progress on two servers.
 *
 * **Details**: each test has a title that begins with the name, and builds the layer again, which has to provide an
 * empty store. If processes can share the store, pass a function instead. Each test calls it twice with the same new
 * name, of lower-case letters, digits and `_`. It returns the layer of a store that keeps its data under that name: in
 * a table, under a prefix, or in a file. The two stores act as two servers. With a layer, the two servers use one
 * store. For the tester, see {@link suite}.
 *
 * @example
 * ```ts
 * import { it } from "@effect/vitest"
 * import { MemStore } from "effect-sessions"
 * import { SessionStoreTest } from "effect-sessions/testing"
 *
 * SessionStoreTest.indexes("MemStore", MemStore.layer, it.effect)
 * ```
 *
 * @example
 * ```ts no-run
 * import { NodeRedis } from "@effect/platform-node"
 * import { it } from "@effect/vitest"
 * import { Layer } from "effect"
 * import { RedisStore } from "effect-sessions/redis"
 * import { SessionStoreTest } from "effect-sessions/testing"
 *
 * const redis = NodeRedis.layer({ url: "redis://localhost:6379" })
 *
 * SessionStoreTest.indexes(
 *   "RedisStore",
 *   (name) => Layer.provide(RedisStore.layerWith({ prefix: name }), redis),
 *   it.live
 * )
 * ```
 */
export const indexes = <E, R = never>(
  name: string,
  layer: Layer.Layer<SessionStore, E, R> | ((name: string) => Layer.Layer<SessionStore, E, R>),
  test: Tester<R>
): void => {
  const register: Test = (title, body) =>
    test(`${name} indexes: ${title}`, () =>
      Effect.scoped(
        Effect.flatMap(storesOf(layer), ([one, other]) =>
          Effect.gen(() => body({ here: serverOf(Here, one), there: serverOf(There, other) }))
        )
      ))

  testMembers(register)
  testRevocation(register)
  testSteps(register)
  testMaxSessions(register)
  testUndecodable(register)
}
