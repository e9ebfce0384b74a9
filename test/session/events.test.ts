import { assert, describe } from "@effect/vitest"
import { Effect, Fiber, Option, Schema, Stream } from "effect"
import { Session, type SessionEvent, SessionEvents, type SessionStoreError } from "effect-sessions"
import { withLog } from "../telemetry.ts"
import {
  add,
  commit,
  IdleSession,
  keyOf,
  NameSession,
  stored,
  test,
  UserSession,
  UserSessionElsewhere,
  visit
} from "./fixtures.ts"
import { during, settle, VirtualStore } from "./virtualStore.ts"

class MemberSession extends Session.Service<MemberSession>()("test/MemberSession", {
  schema: Schema.Struct({ userId: Schema.optionalKey(Schema.String) }),
  initial: () => ({}),
  indexes: { user: ({ userId }) => userId },
  maxSessions: { user: 2 }
}) {}

/** The events published in the meantime, on a separate bus. */
const withEvents = <A, E, R>(body: (events: Array<SessionEvent>) => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const bus = SessionEvents.make()
    const events: Array<SessionEvent> = []
    bus.listen((event) => events.push(event))
    return Effect.provideService(body(events), SessionEvents, bus)
  })

const idOf = <A>(session: Session.Session<A>) => Effect.map(session.id, Option.getOrThrow)

const logIn = Effect.fnUntraced(function* (userId: string) {
  const session = yield* MemberSession.open()
  yield* session.set({ userId })
  yield* session.commit
  return session
})

const session = "test/UserSession"

describe("SessionEvents", () => {
  test("tell that a session was created, by its class and its public id", () =>
    withEvents(
      Effect.fnUntraced(function* (events) {
        const { token } = yield* stored(UserSession)
        assert.deepStrictEqual(events, [{ _tag: "Created", session, id: keyOf(token) }])
      })
    ))

  test("tell nothing of a session that is opened, read, changed, touched or looked at", () =>
    withEvents(
      Effect.fnUntraced(function* (events) {
        const { open } = yield* stored(IdleSession)
        events.length = 0
        yield* (yield* IdleSession.open()).commit
        const session = yield* open
        yield* session.update(visit)
        yield* session.commit
        yield* session.reload
        yield* Stream.runDrain(IdleSession.sessions)
        assert.deepStrictEqual(events, [])
      })
    ))

  test("tell under which id a renewed session goes on", () =>
    withEvents(
      Effect.fnUntraced(function* (events) {
        const { open, token } = yield* stored(UserSession)
        const renewed = yield* open
        yield* renewed.renewToken
        assert.lengthOf(events, 1)
        const id = keyOf(yield* commit(renewed))
        assert.deepStrictEqual(events.slice(1), [{ _tag: "Renewed", session, id, former: keyOf(token) }])
      })
    ))

  test("tell which session took over from one that was merged", () =>
    withEvents(
      Effect.fnUntraced(function* (events) {
        const [one, other] = [yield* stored(UserSession), yield* stored(UserSession)]
        events.length = 0
        const mine = yield* one.open
        yield* mine.merge(other.token, add)
        yield* mine.commit
        assert.deepStrictEqual(events, [{ _tag: "Renewed", session, id: keyOf(one.token), former: keyOf(other.token) }])
      })
    ))

  test("tell once that a session was destroyed", () =>
    withEvents(
      Effect.fnUntraced(function* (events) {
        const { open, token } = yield* stored(UserSession)
        const handles = [yield* open, yield* open]
        events.length = 0
        for (const handle of handles) yield* handle.destroy
        assert.deepStrictEqual(events, [{ _tag: "Destroyed", session, id: keyOf(token) }])
      })
    ))

  test("tell which session a log-out by an old token has ended", () =>
    withEvents(
      Effect.fnUntraced(function* (events) {
        const { open } = yield* stored(UserSession)
        const [old, renewed] = [yield* open, yield* open]
        yield* renewed.renewToken
        const id = keyOf(yield* commit(renewed))
        events.length = 0
        yield* old.destroy
        assert.deepStrictEqual(events, [{ _tag: "Destroyed", session, id }])
      })
    ))

  test("name a session that ends in the middle of a renewal by the id that was known", () =>
    withEvents(
      Effect.fnUntraced(function* (events) {
        const { open, token } = yield* stored(UserSession)
        const [renewed, elsewhere] = [yield* open, yield* UserSessionElsewhere.open(token)]
        events.length = 0
        yield* renewed.renewToken
        let replaced = 0
        yield* during(
          renewed.commit,
          elsewhere.destroy,
          // The first one puts the tombstone in place.
          (operation) => operation === "replace" && ++replaced === 2
        )
        assert.deepStrictEqual(events, [{ _tag: "Destroyed", session, id: keyOf(token) }])
      })
    ))

  test("tell of both sessions that end in the middle of a merge, by a log-out of the one that is merged", () =>
    withEvents(
      Effect.fnUntraced(function* (events) {
        const [one, other] = [yield* stored(UserSession), yield* stored(UserSession)]
        const elsewhere = yield* UserSessionElsewhere.open(other.token)
        const mine = yield* one.open
        yield* mine.merge(other.token, add)
        events.length = 0
        let replaced = 0
        // The first one holds the other session.
        yield* during(mine.commit, elsewhere.destroy, (operation) => operation === "replace" && ++replaced === 2)
        assert.deepStrictEqual(
          events,
          [other, one].map(({ token }) => ({ _tag: "Destroyed" as const, session, id: keyOf(token) }))
        )
      })
    ))

  test("do not tell that a session took over from one that had ended before it was held", () =>
    withEvents(
      Effect.fnUntraced(function* (events) {
        const [one, other] = [yield* stored(UserSession), yield* stored(UserSession)]
        const elsewhere = yield* UserSessionElsewhere.open(other.token)
        const mine = yield* one.open
        yield* mine.update(visit)
        yield* mine.merge(other.token, add)
        events.length = 0
        yield* during(mine.commit, elsewhere.destroy, (operation) => operation === "replace")
        assert.deepStrictEqual(events, [{ _tag: "Destroyed", session, id: keyOf(other.token) }])
      })
    ))

  test("tell of each session that `destroyAllOf` has ended, and of none that it has spared", () =>
    withEvents(
      Effect.fnUntraced(function* (events) {
        const [ada, other, grace] = [yield* logIn("ada"), yield* logIn("ada"), yield* logIn("grace")]
        const id = yield* idOf(ada)
        events.length = 0
        yield* MemberSession.destroyAllOf("user", "ada", { except: other })
        assert.deepStrictEqual(events, [{ _tag: "Destroyed", session: "test/MemberSession", id }])
        assert.strictEqual(yield* grace.reload, true)
      })
    ))

  test("tell which session has ended because there were too many", () =>
    withEvents(
      Effect.fnUntraced(function* (events) {
        const oldest = yield* idOf(yield* logIn("ada"))
        yield* logIn("ada")
        yield* logIn("ada")
        assert.deepStrictEqual(
          events.filter(({ _tag }) => _tag === "Destroyed"),
          [{ _tag: "Destroyed", session: "test/MemberSession", id: oldest }]
        )
      })
    ))

  test("tell nothing that the store has not confirmed", () =>
    withEvents(
      Effect.fnUntraced(function* (events) {
        const spy = yield* VirtualStore
        const fresh = yield* UserSession.open()
        yield* fresh.update(visit)
        const { open } = yield* stored(UserSession)
        events.length = 0
        spy.failing.add("create").add("replace")
        const expectFailure = <A, E extends { readonly _tag: string }>(effect: Effect.Effect<A, E>) =>
          Effect.map(Effect.flip(effect), ({ _tag }) => assert.strictEqual(_tag, "SessionStoreError"))
        yield* expectFailure(fresh.commit)
        const handle = yield* open
        yield* handle.renewToken
        yield* expectFailure(handle.commit)
        yield* expectFailure<void, SessionStoreError>(handle.destroy)
        assert.deepStrictEqual(events, [])
      })
    ))

  test("fail no commit, whatever the bus does", () =>
    withLog(
      Effect.fnUntraced(function* (logged) {
        const broken = { ...SessionEvents.make(), publish: () => assert.fail("the bus is broken") }
        const { open, token } = yield* Effect.provideService(stored(UserSession), SessionEvents, broken)
        assert.deepStrictEqual((yield* (yield* open).get).visits, 1)
        yield* Effect.provideService((yield* open).destroy, SessionEvents, broken)
        assert.isTrue(Option.isNone(yield* (yield* UserSession.open(token)).token))
        assert.lengthOf(logged, 2)
        assert.include(logged[0], "Warn: test/UserSession: publishing the event Created failed")
      })
    ))

  test("reach each listener, though another one fails", function* () {
    const bus = SessionEvents.make()
    const heard: Array<string> = []
    bus.listen(() => assert.fail("a listener is broken"))
    const stop = bus.listen(({ id }) => heard.push(id))
    assert.throws(() => bus.publish({ _tag: "Created", session, id: "one" }), "a listener is broken")
    stop()
    assert.throws(() => bus.publish({ _tag: "Created", session, id: "two" }), "a listener is broken")
    assert.deepStrictEqual(heard, ["one"])
  })
})

describe("UserSession.events", () => {
  test("is the stream of what happens to sessions of this class, without a layer", function* () {
    const fiber = yield* Effect.forkChild(Stream.runCollect(Stream.take(UserSession.events, 2)), {
      startImmediately: true
    })
    yield* settle
    const { open, token } = yield* stored(UserSession)
    const other = yield* NameSession.open()
    yield* other.set({ user: "ada" })
    yield* other.commit
    yield* (yield* open).destroy
    assert.deepStrictEqual(yield* Fiber.join(fiber), [
      { _tag: "Created", session, id: keyOf(token) },
      { _tag: "Destroyed", session, id: keyOf(token) }
    ])
  })

  test("keeps the latest thousand for a slow consumer, and holds up nobody", function* () {
    const bus = SessionEvents.make()
    const seen: Array<string> = []
    const slow = Stream.runForEach(UserSession.events, ({ id }) =>
      Effect.andThen(
        seen.length === 0 ? settle : Effect.void,
        Effect.sync(() => seen.push(id))
      )
    )
    yield* Effect.forkChild(Effect.provideService(slow, SessionEvents, bus), { startImmediately: true })
    yield* settle
    for (let i = 0; i < 1_500; i++) bus.publish({ _tag: "Created", session, id: String(i) })
    yield* Effect.repeat(settle, { times: 200 })
    assert.strictEqual(seen.at(-1), "1499")
    assert.lengthOf(seen, 1_000)
  })

  test("leaves no listener behind", function* () {
    let listeners = 0
    const plain = SessionEvents.make()
    const bus = {
      ...plain,
      listen: (listener: (event: SessionEvent) => void) => {
        const stop = plain.listen(listener)
        listeners++
        return () => {
          listeners--
          stop()
        }
      }
    }
    const fiber = yield* Effect.forkChild(
      Effect.provideService(Stream.runDrain(UserSession.events), SessionEvents, bus),
      { startImmediately: true }
    )
    yield* settle
    assert.strictEqual(listeners, 1)
    yield* Fiber.interrupt(fiber)
    assert.strictEqual(listeners, 0)
  })
})
