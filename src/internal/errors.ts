/**
 * The errors of sessions, below all modules that fail with them. `Session` exports them.
 */
import { Schema } from "effect"
import type { SessionStoreError } from "../SessionStore.ts"

/**
 * Data in the store that does not decode as a session of this class, probably because its schema changed.
 *
 * Only a class with `undecodable: "fail"` fails with this. The `cause` says where the data did not fit, but does not
 * contain the data. There are two exceptions: the keys of a `Schema.Record`, and schemas whose own message quotes the
 * data, such as `Schema.SemVer`.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Session } from "effect-sessions"
 *
 * class Cart extends Session.Service<Cart>()("app/Cart", {
 *   schema: Schema.Array(Schema.String),
 *   initial: () => [],
 *   undecodable: "fail"
 * }) {}
 *
 * const open = Effect.catchTag(Cart.open(), "SessionDecodeError", (error) => Effect.die(error.message))
 * ```
 */
export class SessionDecodeError extends Schema.TaggedError<SessionDecodeError>("effect-sessions/SessionDecodeError")(
  "SessionDecodeError",
  {
    /** The key of the session class. */
    session: Schema.String,
    /** What did not fit. */
    cause: Schema.Defect()
  }
) {
  /** Names the class, and contains neither token nor value. */
  override get message(): string {
    return `${this.session}: a session in the store does not decode`
  }
}

/**
 * More than a thousand commits of one session wait in this process. This commit was not tried, and its changes are
 * kept: you can commit again later.
 *
 * Commits of one session take turns, so a client that sends requests with one cookie faster than the store can write
 * builds up a queue. The limit keeps that queue from growing without end. Requests of other sessions do not wait in it.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { HttpServerResponse } from "effect/http"
 * import { Session } from "effect-sessions"
 *
 * // The default response of HttpSession.
 * const onError = (error: Session.SessionError) =>
 *   Effect.succeed(HttpServerResponse.empty({ status: error._tag === "SessionBusyError" ? 503 : 500 }))
 * ```
 */
export class SessionBusyError extends Schema.TaggedError<SessionBusyError>("effect-sessions/SessionBusyError")(
  "SessionBusyError",
  {
    /** The key of the session class. */
    session: Schema.String
  }
) {
  /** Names the class, and contains neither token nor value. */
  override get message(): string {
    return `${this.session}: too many commits of one session are waiting`
  }
}

/**
 * What can go wrong with a session: the store failed, too many commits of the session wait, or the stored data does not
 * decode and the class has `undecodable: "fail"`.
 */
export type SessionError = SessionStoreError | SessionBusyError | SessionDecodeError
