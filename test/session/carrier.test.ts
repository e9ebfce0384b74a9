import { assert, describe } from "@effect/vitest"
import { Effect, Option } from "effect"
import { MemStore } from "effect-sessions"
import { sealCarrier } from "../../src/internal/session.ts"
import { withLog } from "../telemetry.ts"
import {
  activeFields,
  add,
  assertSameToken,
  commit,
  IndexedSession,
  logIn,
  opens,
  stored,
  test,
  UserSession,
  visit,
  visitsOf
} from "./fixtures.ts"
import { VirtualStore } from "./virtualStore.ts"

/**
 * What a session does after the response has been sent, when no new token can reach the client.
 */

const warning = (key: string) =>
  `Warn: ${key}: a new token was not saved, because the response that would have carried it has been sent. Commit ` +
  `before the response begins, as before a body that streams or an upgrade to a WebSocket.`

describe("Session", () => {
  describe("after the carrier of its token was sealed", () => {
    test("saves nothing of a new session, and warns", () =>
      withLog((logged) =>
        Effect.gen(function* () {
          const spy = yield* VirtualStore
          const session = yield* UserSession.open()
          sealCarrier(session)
          assert.deepStrictEqual(yield* session.commit, Option.none())
          assert.deepStrictEqual(logged, [])
          yield* session.update(visit)
          assert.deepStrictEqual(yield* session.commit, Option.none())
          assert.deepStrictEqual(spy.calls, [])
          assert.deepStrictEqual(logged, [warning("test/UserSession")])
          assert.deepStrictEqual(yield* session.token, Option.none())
          assert.deepStrictEqual(yield* session.get, { visits: 1 })
        })
      ))

    test("warns once, however often it is committed", () =>
      withLog((logged) =>
        Effect.gen(function* () {
          const session = yield* UserSession.open()
          sealCarrier(session)
          yield* session.update(visit)
          yield* session.commit
          sealCarrier(session)
          yield* session.commit
          assert.strictEqual(logged.length, 1)
        })
      ))

    test("saves nothing of what is written after a log-out", () =>
      withLog((logged) =>
        Effect.gen(function* () {
          const { open } = yield* stored(UserSession)
          const session = yield* open
          sealCarrier(session)
          yield* session.destroy
          yield* session.update(visit)
          assert.deepStrictEqual(yield* session.commit, Option.none())
          assert.strictEqual((yield* activeFields).length, 0)
          assert.deepStrictEqual(logged, [warning("test/UserSession")])
        })
      ))

    test("saves what was changed under the old token in place of a renewal, and warns", () =>
      withLog((logged) =>
        Effect.gen(function* () {
          const { open, token } = yield* stored(UserSession)
          const session = yield* open
          sealCarrier(session)
          yield* session.update(visit)
          yield* session.renewToken
          assertSameToken(yield* commit(session), token)
          assert.deepStrictEqual(logged, [warning("test/UserSession")])
          assert.strictEqual(yield* visitsOf(UserSession, token), 2)
          assert.strictEqual(yield* session.status, "unmodified")
          assert.strictEqual(yield* (yield* MemStore).size, 1)
          yield* session.commit
          assert.strictEqual(logged.length, 1)
        })
      ))

    for (const renewed of [false, true]) {
      test(`saves nothing under the old token if the session now belongs to another user, and warns${renewed ? ", if asked to renew it too" : ""}`, () =>
        withLog((logged) =>
          Effect.gen(function* () {
            const { open, token } = yield* stored(IndexedSession)
            const session = yield* open
            sealCarrier(session)
            const before = yield* activeFields
            yield* session.update(logIn("ada"))
            if (renewed) yield* session.renewToken
            yield* session.commit
            yield* session.commit
            assert.deepStrictEqual(logged, [warning("test/IndexedSession")])
            assert.deepStrictEqual(yield* activeFields, before)
            assert.strictEqual(yield* (yield* MemStore).size, 1)
            assert.strictEqual(yield* visitsOf(IndexedSession, token), 1)
          })
        ))
    }

    test("saves what was changed, merges and logs out as ever, without a warning", () =>
      withLog((logged) =>
        Effect.gen(function* () {
          const other = yield* stored(UserSession)
          const { open, token } = yield* stored(UserSession)
          const session = yield* open
          sealCarrier(session)
          yield* session.update(visit)
          yield* session.merge(other.token, add)
          assertSameToken(yield* commit(session), token)
          assert.strictEqual(yield* visitsOf(UserSession, token), 3)
          assert.isFalse(yield* opens(other.token))
          yield* session.destroy
          assert.isFalse(yield* opens(token))
          assert.deepStrictEqual(logged, [])
        })
      ))

    test("does not mind what is no session", () =>
      Effect.sync(() => {
        assert.isUndefined(sealCarrier({}))
      }))
  })
})
