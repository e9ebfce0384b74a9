/**
 * What must hold whatever the library is given: it answers, it takes what it does not know for nothing, and no secret
 * leaves it.
 */
import { strict as assert } from "node:assert"
import { inspect } from "node:util"
import { Context, DateTime, Effect, Exit, Layer, Option, Predicate, Redacted, Schema, Stream } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { MemStore, Session, SessionStore } from "effect-sessions"
import { HttpSession } from "effect-sessions/http"
import fc from "fast-check"
import { makeEnvelope } from "../../src/internal/envelope.ts"
import { isIn, tokensOf } from "../../src/internal/sessionCookie.ts"
import { hashToken, isToken } from "../../src/internal/token.ts"
import { makeKey, seal, unseal } from "../../src/sealed/sealing.ts"
import {
  classOptions,
  cookieHeader,
  cookieName,
  headers,
  middlewareOptions,
  spoilt,
  spoiltText,
  token
} from "./arbitraries.ts"
import { holdsNone, makeWitness, secrets } from "./witness.ts"

const User = Schema.Struct({ userId: Schema.optionalKey(Schema.String), note: Schema.String, more: Schema.Json })

const options = {
  schema: User,
  initial: (): typeof User.Type => ({ note: "", more: null }),
  indexes: { user: ({ userId }: typeof User.Type) => userId }
}

class UserSession extends Session.Service<UserSession>()("fuzz/UserSession", { ...options, idleTimeout: "1 hour" }) {}

class StrictSession extends Session.Service<StrictSession>()("fuzz/UserSession", { ...options, undecodable: "fail" }) {}

const saved = { userId: secrets.user, note: secrets.value, more: [secrets.value] }

/** A session that holds secrets, and its text in the store. */
const known = await Effect.runPromise(
  Effect.gen(function* () {
    const session = yield* UserSession.open()
    yield* session.set(saved)
    const { token } = Option.getOrThrow(yield* session.commit)
    const id = Option.getOrThrow(yield* session.id)
    const store = yield* SessionStore
    const entries = yield* Stream.runCollect(store.entries)
    return { id, token: Redacted.value(token), entries: entries.map(([key, text]) => ({ key, text })) }
  }).pipe(Effect.provide(MemStore.layerWithCleanupInterval(0)))
)

const knownText = known.entries.find(({ key }) => key === known.id)?.text ?? assert.fail("no session")
const knownIndex = known.entries.find(({ key }) => key !== known.id) ?? assert.fail("no index record")

/** The store as it was when the session had been saved. */
const stored = Layer.effectDiscard(
  Effect.gen(function* () {
    const store = yield* SessionStore
    const expiry = DateTime.add(yield* DateTime.now, { hours: 1 })
    for (const { key, text } of known.entries) yield* store.commit(key, text, expiry)
  })
).pipe(Layer.provideMerge(MemStore.layerWithCleanupInterval(0)))

const allSecrets = [known.token, secrets.value, secrets.user]

/** Reads a `Cookie` header in the plainest way. */
const plainTokensOf = (header: string): ReadonlyArray<string> => {
  const values = header.split(";").flatMap((pair) => {
    const equals = pair.indexOf("=")
    const trim = (text: string) => text.replace(/^[ \t]+|[ \t]+$/g, "")
    if (equals === -1 || trim(pair.slice(0, equals)) !== cookieName) return []
    const value = trim(pair.slice(equals + 1))
    return [/^"[^"]{43}"$/.test(value) ? value.slice(1, -1) : value]
  })
  return [...new Set(values.filter((value) => /^[A-Za-z0-9_-]{43}$/.test(value)))].slice(0, 4)
}

const update = Effect.gen(function* () {
  const session = yield* UserSession
  yield* session.update((user) => ({ ...user, more: null }))
  return HttpServerResponse.text("done")
})

const handlerOf = (handler: typeof update, options?: HttpSession.Options) => {
  const witness = makeWitness()
  const web = HttpRouter.toWebHandler(
    HttpRouter.add("*", "/*", handler).pipe(
      Layer.provide(HttpSession.middleware(UserSession, options).layer),
      Layer.provide(stored),
      Layer.provideMerge(witness.layer)
    ),
    { disableLogger: true }
  )
  return { witness, ...web }
}

const bearer: HttpSession.Options = { carrier: "bearer" }

const request = (given: ReadonlyArray<readonly [string, string]>): Request | undefined => {
  try {
    const headers = new Headers()
    for (const [name, value] of given) headers.append(name, value)
    return new Request("http://localhost/", { method: given.length % 2 === 0 ? "GET" : "POST", headers })
  } catch {
    // No server would hand on such headers either.
    return undefined
  }
}

/** Sends a request, and holds that it is answered without a fault and without a secret. */
const answers = async (given: ReadonlyArray<readonly [string, string]>, options?: HttpSession.Options) => {
  const sent = request(given)
  if (sent === undefined) return
  const { dispose, handler, witness } = handlerOf(update, options)
  try {
    const response = await handler(sent, Context.empty())
    witness.see([response.status, ...response.headers, await response.text()])
    assert.ok(response.status === 200 || response.status === 403, `status ${response.status}`)
    holdsNone(witness, allSecrets)
  } finally {
    await dispose()
  }
}

/** All that an application may do with a session, one after the other. */
const useAll = (Class: typeof UserSession | typeof StrictSession, token: string) =>
  Effect.gen(function* () {
    const session = yield* Class.open(Redacted.make(token))
    yield* session.reload
    yield* Effect.all([session.get, session.expiry, session.deadline, session.createdAt, session.usedAt, session.id])
    yield* session.update((user) => ({ ...user, more: 1 }))
    yield* session.commit
    yield* session.renewToken
    yield* session.commit
    const other = yield* Class.open()
    yield* other.merge(Redacted.make(token), (mine) => mine)
    yield* other.set({ ...saved, note: "" })
    yield* other.commit
    yield* Stream.runDrain(Class.sessions)
    yield* Stream.runDrain(Class.sessionsOf("user", secrets.user))
    yield* Class.byId(known.id)
    yield* Class.destroyAllOf("user", secrets.user)
    yield* session.destroy
  })

/** Replaces one text by another, and checks that everything still works, or fails as documented. */
const survives = async (key: string, text: string) => {
  for (const Class of [UserSession, StrictSession]) {
    const witness = makeWitness()
    const exit = await witness.run(
      Effect.gen(function* () {
        const store = yield* SessionStore
        yield* store.commit(key, text, DateTime.add(yield* DateTime.now, { hours: 1 }))
        yield* useAll(Class, known.token)
      }).pipe(
        Effect.catchTag("SessionDecodeError", (error) =>
          Effect.sync(() => {
            witness.see([error, error.message, error.cause, String(error.stack), JSON.stringify(error)])
            assert.equal(Class, StrictSession)
          })
        ),
        Effect.provide(stored)
      )
    )
    holdsNone(witness, allSecrets)
    assert.ok(Exit.isSuccess(exit), inspect(exit, { depth: 8 }))
  }
}

const envelope = makeEnvelope("fuzz/UserSession", User)

const sealingKey = makeKey(known.token) ?? assert.fail("no key")
const sealed = seal(sealingKey, known.id, knownText)

/** Makes something of options, and holds that what is refused is refused with a `TypeError`. */
const makes = <A>(make: () => A): A | undefined => {
  try {
    return make()
  } catch (error) {
    assert.ok(error instanceof TypeError, inspect(error))
    return undefined
  }
}

export type Property = fc.IAsyncProperty<[unknown]>

export const properties: Readonly<Record<string, Property>> = {
  "a Cookie header is read as in the plainest way": fc.asyncProperty(cookieHeader(known.token), async (header) => {
    const tokens = tokensOf(header, cookieName)
    assert.deepEqual(tokens, plainTokensOf(header))
    if (tokens.length > 0) assert.ok(isIn(header, cookieName))
  }),
  "a Cookie header is answered": fc.asyncProperty(cookieHeader(known.token), (header) => answers([["cookie", header]])),
  "headers are answered": fc.asyncProperty(headers(known.token), async (given) => {
    await answers(given)
    await answers(given, bearer)
  }),
  "a text that is no token opens a new session": fc.asyncProperty(
    fc.oneof(token, fc.string({ unit: "binary" }), cookieHeader(known.token)),
    async (text) => {
      assert.equal(isToken(text), /^[A-Za-z0-9_-]{43}$/.test(text))
      assert.ok(isToken(hashToken(text)))
      const witness = makeWitness()
      const value = await witness.run(
        Effect.provide(
          Effect.flatMap(UserSession.open(Redacted.make(text)), ({ get }) => get),
          stored
        )
      )
      assert.deepEqual(value, Exit.succeed(text === known.token ? saved : options.initial()))
      if (text.length > 8) holdsNone(witness, [text, ...allSecrets])
    }
  ),
  "data of a session is read, or does not decode": fc.asyncProperty(spoilt(knownText), async (text) => {
    const exit = Effect.runSyncExit(Effect.suspend(() => envelope.decode(text)))
    if (Exit.isSuccess(exit)) return
    const [reason] = exit.cause.reasons
    assert.ok(reason?._tag === "Fail" && Predicate.isTagged(reason.error, "SessionDecodeError"), inspect(exit))
  }),
  "data of a session that is spoilt stops nobody": fc.asyncProperty(spoilt(knownText), (text) =>
    survives(known.id, text)
  ),
  "an index record that is spoilt stops nobody": fc.asyncProperty(spoilt(knownIndex.text), (text) =>
    survives(knownIndex.key, text)
  ),
  "sealed data that is spoilt, or is of another place, is not opened": fc.asyncProperty(
    fc.tuple(spoiltText(sealed), fc.string()),
    async ([text, place]) => {
      if (text !== sealed) assert.equal(unseal(sealingKey, known.id, text), undefined)
      assert.equal(unseal(sealingKey, place, sealed), undefined)
    }
  ),
  "class options are refused with a reason, or work": fc.asyncProperty(classOptions, async (given) => {
    // Not what the types let through, and what JavaScript may hand over nevertheless.
    const Class: Pick<typeof UserSession, "open"> | undefined = makes(() =>
      Reflect.apply(Session.Service<UserSession>(), undefined, ["fuzz/Any", { ...options, ...given }])
    )
    if (Class === undefined) return
    const exit = await makeWitness().run(
      Effect.gen(function* () {
        const session = yield* Class.open()
        yield* session.set(saved)
        yield* session.commit
        yield* session.renewToken
        yield* session.commit
      }).pipe(Effect.provide(stored))
    )
    assert.ok(Exit.isSuccess(exit), inspect(exit, { depth: 8 }))
  }),
  "middleware options are refused with a reason, or work": fc.asyncProperty(middlewareOptions, async (given) => {
    const made = makes(() => Reflect.apply(HttpSession.middleware, undefined, [UserSession, given]))
    if (made === undefined) return
    await answers([], given as HttpSession.Options)
  })
}
