import { assert, describe, it } from "@effect/vitest"
import { Cause, DateTime, Effect, Exit, Option, Redacted, Schema } from "effect"
import { MemStore, Session, SessionStore } from "effect-sessions"
import { makeEnvelope } from "../../src/internal/envelope.ts"
import type { Contents } from "../../src/internal/state.ts"
import { makeToken } from "../../src/internal/token.ts"
import { commit, keyOf, test } from "./fixtures.ts"

/** Nests in two levels of JSON at a time: an object and an array. */
interface Comment {
  readonly text: string
  readonly replies: ReadonlyArray<Comment>
}

const Comment = Schema.Struct({
  text: Schema.String,
  replies: Schema.Array(Schema.suspend((): Schema.Codec<Comment> => Comment))
})

/** The kind of schema that takes the most of the stack for each level. */
class Step extends Schema.Class<Step>("Step")({
  next: Schema.OptionFromNullOr(Schema.suspend((): Schema.Codec<Step, StepJson> => Step))
}) {}

interface StepJson {
  readonly next: StepJson | null
}

const nest = <A>(times: number, leaf: A, around: (inner: A) => A): A => {
  let nested = leaf
  for (let i = 0; i < times; i++) nested = around(nested)
  return nested
}

const commentOf = (levels: number): Comment =>
  nest<Comment>(levels / 2, { text: ']}[{"', replies: [] }, (reply) => ({ text: ']\\"}', replies: [reply] }))

const stepsOf = (levels: number): Step =>
  nest(levels - 1, new Step({ next: Option.none() }), (next) => new Step({ next: Option.some(next) }))

const listOf = (levels: number): Schema.Json => nest<Schema.Json>(levels - 1, [], (list) => [list])

class CommentSession extends Session.Service<CommentSession>()("test/CommentSession", {
  schema: Comment,
  initial: () => commentOf(0)
}) {}

class StepSession extends Session.Service<StepSession>()("test/StepSession", {
  schema: Step,
  initial: () => stepsOf(1)
}) {}

class JsonSession extends Session.Service<JsonSession>()("test/JsonSession", {
  schema: Schema.Json,
  initial: () => null
}) {}

class StrictStepSession extends Session.Service<StrictStepSession>()("test/StepSession", {
  schema: Step,
  initial: () => stepsOf(1),
  undecodable: "fail"
}) {}

const tooDeep = (key: string) => `TypeError: ${key}: the value does not fit its schema: It nests too deep`

const reasonOf = <A, E>(exit: Exit.Exit<A, E>): string =>
  Exit.isFailure(exit) ? String(Cause.squash(exit.cause)) : "no failure"

const comesBack = Effect.fnUntraced(function* <A>(
  { open }: Pick<Session.ServiceClass<unknown, string, A>, "open">,
  value: A
) {
  const session = yield* open()
  yield* session.set(value)
  const reopened = yield* open(yield* commit(session))
  assert.strictEqual(JSON.stringify(yield* reopened.get), JSON.stringify(value))
})

const contentsOf = <A>(value: A): Contents<A> => ({
  createdAt: 0,
  issuedAt: 0,
  usedAt: 0,
  deadline: 0,
  former: undefined,
  idleTimeout: null,
  rememberMe: false,
  memberOf: [],
  value
})

describe("a value that nests deep", () => {
  test("comes back from 256 levels, whatever the schema", function* () {
    yield* comesBack(CommentSession, commentOf(254))
    yield* comesBack(StepSession, stepsOf(256))
    yield* comesBack(JsonSession, listOf(256))
  })

  test("is refused at the commit from 257 levels on, before anything is written", function* () {
    for (const levels of [257, 4_178, 10_000]) {
      const json = yield* JsonSession.open()
      yield* json.set(listOf(levels))
      assert.strictEqual(reasonOf(yield* Effect.exit(json.commit)), tooDeep(JsonSession.key))
      const comments = yield* CommentSession.open()
      yield* comments.set(commentOf(levels - (levels % 2)))
      assert.strictEqual(reasonOf(yield* Effect.exit(comments.commit)), tooDeep(CommentSession.key))
      const steps = yield* StepSession.open()
      yield* steps.set(stepsOf(levels))
      assert.strictEqual(reasonOf(yield* Effect.exit(steps.commit)), tooDeep(StepSession.key))
    }
    assert.strictEqual(yield* (yield* MemStore).size, 0)
  })

  test("leaves what was saved before as it was", function* () {
    const session = yield* JsonSession.open()
    yield* session.set(["first"])
    const token = yield* commit(session)
    yield* session.set(listOf(257))
    yield* Effect.exit(session.commit)
    assert.deepStrictEqual(yield* (yield* JsonSession.open(token)).get, ["first"])
  })

  test("goes by how deep it nests, not by how many brackets it has", function* () {
    const session = yield* JsonSession.open()
    const wide: Schema.Json = ["[".repeat(2_000), Array.from({ length: 1_000 }, () => [{ "{\\": '"[' }])]
    yield* session.set(wide)
    const token = yield* commit(session)
    assert.deepStrictEqual(yield* (yield* JsonSession.open(token)).get, wide)
  })

  test("is data that does not decode if it stands in the store nevertheless", function* () {
    const store = yield* SessionStore
    const token = Redacted.make(makeToken())
    const deep = stepsJsonOf(10_000)
    const fields = '"createdAt":0,"issuedAt":0,"deadline":9007199254740991,"usedAt":0'
    yield* store.commit(
      keyOf(token),
      `{"version":1,"session":"test/StepSession",${fields},"value":${deep}}`,
      DateTime.makeUnsafe(9e15 / 2)
    )
    const error = yield* Effect.flip(StrictStepSession.open(token))
    assert.strictEqual(error._tag, "SessionDecodeError")
    const renewed = yield* StepSession.open(token)
    assert.deepStrictEqual(yield* renewed.get, stepsOf(1))
  })

  test("and an instant that no date has are taken alike: the data does not decode", function* () {
    const session = yield* StrictStepSession.open()
    yield* session.set(stepsOf(2))
    const token = yield* commit(session)
    const store = yield* SessionStore
    const text = Option.getOrThrow(yield* store.find(keyOf(token)))
    for (const field of ["createdAt", "issuedAt", "usedAt", "deadline"]) {
      const spoilt = text.replace(new RegExp(`"${field}":\\d+`), `"${field}":8640000000000001`)
      assert.notStrictEqual(spoilt, text)
      yield* store.commit(keyOf(token), spoilt, DateTime.makeUnsafe(9e12))
      assert.strictEqual((yield* Effect.flip(StrictStepSession.open(token)))._tag, "SessionDecodeError")
    }
  })

  test("may not be a circle either, and the failure does not name what is in it", function* () {
    const circle: Record<string, unknown> = {}
    circle.secretName = circle
    class AnySession extends Session.Service<AnySession>()("test/AnySession", {
      schema: Schema.Any,
      initial: () => null
    }) {}
    const session = yield* AnySession.open()
    yield* session.set(circle)
    const reason = reasonOf(yield* Effect.exit(session.commit))
    assert.strictEqual(reason, "TypeError: test/AnySession: the value does not fit its schema: It has no JSON")
  })

  it("decodes or fails, however deep the text", () => {
    const envelope = makeEnvelope("test/StepSession", Step)
    const text = Effect.runSync(envelope.encode(contentsOf(stepsOf(1))))
    for (const levels of [1_000, 2_000, 4_000, 10_000, 100_000]) {
      const exit = Effect.runSyncExit(
        Effect.suspend(() => envelope.decode(text.replace('{"next":null}', stepsJsonOf(levels))))
      )
      if (Exit.isFailure(exit)) assert.include(reasonOf(exit), "SessionDecodeError")
    }
  })
})

const stepsJsonOf = (levels: number): string => `${'{"next":'.repeat(levels)}null${"}".repeat(levels)}`
