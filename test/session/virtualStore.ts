/**
 * A store for the tests of sessions: a `MemStore` that notes what is asked of it, and that can be told to wait, to fail
 * or to hang, before or after an operation has done its work.
 */
import { Context, Deferred, Effect, Fiber, Layer } from "effect"
import { MemStore, SessionStore, SessionStoreError } from "effect-sessions"

export type Operation = "find" | "create" | "commit" | "replace" | "delete"

/** What goes wrong with an operation: whether its work is still done, and whether the caller gets an answer. */
export interface Fault {
  readonly when: "before" | "after"
  readonly how: "fails" | "hangs"
}

export const faults: ReadonlyArray<Fault> = [
  { when: "before", how: "fails" },
  { when: "after", how: "fails" },
  { when: "before", how: "hangs" },
  { when: "after", how: "hangs" }
]

/** The caller of the store, for a test that orders the calls of several. */
export const Caller = Context.Reference<string>("test/Caller", { defaultValue: () => "" })

export interface VirtualStoreControl {
  /** What was asked of the store, in order. May be emptied. */
  readonly calls: Array<Operation>
  /** Operations that fail before they do anything. */
  readonly failing: Set<Operation>
  /** What each operation waits for before it does anything. */
  gate: (operation: Operation, caller: string) => Effect.Effect<void>
  /** Makes the `n`th operation from now on go wrong, counted from 1, and returns whether that has happened. */
  readonly plan: (n: number, fault: Fault) => { readonly hasCome: () => boolean }
  /** Undoes `gate`, `failing` and `plan`. */
  readonly heal: () => void
}

const open = () => Effect.void

const make = Effect.gen(function* () {
  const store = yield* MemStore
  let asked = 0
  let planned: { readonly at: number; readonly fault: Fault } | undefined
  const control: VirtualStoreControl = {
    calls: [],
    failing: new Set(),
    gate: open,
    plan: (n, fault) => {
      const at = asked + n
      planned = { at, fault }
      return { hasCome: () => asked >= at }
    },
    heal: () => {
      control.gate = open
      control.failing.clear()
      planned = undefined
    }
  }
  const watched =
    <Args extends ReadonlyArray<unknown>, A>(operation: Operation, f: (...args: Args) => Effect.Effect<A>) =>
    (...args: Args): Effect.Effect<A, SessionStoreError> =>
      Effect.withFiber((fiber) => {
        control.calls.push(operation)
        const fault = ++asked === planned?.at ? planned.fault : undefined
        const error = Effect.fail(new SessionStoreError({ operation, cause: new Error("down") }))
        const trouble = fault?.how === "hangs" ? Effect.never : error
        if (control.failing.has(operation) || fault?.when === "before") return trouble
        const work = Effect.andThen(control.gate(operation, fiber.getRef(Caller)), f(...args))
        return fault?.when === "after" ? Effect.andThen(work, trouble) : work
      })
  const operations: SessionStore["Service"] = {
    ...store,
    find: watched("find", store.find),
    create: watched("create", store.create),
    commit: watched("commit", store.commit),
    replace: watched("replace", store.replace),
    delete: watched("delete", store.delete)
  }
  return Context.make(VirtualStore, control).pipe(Context.add(SessionStore, operations))
})

/** The settings of the store. */
export class VirtualStore extends Context.Service<VirtualStore, VirtualStoreControl>()("test/VirtualStore") {
  // Without cleanup: to adjust the clock by days is to wait for thousands of sweeps.
  static readonly layer: Layer.Layer<VirtualStore | SessionStore | MemStore> = Layer.effectContext(make).pipe(
    Layer.provideMerge(MemStore.layerWithCleanupInterval(0))
  )
}

/** Lets every fiber go on until none has anything left to do. */
export const settle: Effect.Effect<void> = Effect.repeat(Effect.yieldNow, { times: 20 })

/** Begins something, holds it before the first operation that `isHeld`, and lets it go on after something else. */
export const during = Effect.fnUntraced(function* <A, E, R, E2, R2>(
  slow: Effect.Effect<A, E, R>,
  meanwhile: Effect.Effect<unknown, E2, R2>,
  isHeld: (operation: Operation) => boolean = () => true
) {
  const store = yield* VirtualStore
  const latch = yield* Deferred.make<void>()
  let isTaken = false
  store.gate = (operation) =>
    Effect.suspend(() => {
      if (isTaken || !isHeld(operation)) return Effect.void
      isTaken = true
      return Deferred.await(latch)
    })
  const fiber = yield* Effect.forkChild(slow, { startImmediately: true })
  yield* settle
  yield* meanwhile
  yield* Deferred.succeed(latch, undefined)
  store.gate = open
  return yield* Fiber.join(fiber)
})
