/**
 * The life of a few sessions, in a few seconds: committed, found, overwritten, deleted, listed, expired and swept.
 */
import { Clock, Console, DateTime, Duration, Effect, HashMap, Option } from "effect"
import { MemStore } from "effect-sessions"

const program = Effect.gen(function* () {
  const store = yield* MemStore
  const start = yield* Clock.currentTimeMillis

  const say = Effect.fnUntraced(function* (what: string, outcome: string) {
    const seconds = ((yield* Clock.currentTimeMillis) - start) / 1000
    yield* Console.log(`  ${seconds.toFixed(1)} s   ${what.padEnd(42)} ${outcome}`)
  })

  const commit = Effect.fnUntraced(function* (token: string, text: string, lifetime: Duration.Duration) {
    yield* store.commit(token, text, DateTime.addDuration(yield* DateTime.now, lifetime))
    yield* say(`commit ${token}`, `"${text}" for ${Duration.format(lifetime)}`)
  })

  const find = Effect.fnUntraced(function* (token: string) {
    const found = yield* store.find(token)
    yield* say(`find ${token}`, Option.match(found, { onNone: () => "nothing", onSome: (text) => `"${text}"` }))
  })

  const held = (what: string) =>
    Effect.flatMap(store.size, (size) => say(what, `${size} ${size === 1 ? "session" : "sessions"} in memory`))

  yield* Console.log("\nA session store in memory, swept every three seconds.\n")

  yield* commit("alice", "1 item in the cart", Duration.minutes(20))
  yield* commit("bob", "just looking", Duration.seconds(2))
  yield* commit("carol", "about to leave", Duration.minutes(20))
  yield* find("alice")
  yield* find("mallory")

  yield* Console.log("\nAlice adds an item, Carol logs out.\n")
  yield* commit("alice", "2 items in the cart", Duration.minutes(20))
  yield* find("alice")
  yield* store.delete("carol")
  yield* say("delete carol", "done")
  yield* find("carol")
  yield* say("all", [...HashMap.keys(yield* store.all)].sort().join(", "))

  yield* Console.log("\nBob's session is good for two seconds.\n")
  yield* Effect.sleep("2.2 seconds")
  yield* find("bob")
  yield* say("all", [...HashMap.keys(yield* store.all)].join(", "))
  yield* held("size: expired, but not yet swept")
  yield* Effect.sleep("1 second")
  yield* held("size: after the sweep")

  yield* store.stopCleanup
  yield* say("stopCleanup", "no more sweeps; the store works on")
  yield* find("alice")
  yield* Console.log("")
})

await Effect.runPromise(Effect.provide(program, MemStore.layerWithCleanupInterval("3 seconds")))
