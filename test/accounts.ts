/**
 * A session class with an index, for two processes.
 */
import { Schema } from "effect"
import { Session } from "effect-sessions"

export class AccountSession extends Session.Service<AccountSession>()("test/AccountSession", {
  schema: Schema.Struct({ user: Schema.optionalKey(Schema.String) }),
  initial: () => ({}),
  indexes: { user: ({ user }) => user }
}) {}
