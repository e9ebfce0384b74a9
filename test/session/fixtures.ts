/**
 * Session classes, sessions and a way to run a test, for all tests of sessions.
 */
import { createHash } from "node:crypto"
import { assert, it } from "@effect/vitest"
import { Effect, HashMap, Option, Predicate, Redacted, Schema } from "effect"
import { MemStore, Session, type SessionStore } from "effect-sessions"
import { VirtualStore } from "./virtualStore.ts"

export const User = Schema.Struct({ userId: Schema.optionalKey(Schema.String), visits: Schema.Int })

export type User = typeof User.Type

export type UserHandle = Session.Session<User>

export const nobody = () => ({ visits: 0 })

export class UserSession extends Session.Service<UserSession>()("test/UserSession", {
  schema: User,
  initial: nobody
}) {}

/** The same class in another process, whose commits take no turns with those of this one. */
export class UserSessionElsewhere extends Session.Service<UserSessionElsewhere>()("test/UserSession", {
  schema: User,
  initial: nobody
}) {}

export class IdleSession extends Session.Service<IdleSession>()("test/IdleSession", {
  schema: User,
  initial: nobody,
  lifetime: "1 hour",
  idleTimeout: "20 minutes"
}) {}

export class IdleSessionElsewhere extends Session.Service<IdleSessionElsewhere>()("test/IdleSession", {
  schema: User,
  initial: nobody,
  lifetime: "1 hour",
  idleTimeout: "20 minutes"
}) {}

export class IndexedSession extends Session.Service<IndexedSession>()("test/IndexedSession", {
  schema: User,
  initial: nobody,
  indexes: { user: ({ userId }) => userId }
}) {}

/** The class of another deployment: same key, another schema. */
export class NewerSession extends Session.Service<NewerSession>()("test/UserSession", {
  schema: Schema.Struct({ user: Schema.String }),
  initial: () => ({ user: "nobody" })
}) {}

/** Another class, whose values fit no other schema. */
export class NameSession extends Session.Service<NameSession>()("test/NameSession", {
  schema: Schema.Struct({ user: Schema.String }),
  initial: () => ({ user: "nobody" }),
  undecodable: "fail"
}) {}

export class StrictSession extends Session.Service<StrictSession>()("test/UserSession", {
  schema: Schema.Struct({ user: Schema.String }),
  initial: () => ({ user: "nobody" }),
  undecodable: "fail"
}) {}

/** A class of users, with any options. */
export type UserClass = Pick<Session.ServiceClass<unknown, string, User>, "open" | "sessions">

export const visit = (user: User): User => ({ ...user, visits: user.visits + 1 })

export const logIn = (userId: string) => (user: User) => ({ ...user, userId })

export const add = (mine: User, other: User): User => ({ ...mine, visits: mine.visits + other.visits })

type Services = VirtualStore | SessionStore | MemStore

type Body = () =>
  | Generator<Effect.Effect<unknown, unknown, Services>, void, never>
  | Effect.Effect<void, unknown, Services>

const run = (body: Body) => (): Effect.Effect<void, unknown> => {
  const result = body()
  const effect = Effect.isEffect(result) ? result : Effect.gen(() => result)
  return Effect.provide(effect, VirtualStore.layer)
}

/** A test with its own store, which it can control by `VirtualStore`. */
export const test = (name: string, body: Body): void => it.effect(name, run(body))

/** Saves and returns the token. */
export const commit = <A>(session: Session.Session<A>) =>
  Effect.map(session.commit, (committed) => Option.getOrThrow(committed).token)

/** A token reveals nothing, not even to `deepStrictEqual`, which considers any two equal. */
export const assertSameToken = (one: Redacted.Redacted<string>, other: Redacted.Redacted<string>) =>
  assert.strictEqual(Redacted.value(one), Redacted.value(other))

/** A session in the store; each `open` opens it again. */
export const stored = Effect.fnUntraced(function* (session: UserClass) {
  const first = yield* session.open()
  yield* first.update(visit)
  const token = yield* commit(first)
  return { token, open: session.open(token) }
})

export const visitsOf = Effect.fnUntraced(function* (session: UserClass, token: Redacted.Redacted<string>) {
  return (yield* (yield* session.open(token)).get).visits
})

/** Whether a token opens a session that is in the store, and active. */
export const opens = Effect.fnUntraced(function* (token: Redacted.Redacted<string>) {
  return Option.isSome(yield* (yield* UserSession.open(token)).token)
})

export const keyOf = (token: Redacted.Redacted<string>) =>
  createHash("sha256").update(Redacted.value(token)).digest("base64url")

/** The fields of the text under a key; `undefined` if there is none. */
export const fieldsAt = Effect.fnUntraced(function* (key: string) {
  const found = yield* (yield* MemStore).find(key)
  if (Option.isNone(found)) return undefined
  const fields: unknown = JSON.parse(found.value)
  return Predicate.isReadonlyObject(fields) ? fields : assert.fail("not an object")
})

/** The fields of all that is in the store, but of tombstones. */
export const activeFields = Effect.map(
  Effect.flatMap(MemStore, ({ all }) => all),
  (all) =>
    [...HashMap.values(all)]
      .map((text): unknown => JSON.parse(text))
      .filter(Predicate.isReadonlyObject)
      .filter(({ ended, successor }) => successor === undefined && ended === undefined)
)

export const malformed = [
  "",
  "token",
  "a".repeat(42),
  "a".repeat(44),
  "a".repeat(10_000),
  `${"a".repeat(42)}\0`,
  "é".repeat(43)
]
