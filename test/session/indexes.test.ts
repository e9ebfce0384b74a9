/**
 * All sessions of a user: found, ended and counted, whatever is in progress.
 */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Deferred, Effect, Fiber, HashMap, Option, Redacted, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { MemStore, Session, SessionStore } from "effect-sessions"
import { makeHold } from "../../src/internal/envelope.ts"
import { during, settle, VirtualStore } from "./virtualStore.ts"

const User = Schema.Struct({ userId: Schema.optionalKey(Schema.String), device: Schema.optionalKey(Schema.String) })

class UserSession extends Session.Service<UserSession>()("test/UserSession", {
  schema: User,
  initial: () => ({}),
  indexes: { user: (value) => value.userId },
  maxSessions: { user: 5 }
}) {}

/** The same class in another process, whose commits take no turns with those of this one. */
class UserSessionElsewhere extends Session.Service<UserSessionElsewhere>()("test/UserSession", {
  schema: User,
  initial: () => ({}),
  indexes: { user: (value) => value.userId },
  maxSessions: { user: 5 }
}) {}

const memory = MemStore.layerWithCleanupInterval(0)

const test =
  <A, E>(effect: () => Effect.Effect<A, E, SessionStore | MemStore>) =>
  () =>
    Effect.provide(effect(), memory)

/** Logs in on a device, without a session before, and returns the token. */
const logIn = Effect.fnUntraced(function* (userId: string, device: string) {
  const session = yield* UserSession.open()
  yield* session.set({ userId, device })
  return Option.map(yield* session.commit, ({ token }) => token)
})

const devicesOf = (userId: string) =>
  Stream.runCollect(
    Stream.mapEffect(UserSession.sessionsOf("user", userId), (session) =>
      Effect.map(session.get, ({ device }) => device ?? "")
    )
  )

const userOf = Effect.fnUntraced(function* (token: Redacted.Redacted<string>) {
  return (yield* (yield* UserSession.open(token)).get).userId
})

/** The record of the only user, with its key. */
const record = Effect.map(
  Effect.flatMap(SessionStore, ({ all }) => all),
  (all) => [...HashMap.entries(all)].find(([key]) => key.startsWith("index:")) ?? assert.fail("no record")
)

describe("indexes", () => {
  it.effect(
    "find the sessions of a user in the order in which they began, and of nobody else",
    test(() =>
      Effect.gen(function* () {
        for (const device of ["laptop", "phone"]) yield* logIn("ada", device)
        yield* logIn("grace", "desktop")
        assert.deepStrictEqual(yield* devicesOf("ada"), ["laptop", "phone"])
        assert.deepStrictEqual(yield* devicesOf("grace"), ["desktop"])
        assert.deepStrictEqual(yield* devicesOf("nobody"), [])
      })
    )
  )

  it.effect(
    "take no instant from a damaged record that no date can be",
    test(() =>
      Effect.gen(function* () {
        yield* logIn("ada", "laptop")
        const store = yield* SessionStore
        const [key, text] = yield* record
        const far = yield* DateTime.now.pipe(Effect.map(DateTime.add({ days: 1 })))
        for (const damaged of [
          text.replace(/"deadline":\d+/, '"deadline":1e300'),
          text.replace('"index"', '"revokedAt":8.64e15,"index"')
        ]) {
          assert.notStrictEqual(damaged, text)
          yield* store.commit(key, damaged, far)
          assert.isTrue(Option.isSome(yield* logIn("ada", "phone")))
        }
      })
    )
  )

  it.effect(
    "end all sessions of a user but one",
    test(() =>
      Effect.gen(function* () {
        const tokens = yield* Effect.forEach(["laptop", "phone", "tablet"], (device) =>
          Effect.map(logIn("ada", device), Option.getOrThrow)
        )
        const grace = Option.getOrThrow(yield* logIn("grace", "desktop"))
        const [laptop, phone, tablet] = tokens
        if (laptop === undefined || phone === undefined || tablet === undefined) return assert.fail()
        assert.strictEqual(
          yield* UserSession.destroyAllOf("user", "ada", { except: yield* UserSession.open(phone) }),
          2
        )
        assert.deepStrictEqual(yield* Effect.forEach(tokens, userOf), [undefined, "ada", undefined])
        assert.deepStrictEqual(yield* devicesOf("ada"), ["phone"])
        assert.strictEqual(yield* userOf(grace), "grace")
        assert.strictEqual(yield* UserSession.destroyAllOf("user", "ada"), 1)
        assert.deepStrictEqual(yield* devicesOf("ada"), [])
      })
    )
  )

  it.effect("count only sessions that were there among those that they ended", () =>
    Effect.provide(
      Effect.gen(function* () {
        const store = yield* VirtualStore
        const left = yield* UserSession.open(Option.getOrThrow(yield* logIn("ada", "laptop")))
        yield* logIn("ada", "phone")
        // The log-out does not get to the record: it ends the session, then finds and changes the record.
        store.plan(2, { when: "before", how: "fails" })
        yield* left.destroy
        assert.strictEqual(yield* UserSession.destroyAllOf("user", "ada"), 1)
      }),
      VirtualStore.layer
    )
  )

  it.effect(
    "renew the token of a visitor who logs in, though nobody asked for it",
    test(() =>
      Effect.gen(function* () {
        const visitor = yield* UserSession.open()
        yield* visitor.set({ device: "laptop" })
        const before = Option.getOrThrow(yield* visitor.commit).token
        const session = yield* UserSession.open(before)
        yield* session.update((value) => ({ ...value, userId: "ada" }))
        const after = Option.getOrThrow(yield* session.commit)
        assert.isTrue(after.isTokenNew)
        assert.strictEqual(yield* (yield* UserSession.open(before)).status, "ended")
        assert.strictEqual(yield* userOf(after.token), "ada")
        assert.deepStrictEqual(yield* devicesOf("ada"), ["laptop"])
      })
    )
  )

  it.effect(
    "forget a session that logs out, and one that becomes another's",
    test(() =>
      Effect.gen(function* () {
        const token = Option.getOrThrow(yield* logIn("ada", "laptop"))
        const session = yield* UserSession.open(token)
        yield* session.update((value) => ({ ...value, userId: "grace" }))
        const next = Option.getOrThrow(yield* session.commit).token
        assert.deepStrictEqual([yield* devicesOf("ada"), yield* devicesOf("grace")], [[], ["laptop"]])
        yield* (yield* UserSession.open(next)).destroy
        assert.deepStrictEqual(yield* devicesOf("grace"), [])
      })
    )
  )

  it.effect(
    "let no log-in through that began before all sessions of the user ended",
    test(() =>
      Effect.gen(function* () {
        const slow = yield* UserSession.open()
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* UserSession.destroyAllOf("user", "ada"), 0)
        yield* slow.set({ userId: "ada" })
        assert.deepStrictEqual(yield* slow.commit, Option.none())
        assert.strictEqual(yield* slow.status, "ended")
        yield* TestClock.adjust("1 second")
        assert.isTrue(Option.isSome(yield* logIn("ada", "laptop")))
      })
    )
  )

  it.effect(
    "leave exactly five of twenty log-ins at once, the newest",
    test(() =>
      Effect.gen(function* () {
        // A session that is about to be added counts, whatever the time.
        yield* TestClock.adjust("10 minutes")
        const tokens = yield* Effect.forEach(
          Array.from({ length: 20 }, (_, i) => i),
          (i) => logIn("ada", `device ${i}`),
          { concurrency: "unbounded" }
        )
        assert.strictEqual((yield* devicesOf("ada")).length, 5)
        const open = yield* Effect.forEach(
          tokens.flatMap((token) => Option.toArray(token)),
          userOf
        )
        assert.strictEqual(open.filter((user) => user === "ada").length, 5)
        yield* logIn("ada", "the sixth")
        assert.strictEqual((yield* devicesOf("ada")).length, 5)
        assert.strictEqual((yield* devicesOf("ada")).at(-1), "the sixth")
      })
    )
  )

  describe("with a limit, count as sessions of a user", () => {
    /** The sixth log-in, minutes after five others, of which something has become of the third. */
    const sixth = Effect.fnUntraced(function* <E>(
      becomes: (
        third: UserSession["Service"],
        key: string
      ) => Effect.Effect<unknown, E, VirtualStore | SessionStore | MemStore>
    ) {
      const tokens = yield* Effect.forEach([1, 2, 3, 4, 5], (i) =>
        Effect.map(logIn("ada", `device ${i}`), Option.getOrThrow)
      )
      yield* TestClock.adjust("2 minutes")
      const third = yield* UserSession.open(tokens[2])
      yield* becomes(third, Option.getOrThrow(yield* third.id))
      yield* logIn("ada", "device 6")
      return yield* devicesOf("ada")
    })

    const rest = ["device 1", "device 2", "device 4", "device 5", "device 6"]

    it.effect("none that is gone, though its record does not know", () =>
      Effect.provide(
        Effect.gen(function* () {
          const devices = yield* sixth((_, key) => Effect.flatMap(MemStore, (store) => store.delete(key)))
          assert.deepStrictEqual(devices, rest)
        }),
        VirtualStore.layer
      )
    )

    it.effect("none that was logged out, though its record does not know", () =>
      Effect.provide(
        Effect.gen(function* () {
          const devices = yield* sixth((third) =>
            Effect.flatMap(VirtualStore, (store) => {
              // It ends the session, then finds the record.
              store.plan(2, { when: "before", how: "fails" })
              return Effect.andThen(third.destroy, Effect.sync(store.heal))
            })
          )
          assert.deepStrictEqual(devices, rest)
        }),
        VirtualStore.layer
      )
    )

    it.effect("one that is held for a merge, which may still be called off", () =>
      Effect.provide(
        Effect.gen(function* () {
          const devices = yield* sixth((_, key) =>
            Effect.gen(function* () {
              const store = yield* MemStore
              const held = Option.getOrThrow(yield* store.find(key))
              const expiry = yield* DateTime.now.pipe(Effect.map(DateTime.add({ hours: 1 })))
              yield* store.commit(key, makeHold("test/UserSession", "a".repeat(43), "a merge", held), expiry)
            })
          )
          // So the oldest has ended, and the one that is held is not listed for now.
          assert.deepStrictEqual(devices, ["device 2", "device 4", "device 5", "device 6"])
        }),
        VirtualStore.layer
      )
    )

    it.effect("one that is about to be added, and is not in the store yet", () =>
      Effect.provide(
        Effect.gen(function* () {
          const store = yield* VirtualStore
          yield* TestClock.adjust("10 minutes")
          const latch = yield* Deferred.make<void>()
          let created = 0
          // The first one is the record. Each of the others is a session that has joined it.
          store.gate = (operation) => (operation === "create" && ++created > 1 ? Deferred.await(latch) : Effect.void)
          const devices = Array.from({ length: 8 }, (_, i) => `device ${i}`)
          const fibers = yield* Effect.forEach(devices, (device) =>
            Effect.forkChild(logIn("ada", device), { startImmediately: true })
          )
          yield* settle
          assert.strictEqual(created, 9)
          yield* Deferred.succeed(latch, undefined)
          yield* Effect.forEach(fibers, Fiber.join, { discard: true })
          assert.lengthOf(yield* devicesOf("ada"), 5)
        }),
        VirtualStore.layer
      )
    )

    it.effect("one, if two processes log the same visitor in at once", () =>
      Effect.provide(
        Effect.gen(function* () {
          for (let i = 1; i <= 4; i++) yield* logIn("ada", `device ${i}`)
          const visitor = yield* UserSession.open()
          yield* visitor.set({ device: "device 5" })
          const { token } = Option.getOrThrow(yield* visitor.commit)
          const [here, there] = [yield* UserSession.open(token), yield* UserSessionElsewhere.open(token)]
          for (const { update } of [here, there]) yield* update((value) => ({ ...value, userId: "ada" }))
          // The one has joined the list and added its session when the other one begins.
          let replaced = 0
          yield* during(here.commit, there.commit, (operation) => operation === "replace" && ++replaced === 2)
          assert.deepStrictEqual(yield* devicesOf("ada"), ["device 1", "device 2", "device 3", "device 4", "device 5"])
        }),
        VirtualStore.layer
      )
    )
  })

  it.effect("ask nothing of the store for what is no public id", () =>
    Effect.provide(
      Effect.gen(function* () {
        const store = yield* VirtualStore
        for (const id of ["", "index:", "a".repeat(42), "\ud800"]) {
          assert.deepStrictEqual(yield* UserSession.byId(id), Option.none())
        }
        assert.deepStrictEqual(store.calls, [])
      }),
      VirtualStore.layer
    )
  )

  it.effect(
    "end a session whose deadline was moved after its first one",
    test(() =>
      Effect.gen(function* () {
        const session = yield* UserSession.open(Option.getOrThrow(yield* logIn("ada", "laptop")))
        yield* session.renewToken
        yield* session.setDeadline(yield* DateTime.now.pipe(Effect.map(DateTime.add({ days: 30 }))))
        const { token } = Option.getOrThrow(yield* session.commit)
        yield* TestClock.adjust("3 days")
        assert.strictEqual(yield* UserSession.destroyAllOf("user", "ada"), 1)
        assert.strictEqual(yield* userOf(token), undefined)
      })
    )
  )

  it.effect(
    "keep no key of a session that has logged out or expired",
    test(() =>
      Effect.gen(function* () {
        const keys = Effect.map(
          Effect.flatMap(SessionStore, ({ all }) => all),
          (all) =>
            [...HashMap.entries(all)].flatMap(([key, text]) =>
              key.startsWith("index:") ? text.split('"ids"').slice(1) : []
            )
        )
        const token = Option.getOrThrow(yield* logIn("ada", "laptop"))
        yield* logIn("ada", "phone")
        yield* (yield* UserSession.open(token)).destroy
        assert.lengthOf(yield* keys, 1)
        yield* TestClock.adjust("12 hours")
        yield* logIn("ada", "tablet")
        assert.lengthOf(yield* keys, 2)
        yield* TestClock.adjust("13 hours")
        yield* logIn("ada", "laptop")
        assert.lengthOf(yield* keys, 2)
      })
    )
  )

  it.effect(
    "take a damaged record for an empty one, and a damaged part of it for none",
    test(() =>
      Effect.gen(function* () {
        yield* logIn("ada", "laptop")
        const store = yield* SessionStore
        const [key, text] = yield* record
        const far = yield* DateTime.now.pipe(Effect.map(DateTime.add({ days: 1 })))
        for (const damaged of [
          "{",
          "null",
          '"text"',
          '{"members":{}}',
          '{"members":[null,1,{}]}',
          text.replace(/"ids":\["/, '"ids":[1,"'),
          text.replace(/"ids":\[.*?\]/, '"ids":"key"'),
          text.replace('"isRevoked":false', '"isRevoked":0'),
          text.replace(/"addedAt":\d+/, '"addedAt":null')
        ]) {
          assert.notStrictEqual(damaged, text)
          yield* store.commit(key, damaged, far)
          yield* logIn("ada", "phone")
          assert.deepStrictEqual(yield* devicesOf("ada"), ["phone"], damaged)
          assert.strictEqual(yield* UserSession.destroyAllOf("user", "ada"), 1, damaged)
        }
      })
    )
  )

  for (const user of [0, -1, 0.5, Number.NaN]) {
    it(`cannot be limited to ${user} sessions of a user`, () => {
      assert.throws(
        () =>
          class extends Session.Service<typeof UserSession>()("test/UserSession", {
            schema: User,
            initial: () => ({}),
            indexes: { user: (value) => value.userId },
            maxSessions: { user }
          }) {},
        TypeError,
        "test/UserSession: maxSessions of user is not a number of at least one"
      )
    })
  }

  it.effect(
    "find one session by its public id",
    test(() =>
      Effect.gen(function* () {
        const token = Option.getOrThrow(yield* logIn("ada", "laptop"))
        const id = Option.getOrThrow(yield* (yield* UserSession.open(token)).id)
        const found = Option.getOrThrow(yield* UserSession.byId(id))
        assert.deepStrictEqual(yield* found.get, { userId: "ada", device: "laptop" })
        yield* found.destroy
        assert.deepStrictEqual(yield* UserSession.byId(id), Option.none())
        assert.strictEqual(yield* userOf(token), undefined)
        for (const key of [...HashMap.keys(yield* (yield* SessionStore).all), Redacted.value(token), ""]) {
          assert.deepStrictEqual(yield* UserSession.byId(key), Option.none())
        }
      })
    )
  )
})

/** The same sessions, as the deployment before this one had declared them. */
const previously = (indexes: Record<string, (value: typeof User.Type) => string | undefined>) =>
  class Previous extends Session.Service<Previous>()("test/UserSession", {
    schema: User,
    initial: () => ({}),
    indexes
  }) {}

const logInBefore = Effect.fnUntraced(function* (
  indexes: Record<string, (value: typeof User.Type) => string | undefined>
) {
  const session = yield* previously(indexes).open()
  yield* session.set({ userId: "ada", device: "laptop" })
  return Option.getOrThrow(yield* session.commit).token
})

const setDevice = Effect.fnUntraced(function* (token: Redacted.Redacted<string>, device: string) {
  const session = yield* UserSession.open(token)
  yield* session.update((value) => ({ ...value, device }))
  return yield* session.commit
})

const recordsNaming = Effect.fnUntraced(function* (token: Redacted.Redacted<string>) {
  const id = Option.getOrThrow(yield* (yield* UserSession.open(token)).id)
  const all = [...HashMap.entries(yield* (yield* SessionStore).all)]
  return all.filter(([key, text]) => key.startsWith("index:") && text.includes(id)).length
})

describe("a session from before its index was declared", () => {
  it.effect(
    "is in no list until its next commit, and joins under the token that it has",
    test(() =>
      Effect.gen(function* () {
        const token = yield* logInBefore({})
        assert.deepStrictEqual(yield* devicesOf("ada"), [])
        const { isTokenNew, token: after } = Option.getOrThrow(yield* setDevice(token, "phone"))
        assert.isFalse(isTokenNew)
        assert.strictEqual(Redacted.value(after), Redacted.value(token))
        assert.deepStrictEqual(yield* devicesOf("ada"), ["phone"])
        yield* setDevice(token, "tablet")
        assert.deepStrictEqual(yield* devicesOf("ada"), ["tablet"])
        assert.strictEqual(yield* UserSession.destroyAllOf("user", "ada"), 1)
        assert.strictEqual(yield* userOf(token), undefined)
      })
    )
  )

  it.effect(
    "joins when its idle timeout is restarted, if nothing else changes",
    test(() =>
      Effect.gen(function* () {
        const token = yield* logInBefore({})
        class Idle extends Session.Service<Idle>()("test/UserSession", {
          schema: User,
          initial: () => ({}),
          indexes: { user: (value) => value.userId },
          idleTimeout: "1 hour"
        }) {}
        yield* TestClock.adjust("30 minutes")
        const session = yield* Idle.open(token)
        yield* session.commit
        assert.deepStrictEqual(yield* session.get, { userId: "ada", device: "laptop" })
        assert.deepStrictEqual(yield* devicesOf("ada"), ["laptop"])
      })
    )
  )

  it.effect(
    "ends, if all sessions of its user end between the beginning of its request and that commit",
    test(() =>
      Effect.gen(function* () {
        const token = yield* logInBefore({})
        const session = yield* UserSession.open(token)
        yield* TestClock.adjust("1 second")
        yield* UserSession.destroyAllOf("user", "ada")
        yield* session.update((value) => ({ ...value, device: "phone" }))
        assert.deepStrictEqual(yield* session.commit, Option.none())
        assert.strictEqual(yield* session.status, "ended")
        assert.strictEqual(yield* userOf(token), undefined)
        assert.deepStrictEqual(yield* devicesOf("ada"), [])
      })
    )
  )

  it.effect(
    "leaves the list of an index that is no longer declared, and stays in one that still is",
    test(() =>
      Effect.gen(function* () {
        const user = (value: typeof User.Type) => value.userId
        const token = yield* logInBefore({ user, owner: user })
        assert.strictEqual(yield* recordsNaming(token), 2)
        yield* setDevice(token, "phone")
        assert.strictEqual(yield* recordsNaming(token), 1)
        assert.deepStrictEqual(yield* devicesOf("ada"), ["phone"])
        const renamed = yield* logInBefore({ owner: user })
        yield* setDevice(renamed, "tablet")
        assert.strictEqual(yield* recordsNaming(renamed), 1)
        assert.deepStrictEqual(yield* devicesOf("ada"), ["phone", "tablet"])
      })
    )
  )

  it.effect(
    "moves to the list of another user whom it belongs to since it was opened, whoever wrote that",
    test(() =>
      Effect.gen(function* () {
        const token = Option.getOrThrow(yield* logIn("ada", "laptop"))
        const session = yield* UserSession.open(token)
        // A deployment that knows no index renews no token.
        const elsewhere = yield* previously({}).open(token)
        yield* elsewhere.update((value) => ({ ...value, userId: "grace" }))
        yield* elsewhere.commit
        yield* session.update((value) => ({ ...value, device: "phone" }))
        yield* session.commit
        assert.deepStrictEqual([yield* devicesOf("ada"), yield* devicesOf("grace")], [[], ["phone"]])
        assert.strictEqual(yield* UserSession.destroyAllOf("user", "ada"), 0)
        assert.strictEqual(yield* UserSession.destroyAllOf("user", "grace"), 1)
        assert.strictEqual(yield* userOf(token), undefined)
      })
    )
  )

  it.effect(
    "counts among the most that a user may have from then on",
    test(() =>
      Effect.gen(function* () {
        const token = yield* logInBefore({})
        for (let i = 1; i <= 5; i++) yield* logIn("ada", `device ${i}`)
        yield* setDevice(token, "phone")
        assert.deepStrictEqual(yield* devicesOf("ada"), ["device 2", "device 3", "device 4", "device 5", "phone"])
      })
    )
  )
})
