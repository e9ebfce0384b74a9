/** The types of the entry `effect-sessions`. Nothing here runs: `npm run check` compiles it. */
import { expectTypeOf } from "@effect/vitest"
import {
  type Cause,
  type Config,
  type Context,
  type DateTime,
  type Duration,
  Effect,
  type HashMap,
  type Layer,
  type Option,
  type Redacted,
  Schema,
  type Scope,
  type Stream
} from "effect"
import {
  MemStore,
  type MemStoreOperations,
  type MemStoreOptions,
  Session,
  type SessionEvent,
  type SessionEventBus,
  SessionEvents,
  SessionStore,
  SessionStoreError,
  type SessionStoreOperation,
  type SessionStoreOperations,
  type SessionStorePrimitives
} from "effect-sessions"

type Token = Redacted.Redacted<string>

const Cart = Schema.Struct({ user: Schema.optionalKey(Schema.String), items: Schema.Array(Schema.String) })
type Cart = typeof Cart.Type

class Carts extends Session.Service<Carts>()("app/Carts", {
  schema: Cart,
  initial: () => ({ items: [] }),
  indexes: { user: ({ user }) => user },
  maxSessions: { user: 5 }
}) {}

// Session.Service: the value comes from the schema, the names of the indexes from the options.
expectTypeOf(Carts.open).returns.toEqualTypeOf<
  Effect.Effect<Session.Session<Cart>, Session.SessionError, SessionStore>
>()
expectTypeOf(Carts.open).parameters.toEqualTypeOf<
  [token?: Token | undefined, options?: Session.OpenOptions | undefined]
>()
expectTypeOf(Carts.sessionsOf).parameter(0).toEqualTypeOf<"user">()
expectTypeOf<typeof Carts>().toExtend<Session.ServiceClass<Carts, "app/Carts", Cart, "user">>()
expectTypeOf(Effect.flatMap(Carts, ({ get }) => get)).toEqualTypeOf<Effect.Effect<Cart, never, Carts>>()
expectTypeOf(Session.Service<Carts>()("app/Dates", { schema: Schema.Date, initial: () => new Date(0) })).not.toBeAny()
// @ts-expect-error: the first value is not of the schema.
export const WrongInitial = Session.Service<Carts>()("app/Ints", { schema: Schema.Int, initial: () => "none" })
// @ts-expect-error: a session without a schema.
export const WithoutSchema = Session.Service<Carts>()("app/Ints", { initial: () => 0 })
export const WrongIndex = Session.Service<Carts>()("app/Carts", {
  schema: Cart,
  initial: () => ({ items: [] }),
  // @ts-expect-error: an index is a text, or nothing.
  indexes: { items: ({ items }) => items.length }
})
// @ts-expect-error: there is no such index.
export const unknownIndex = Carts.destroyAllOf("items", "1")

// Session.ServiceClass
type Class = Session.ServiceClass<Carts, "app/Carts", Cart, "user">
expectTypeOf<Class>().toExtend<Context.Key<Carts, Session.Session<Cart>>>()
expectTypeOf<Class["byId"]>().returns.toEqualTypeOf<
  Effect.Effect<Option.Option<Session.Session<Cart>>, Session.SessionError, SessionStore>
>()
expectTypeOf<Class["sessions"]>().toEqualTypeOf<Stream.Stream<Session.Session<Cart>, SessionStoreError, SessionStore>>()
expectTypeOf<Class["sessionsOf"]>().returns.toEqualTypeOf<Class["sessions"]>()
expectTypeOf<Class["destroyAllOf"]>().returns.toEqualTypeOf<Effect.Effect<number, SessionStoreError, SessionStore>>()
expectTypeOf<Class["events"]>().toEqualTypeOf<Stream.Stream<SessionEvent>>()
expectTypeOf<Session.ServiceClass<Carts, "app/Carts", Cart>["sessionsOf"]>().parameter(0).toBeNever()

// Session.Session: what asks the store can fail, and needs nothing, as the store was there when it was opened.
type Opened = Session.Session<Cart>
expectTypeOf<Opened["get"]>().toEqualTypeOf<Effect.Effect<Cart>>()
expectTypeOf<Opened["id"]>().toEqualTypeOf<Effect.Effect<Option.Option<string>>>()
expectTypeOf<Opened["token"]>().toEqualTypeOf<Effect.Effect<Option.Option<Token>>>()
expectTypeOf<Opened["status"]>().toEqualTypeOf<Effect.Effect<Session.Status>>()
expectTypeOf<Opened["commit"]>().toEqualTypeOf<Effect.Effect<Option.Option<Session.Committed>, Session.SessionError>>()
expectTypeOf<Opened["destroy"]>().toEqualTypeOf<Effect.Effect<void, SessionStoreError>>()
expectTypeOf<Opened["ended"]>().toEqualTypeOf<Effect.Effect<Session.Ending, SessionStoreError>>()
expectTypeOf<Opened["reload"]>().toEqualTypeOf<Effect.Effect<boolean, Session.SessionError>>()
expectTypeOf<Opened["merge"]>().returns.toEqualTypeOf<Effect.Effect<void, Session.SessionError>>()
expectTypeOf<Opened["renewToken" | "clear"]>().toEqualTypeOf<Effect.Effect<void>>()
expectTypeOf<Opened["set" | "update" | "setDeadline" | "setIdleTimeout" | "setRememberMe"]>().returns.toEqualTypeOf<
  Effect.Effect<void>
>()
expectTypeOf<Opened["createdAt" | "deadline" | "expiry" | "issuedAt" | "usedAt"]>().toEqualTypeOf<
  Effect.Effect<DateTime.Utc>
>()
declare const opened: Opened
expectTypeOf(opened.modify(({ items }) => [items.length, { items: [] }])).toEqualTypeOf<Effect.Effect<number>>()
// @ts-expect-error: the value is read-only.
export const readOnly = opened.update((cart) => Object.assign(cart, {}).items.push("1"))
// @ts-expect-error: an update returns a value of the schema.
export const notOfTheSchema = opened.update(({ items }) => items)

// The other types of Session.
expectTypeOf<Session.Status>().toEqualTypeOf<"unmodified" | "modified" | "destroyed" | "ended">()
expectTypeOf<Session.Ending>().toEqualTypeOf<"destroyed" | "renewed" | "expired">()
expectTypeOf<Session.Committed>().toEqualTypeOf<{
  readonly token: Token
  readonly isTokenNew: boolean
  readonly expiry: DateTime.Utc
  readonly isExpiryNew: boolean
  readonly rememberMe: boolean
  readonly isRememberMeNew: boolean
}>()
expectTypeOf<Session.OpenOptions>().toEqualTypeOf<{ readonly touch?: boolean | undefined }>()
type Options = Session.Options<Cart, Cart, "user">
expectTypeOf<Options["lifetime" | "idleTimeout" | "touchInterval" | "recheckInterval"]>().toEqualTypeOf<
  Duration.Input | undefined
>()
expectTypeOf<Options["undecodable"]>().toEqualTypeOf<"renew" | "fail" | undefined>()
expectTypeOf<Options["maxSessions"]>().toEqualTypeOf<{ readonly user?: number | undefined } | undefined>()
expectTypeOf<Options["schema"]>().toEqualTypeOf<Schema.Codec<Cart, Cart>>()

// Errors are distinguished by their tags, and can be yielded.
expectTypeOf<Session.SessionError>().toEqualTypeOf<
  SessionStoreError | Session.SessionBusyError | Session.SessionDecodeError
>()
expectTypeOf<Session.SessionBusyError["_tag"]>().toEqualTypeOf<"SessionBusyError">()
expectTypeOf<Session.SessionDecodeError["_tag"]>().toEqualTypeOf<"SessionDecodeError">()
expectTypeOf<SessionStoreError["_tag"]>().toEqualTypeOf<"SessionStoreError">()
expectTypeOf<SessionStoreError["operation"]>().toEqualTypeOf<SessionStoreOperation>()
expectTypeOf<Session.SessionError>().toExtend<Cause.YieldableError>()
expectTypeOf(Effect.catchTag(Carts.open(), "SessionDecodeError", () => Carts.open())).toEqualTypeOf<
  Effect.Effect<Opened, Session.SessionError, SessionStore>
>()
expectTypeOf(Effect.catchTag(opened.destroy, "SessionStoreError", () => Effect.void)).toEqualTypeOf<
  Effect.Effect<void>
>()
// @ts-expect-error: an operation of no store.
new SessionStoreError({ operation: "read", cause: undefined })

// The contract of a store.
expectTypeOf<SessionStore["Service"]>().toEqualTypeOf<SessionStoreOperations>()
expectTypeOf<SessionStoreOperation>().toEqualTypeOf<
  "find" | "create" | "commit" | "replace" | "delete" | "entries" | "all"
>()
expectTypeOf<SessionStorePrimitives<"e">["find"]>().toEqualTypeOf<
  (token: string) => Effect.Effect<Option.Option<string>, "e">
>()
expectTypeOf<SessionStorePrimitives<"e">["create" | "replace"]>().returns.toEqualTypeOf<Effect.Effect<boolean, "e">>()
expectTypeOf<SessionStorePrimitives<"e">["commit" | "delete"]>().returns.toEqualTypeOf<Effect.Effect<void, "e">>()
expectTypeOf<SessionStorePrimitives<"e">["entries"]>().toEqualTypeOf<
  Stream.Stream<readonly [token: string, data: string], "e">
>()
expectTypeOf<SessionStoreOperations<"e">["all"]>().toEqualTypeOf<Effect.Effect<HashMap.HashMap<string, string>, "e">>()
declare const primitives: SessionStorePrimitives<never>
expectTypeOf(SessionStore.make(primitives)).toExtend<SessionStoreOperations<never>>()
// A store that never fails is a store, and not the other way round.
expectTypeOf<SessionStoreOperations<never>>().toExtend<SessionStoreOperations>()
expectTypeOf<SessionStoreOperations>().not.toExtend<SessionStoreOperations<never>>()
// @ts-expect-error: a store that only finds.
SessionStore.of({ find: () => Effect.succeedNone })

// MemStore never fails, and its layer needs nothing.
expectTypeOf<MemStore["Service"]>().toEqualTypeOf<MemStoreOperations>()
expectTypeOf<MemStoreOperations>().toExtend<SessionStoreOperations<never>>()
expectTypeOf<MemStoreOperations["size"]>().toEqualTypeOf<Effect.Effect<number>>()
expectTypeOf<MemStoreOperations["stopCleanup"]>().toEqualTypeOf<Effect.Effect<void>>()
expectTypeOf<MemStoreOptions>().toEqualTypeOf<{
  readonly cleanupInterval?: Duration.Input | undefined
  readonly capacity?: number | undefined
}>()
expectTypeOf(MemStore.layer).toEqualTypeOf<Layer.Layer<MemStore | SessionStore>>()
expectTypeOf(MemStore.layerWith).toEqualTypeOf<(input: MemStoreOptions) => Layer.Layer<MemStore | SessionStore>>()
expectTypeOf(MemStore.layerWithCleanupInterval).returns.toEqualTypeOf<Layer.Layer<MemStore | SessionStore>>()
expectTypeOf(MemStore.layerConfig).returns.toEqualTypeOf<Layer.Layer<MemStore | SessionStore, Config.ConfigError>>()
expectTypeOf(MemStore.make).toEqualTypeOf<Effect.Effect<MemStoreOperations, never, Scope.Scope>>()
expectTypeOf(MemStore.makeWithCleanupInterval).returns.toEqualTypeOf<typeof MemStore.make>()
// @ts-expect-error: an interval is a duration.
MemStore.layerWith({ cleanupInterval: true })

// Events. SessionEvents has a default, so nothing requires it.
expectTypeOf<SessionEvent["_tag"]>().toEqualTypeOf<"Created" | "Renewed" | "Destroyed">()
expectTypeOf<Extract<SessionEvent, { _tag: "Renewed" }>["former"]>().toEqualTypeOf<string>()
expectTypeOf<SessionEvent["session" | "id"]>().toEqualTypeOf<string>()
expectTypeOf<SessionEventBus["publish"]>().toEqualTypeOf<(event: SessionEvent) => void>()
expectTypeOf<SessionEventBus["listen"]>().returns.toEqualTypeOf<() => void>()
expectTypeOf(SessionEvents).toExtend<Context.Reference<SessionEventBus>>()
expectTypeOf(SessionEvents.make).toEqualTypeOf<() => SessionEventBus>()
