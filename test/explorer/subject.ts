/**
 * What is explored: the package, or a copy of it with a fault in it, and session classes made by it. Two servers have a
 * class each, since what a class knows in a process, the other process does not.
 */
import { Schema } from "effect"
import type { Session, SessionStore, SessionStoreError } from "effect-sessions"
import { groupOf } from "./group.ts"
import type { Value } from "./held.ts"
import type { SessionClass } from "./requests.ts"

export const idleTimeout = 1_200_000
export const touchInterval = 60_000
export const lifetime = 3_600_000

export const sessionKey = "explorer/UserSession"

export interface Package {
  readonly Session: typeof Session
  readonly SessionStore: typeof SessionStore
  readonly SessionStoreError: typeof SessionStoreError
}

export interface Subject {
  readonly SessionStore: typeof SessionStore
  readonly SessionStoreError: typeof SessionStoreError
  readonly withLifetime: ReadonlyArray<SessionClass>
  readonly withIdleTimeout: ReadonlyArray<SessionClass>
  /** Indexed by group, with a bound on the sessions of a group if there is one. */
  readonly indexed: (hasIdleTimeout: boolean, max: number | undefined) => ReadonlyArray<SessionClass>
}

const ValueSchema: Schema.Codec<Value, Value> = Schema.Struct({
  user: Schema.NullOr(Schema.Int),
  log: Schema.Array(Schema.Int)
})

export const makeSubject = ({ Session, SessionStore, SessionStoreError }: Package): Subject => {
  const options = { schema: ValueSchema, initial: (): Value => ({ user: null, log: [] }), lifetime }
  const withLifetime = () => {
    class UserSession extends Session.Service<UserSession>()(sessionKey, options) {}
    return UserSession
  }
  const withIdleTimeout = () => {
    class UserSession extends Session.Service<UserSession>()(sessionKey, { ...options, idleTimeout }) {}
    return UserSession
  }
  const withIndex = (hasIdleTimeout: boolean, max: number | undefined) => {
    class UserSession extends Session.Service<UserSession>()(sessionKey, {
      ...options,
      idleTimeout: hasIdleTimeout ? idleTimeout : undefined,
      indexes: { group: ({ user }) => groupOf(user) },
      maxSessions: { group: max }
    }) {}
    const { destroyAllOf, open, sessions, sessionsOf } = UserSession
    const indexed: SessionClass = {
      open,
      sessions,
      membersOf: (group) => sessionsOf("group", group),
      endAllOf: (group, except) => destroyAllOf("group", group, { except })
    }
    return indexed
  }
  const indexed = new Map<string, ReadonlyArray<SessionClass>>()
  return {
    SessionStore,
    SessionStoreError,
    withLifetime: [withLifetime(), withLifetime()],
    withIdleTimeout: [withIdleTimeout(), withIdleTimeout()],
    indexed: (hasIdleTimeout, max) => {
      const name = `${hasIdleTimeout} ${max}`
      const known = indexed.get(name) ?? [withIndex(hasIdleTimeout, max), withIndex(hasIdleTimeout, max)]
      indexed.set(name, known)
      return known
    }
  }
}
