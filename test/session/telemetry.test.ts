import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Metric, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import { withSpans } from "../telemetry.ts"
import { IdleSession, IdleSessionElsewhere, logIn, NewerSession, stored, test, UserSession, visit } from "./fixtures.ts"
import { VirtualStore } from "./virtualStore.ts"

describe("Session", () => {
  describe("spans", () => {
    test("name the class and what is done, and show neither token nor value", () =>
      withSpans((spans) =>
        Effect.gen(function* () {
          const { open } = yield* stored(UserSession)
          const session = yield* open
          yield* session.update(logIn("ada"))
          yield* session.commit
          assert.deepStrictEqual(
            spans.map(({ name }) => name),
            ["Session.commit", "Session.open", "Session.commit"]
          )
          for (const { attributes, events, status } of spans) {
            assert.deepStrictEqual([...attributes], [["session", "test/UserSession"]])
            assert.deepStrictEqual(events, [])
            // Nor does one end with a value, which a tracer may show.
            const exit = status._tag === "Ended" ? status.exit : assert.fail("a span that did not end")
            assert.deepStrictEqual(exit, Exit.void)
          }
        })
      ))

    test("are made of what asks something of the store, and of nothing else", () =>
      withSpans((spans) =>
        Effect.gen(function* () {
          const names = () => spans.splice(0).map(({ name }) => name)
          yield* (yield* UserSession.open()).commit
          assert.deepStrictEqual(names(), [])
          const { open } = yield* stored(UserSession)
          yield* (yield* open).commit
          assert.deepStrictEqual(names(), ["Session.commit", "Session.open"])
          const idle = yield* stored(IdleSession)
          yield* (yield* idle.open).commit
          assert.deepStrictEqual(names(), ["Session.commit", "Session.open"])
          const [listed] = yield* Stream.runCollect(IdleSession.sessions)
          const visitor = yield* IdleSession.open()
          names()
          yield* TestClock.adjust("1 minute")
          // A session of a list is not used, and one that is not stored has no expiry to move.
          if (listed === undefined) return assert.fail("not listed")
          yield* listed.commit
          yield* visitor.commit
          const ended = yield* open
          const late = yield* open
          yield* ended.destroy
          yield* late.update(visit)
          yield* late.commit
          names()
          // It is known to have ended.
          yield* late.update(visit)
          yield* late.commit
          assert.deepStrictEqual(names(), [])
          yield* (yield* idle.open).commit
          assert.deepStrictEqual(names(), ["Session.open", "Session.commit"])
        })
      ))
  })

  describe("metrics", () => {
    test("count by class what was created, destroyed, tried again and not decoded", () =>
      Effect.gen(function* () {
        const { open, token } = yield* stored(UserSession)
        const [slow, fast] = [yield* open, yield* open]
        for (const session of [slow, fast]) {
          yield* session.update(visit)
          yield* session.commit
        }
        yield* NewerSession.open(token)
        // Neither a renewal nor a commit of what has ended is a new session or a conflict.
        yield* fast.renewToken
        yield* fast.commit
        yield* slow.update(visit)
        yield* slow.commit
        yield* fast.destroy
        const metrics = (yield* Metric.snapshot).filter(({ attributes }) => attributes?.session === "test/UserSession")
        assert.isTrue(metrics.every(({ state }) => "incremental" in state && state.incremental))
        const counts = metrics.map(({ id, state }) => [id, "count" in state ? state.count : state] as const)
        assert.deepStrictEqual(Object.fromEntries(counts), {
          sessions_created: 1,
          session_conflicts: 1,
          sessions_undecodable: 1,
          sessions_destroyed: 1
        })
      }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))

    const assertNoConflict = Effect.map(Metric.snapshot, (metrics) =>
      assert.isFalse(metrics.some(({ id }) => id === "session_conflicts"))
    )

    test("count no conflict with a write of the session's own, which had arrived", () =>
      Effect.gen(function* () {
        const spy = yield* VirtualStore
        const session = yield* (yield* stored(UserSession)).open
        yield* session.update(visit)
        spy.plan(1, { when: "after", how: "fails" })
        yield* Effect.flip(session.commit)
        yield* session.commit
        yield* assertNoConflict
      }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))

    test("count no conflict of a session that is only touched, and no log-out of one that is not stored", () =>
      Effect.gen(function* () {
        yield* (yield* UserSession.open()).destroy
        const { open } = yield* stored(IdleSession)
        const touched = yield* open
        const changed = yield* open
        yield* TestClock.adjust("10 minutes")
        yield* changed.update(visit)
        yield* changed.commit
        const elsewhere = yield* IdleSessionElsewhere.open((yield* changed.token).pipe(Option.getOrThrow))
        yield* elsewhere.update(visit)
        yield* elsewhere.commit
        yield* TestClock.adjust("10 minutes")
        yield* touched.commit
        yield* assertNoConflict
        assert.isFalse((yield* Metric.snapshot).some(({ id }) => id === "sessions_destroyed"))
      }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))

    test("count no conflict with what a renewal that failed has put back", () =>
      Effect.gen(function* () {
        const spy = yield* VirtualStore
        const session = yield* (yield* stored(UserSession)).open
        yield* session.renewToken
        spy.plan(3, { when: "before", how: "fails" })
        yield* Effect.flip(session.commit)
        yield* session.commit
        yield* assertNoConflict
      }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))
  })
})
