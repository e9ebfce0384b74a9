/**
 * What is explored: the package, or a copy of it with a fault in it, and session classes made by it. Two servers have a
 * class each, since what a class knows in a process, the other process does not.
 */
import { Schema } from "effect"
import type { Session, SessionStore, SessionStoreError } from "effect-sessions"
import type { Value } from "./held.ts"
import type { SessionClass } from "./requests.ts"

export const idleTimeout = 1_200_000
export const touchInterval = 60_000
export const lifetime = 3_600_000

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
}

const ValueSchema: Schema.Codec<Value, Value> = Schema.Struct({
  user: Schema.NullOr(Schema.Int),
  log: Schema.Array(Schema.Int)
})

export const makeSubject = ({ Session, SessionStore, SessionStoreError }: Package): Subject => {
  const options = { schema: ValueSchema, initial: (): Value => ({ user: null, log: [] }), lifetime }
  const withLifetime = () => {
    class UserSession extends Session.Service<UserSession>()("explorer/UserSession", options) {}
    return UserSession
  }
  const withIdleTimeout = () => {
    class UserSession extends Session.Service<UserSession>()("explorer/UserSession", { ...options, idleTimeout }) {}
    return UserSession
  }
  return {
    SessionStore,
    SessionStoreError,
    withLifetime: [withLifetime(), withLifetime()],
    withIdleTimeout: [withIdleTimeout(), withIdleTimeout()]
  }
}
