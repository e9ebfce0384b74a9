import { assert, describe, it } from "@effect/vitest"
import { Effect, HashMap, Option, type Redacted, Schema, Stream } from "effect"
import { MemStore, Session } from "effect-sessions"
import {
  activeFields,
  commit,
  fieldsAt,
  keyOf,
  logIn,
  opens,
  stored,
  type UserHandle,
  UserSession,
  UserSessionElsewhere,
  visit,
  visitsOf
} from "./fixtures.ts"
import { everyOrder } from "./interleavings.ts"

/**
 * Concurrent renewals, log-outs, changes and merges, in every order in which they can reach the store.
 */

class Items extends Session.Service<Items>()("test/Items", {
  schema: Schema.Array(Schema.String),
  initial: (): ReadonlyArray<string> => []
}) {}

class ItemsElsewhere extends Session.Service<ItemsElsewhere>()("test/Items", {
  schema: Schema.Array(Schema.String),
  initial: (): ReadonlyArray<string> => []
}) {}

type ItemsHandle = Session.Session<ReadonlyArray<string>>

const append = (item: string) => (items: ReadonlyArray<string>) => [...items, item]

const both = (mine: ReadonlyArray<string>, other: ReadonlyArray<string>) => [...mine, ...other]

const newItems = Effect.fnUntraced(function* (item: string) {
  const session = yield* Items.open()
  yield* session.update(append(item))
  return yield* commit(session)
})

/** The values of all active sessions, in one list, in the order of the alphabet. */
const allItems = Effect.map(Stream.runCollect(Stream.mapEffect(Items.sessions, ({ get }) => get)), (all) =>
  all.flat().sort()
)

/** No session is left whose renewal was called off, nor one that is held for ever. */
const assertSettled = Effect.gen(function* () {
  for (const { pending } of yield* activeFields) assert.isUndefined(pending)
  const all = [...HashMap.values(yield* (yield* MemStore).all)]
  assert.isFalse(all.some((text) => text.includes('"held"')))
})

const renewed = Effect.fnUntraced(function* (session: UserHandle) {
  yield* session.update(logIn("ada"))
  yield* session.renewToken
  return yield* session.commit
})

/** What could come in one order alone would be no race. */
const severalOrders = (prepare: Parameters<typeof everyOrder>[0]) =>
  Effect.map(everyOrder(prepare), (orders) => assert.isAbove(orders, 1))

/** The second of two requests: in this process, where they take turns, or in another. */
const places = [
  ["in one process", UserSession, Items],
  ["in two processes", UserSessionElsewhere, ItemsElsewhere]
] as const

describe("Session", () => {
  for (const [where, There, ItemsThere] of places) {
    describe(`races ${where}`, () => {
      const assertNothingIsLeft = Effect.gen(function* () {
        assert.deepStrictEqual(yield* activeFields, [])
      })

      it.effect("a log-out of a session that was opened before a renewal ends it, also in the middle of it", () =>
        Effect.gen(function* () {
          const orders = yield* everyOrder(
            Effect.gen(function* () {
              const { open, token } = yield* stored(UserSession)
              const [renewing, leaving] = [yield* open, yield* There.open(token)]
              return { requests: [renewed(renewing), leaving.destroy], check: assertNothingIsLeft }
            }),
            4
          )
          assert.isAbove(orders, where === "in one process" ? 1 : 20)
        })
      )

      it.effect("a log-out by the old token ends the session, whatever became of a renewal", () =>
        Effect.gen(function* () {
          const orders = yield* everyOrder(
            Effect.gen(function* () {
              const { open, token } = yield* stored(UserSession)
              const renewing = yield* open
              const logOut = Effect.flatMap(There.open(token), ({ destroy }) => destroy)
              return { requests: [renewed(renewing), logOut], check: assertNothingIsLeft }
            }),
            4
          )
          assert.isAbove(orders, 10)
        })
      )

      it.effect("a log-out ends the session also where two renew it at once", () =>
        everyOrder(
          Effect.gen(function* () {
            const { open, token } = yield* stored(UserSession)
            const sessions = [yield* open, yield* There.open(token)]
            const leaving = yield* open
            return { requests: [...sessions.map(renewed), leaving.destroy], check: assertNothingIsLeft }
          }),
          1
        )
      )

      it.effect("of two that renew at once one gets a new token, and there is one session", () =>
        severalOrders(
          Effect.gen(function* () {
            const { open, token } = yield* stored(UserSession)
            const sessions = [yield* open, yield* There.open(token)]
            const got: Array<Redacted.Redacted<string>> = []
            const requests = sessions.map((session) =>
              Effect.tap(renewed(session), (committed) => {
                if (Option.isSome(committed)) got.push(committed.value.token)
                return Effect.void
              })
            )
            return {
              requests,
              check: Effect.gen(function* () {
                assert.strictEqual(got.length, 1)
                assert.strictEqual((yield* activeFields).length, 1)
                assert.isTrue(yield* opens(got[0] ?? assert.fail()))
                yield* assertSettled
              })
            }
          })
        )
      )

      it.effect("a change that is confirmed is in the renewed session, and one that is not is nowhere", () =>
        severalOrders(
          Effect.gen(function* () {
            const { open, token } = yield* stored(UserSession)
            const [renewing, writing] = [yield* open, yield* There.open(token)]
            yield* writing.update(visit)
            let isConfirmed = false
            const write = Effect.map(writing.commit, (committed) => {
              isConfirmed = Option.isSome(committed)
            })
            let next: Redacted.Redacted<string> | undefined
            const renewal = Effect.map(renewed(renewing), (committed) => {
              next = Option.getOrThrow(committed).token
            })
            return {
              requests: [renewal, write],
              check: Effect.gen(function* () {
                assert.isFalse(yield* opens(token))
                assert.strictEqual(yield* visitsOf(UserSession, next ?? assert.fail()), isConfirmed ? 2 : 1)
                assert.strictEqual(yield* writing.status, isConfirmed ? "unmodified" : "ended")
                assert.strictEqual((yield* activeFields).length, 1)
              })
            }
          })
        )
      )

      it.effect("the list never has a session whose renewal may be called off", () =>
        severalOrders(
          Effect.gen(function* () {
            const { open, token } = yield* stored(UserSession)
            const [renewing, writing] = [yield* open, yield* There.open(token)]
            yield* writing.update(visit)
            let isHandedOut = false
            return {
              requests: [
                Effect.tap(renewed(renewing), () => {
                  isHandedOut = true
                  return Effect.void
                }),
                writing.commit
              ],
              look: Effect.gen(function* () {
                const listed = yield* Stream.runCollect(UserSession.sessions)
                assert.isAtMost(listed.length, 1)
                for (const { id } of listed) {
                  const key = Option.getOrThrow(yield* id)
                  // Listed under its new id only after the last write, right before the token is handed out.
                  if (key !== keyOf(token)) assert.isUndefined((yield* fieldsAt(key))?.pending)
                }
              }),
              check: Effect.gen(function* () {
                assert.isTrue(isHandedOut)
                assert.strictEqual(yield* Stream.runCount(UserSession.sessions), 1)
              })
            }
          })
        )
      )

      it.effect("what was found in the list and ended is ended, whatever became of a renewal", () =>
        severalOrders(
          Effect.gen(function* () {
            const renewing = yield* (yield* stored(UserSession)).open
            let ended = 0
            const endAll = Stream.runForEach(There.sessions, ({ destroy }) =>
              Effect.map(destroy, () => {
                ended++
              })
            )
            return {
              requests: [renewed(renewing), endAll],
              check: Effect.gen(function* () {
                const left = (yield* activeFields).length
                assert.isTrue(ended === 0 || left === 0)
              })
            }
          })
        )
      )

      const merging = (session: ItemsHandle, token: Redacted.Redacted<string>, item: string) =>
        Effect.gen(function* () {
          yield* session.update(append(item))
          yield* session.merge(token, both)
          return yield* session.commit
        })

      it.effect("two that are merged into each other lose no value, and double none", () =>
        severalOrders(
          Effect.gen(function* () {
            const [a, b] = [yield* newItems("a"), yield* newItems("b")]
            const [one, two] = [yield* Items.open(a), yield* ItemsThere.open(b)]
            return {
              requests: [merging(one, b, "c"), merging(two, a, "d")],
              check: Effect.gen(function* () {
                const items = yield* allItems
                assert.deepStrictEqual(
                  items.filter((item) => item <= "b"),
                  ["a", "b"]
                )
                // Its own change is lost only with the session that ended.
                assert.isAbove(items.length, 2)
                assert.strictEqual(new Set(items).size, items.length)
                yield* assertSettled
              })
            }
          })
        )
      )

      it.effect("one that is merged into two at once is in one of them", () =>
        severalOrders(
          Effect.gen(function* () {
            const [a, b, other] = [yield* newItems("a"), yield* newItems("b"), yield* newItems("x")]
            const [one, two] = [yield* Items.open(a), yield* ItemsThere.open(b)]
            return {
              requests: [merging(one, other, "c"), merging(two, other, "d")],
              check: Effect.gen(function* () {
                assert.deepStrictEqual(yield* allItems, ["a", "b", "c", "d", "x"])
                assert.deepStrictEqual(yield* (yield* Items.open(other)).get, [])
                yield* assertSettled
              })
            }
          })
        )
      )

      it.effect("one that is merged by two requests of one session is taken in once", () =>
        severalOrders(
          Effect.gen(function* () {
            const [a, other] = [yield* newItems("a"), yield* newItems("x")]
            const [one, two] = [yield* Items.open(a), yield* ItemsThere.open(a)]
            return {
              requests: [merging(one, other, "c"), merging(two, other, "d")],
              check: Effect.gen(function* () {
                assert.deepStrictEqual(yield* allItems, ["a", "c", "d", "x"])
                yield* assertSettled
              })
            }
          })
        )
      )

      it.effect("a change of a session that is being merged is in the outcome once, if it is confirmed", () =>
        severalOrders(
          Effect.gen(function* () {
            const [a, other] = [yield* newItems("a"), yield* newItems("x")]
            const [one, writing] = [yield* Items.open(a), yield* ItemsThere.open(other)]
            yield* writing.update(append("y"))
            let isConfirmed = false
            const write = Effect.map(writing.commit, (committed) => {
              isConfirmed = Option.isSome(committed)
            })
            return {
              requests: [merging(one, other, "c"), write],
              check: Effect.gen(function* () {
                assert.deepStrictEqual(yield* allItems, isConfirmed ? ["a", "c", "x", "y"] : ["a", "c", "x"])
                yield* assertSettled
              })
            }
          })
        )
      )

      it.effect("a session whose token is renewed while it is merged is lost in neither way", () =>
        severalOrders(
          Effect.gen(function* () {
            const [a, other] = [yield* newItems("a"), yield* newItems("x")]
            const [one, renewing] = [yield* Items.open(a), yield* ItemsThere.open(other)]
            yield* renewing.renewToken
            return {
              requests: [merging(one, other, "c"), renewing.commit],
              check: Effect.gen(function* () {
                assert.deepStrictEqual(yield* allItems, ["a", "c", "x"])
                yield* assertSettled
              })
            }
          })
        )
      )

      it.effect("one that merges and is logged out meanwhile leaves the other as it was, or takes it along", () =>
        severalOrders(
          Effect.gen(function* () {
            const [a, other] = [yield* newItems("a"), yield* newItems("x")]
            const [one, leaving] = [yield* Items.open(a), yield* ItemsThere.open(a)]
            let isMerged = false
            const merge = Effect.map(merging(one, other, "c"), (committed) => {
              isMerged = Option.isSome(committed)
            })
            return {
              requests: [merge, leaving.destroy],
              check: Effect.gen(function* () {
                assert.deepStrictEqual(yield* allItems, isMerged ? [] : ["x"])
                yield* assertSettled
              })
            }
          })
        )
      )

      it.effect("a log-out of a session that is being merged ends its value, wherever that is by then", () =>
        severalOrders(
          Effect.gen(function* () {
            const [a, other] = [yield* newItems("a"), yield* newItems("x")]
            const [one, leaving] = [yield* Items.open(a), yield* ItemsThere.open(other)]
            return {
              requests: [merging(one, other, "c"), leaving.destroy],
              check: Effect.gen(function* () {
                assert.notInclude(yield* allItems, "x")
                yield* assertSettled
              })
            }
          })
        )
      )
    })
  }
})
