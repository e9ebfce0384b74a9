/**
 * What is explored: the package, or a copy of it with a fault in it, and session classes made by it. Two servers have a
 * class each, since what a class knows in a process, the other process does not.
 */
import { Schema } from "effect"
import type { Session, SessionStore, SessionStoreError } from "effect-sessions"
import { className, indexOf, type Value } from "./held.ts"
import type { Plan } from "./plan.ts"
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
  /** The session class of a process that has just been started. */
  readonly makeClass: (plan: Pick<Plan, "hasIdleTimeout" | "indexes">) => SessionClass
  /** That of the servers of a plan: made once for all plans of its kind. */
  readonly classesOf: (plan: Pick<Plan, "hasIdleTimeout" | "indexes">) => ReadonlyArray<SessionClass>
}

const ValueSchema: Schema.Codec<Value, Value> = Schema.Struct({
  user: Schema.NullOr(Schema.Int),
  log: Schema.Array(Schema.Int)
})

export const makeSubject = ({ Session, SessionStore, SessionStoreError }: Package): Subject => {
  const options = { schema: ValueSchema, initial: (): Value => ({ user: null, log: [] }), lifetime }
  const makeClass: Subject["makeClass"] = ({ hasIdleTimeout, indexes }) => {
    const timed = hasIdleTimeout ? { ...options, idleTimeout } : options
    if (indexes === undefined) {
      class UserSession extends Session.Service<UserSession>()(className, timed) {}
      return UserSession
    }
    class UserSession extends Session.Service<UserSession>()(className, {
      ...timed,
      indexes: { user: indexOf },
      maxSessions: { user: indexes.max }
    }) {}
    return UserSession
  }
  const known = new Map<string, ReadonlyArray<SessionClass>>()
  const classesOf: Subject["classesOf"] = (plan) => {
    const name = `${plan.hasIdleTimeout} ${plan.indexes?.max}`
    const classes = known.get(name) ?? [makeClass(plan), makeClass(plan)]
    known.set(name, classes)
    return classes
  }
  return { SessionStore, SessionStoreError, makeClass, classesOf }
}
