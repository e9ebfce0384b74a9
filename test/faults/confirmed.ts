/** Sessions with marks: each change adds a new one. And what must be true of confirmed changes. */
import { Effect, Option, Redacted, Schedule, Schema } from "effect"
import { Session } from "effect-sessions"
import { show } from "./history.ts"
import type { Operation } from "./linearizable.ts"

export class Marks extends Session.Service<Marks>()("faults/Marks", {
  schema: Schema.Array(Schema.Int),
  initial: () => []
}) {}

export type SessionInput =
  | { readonly name: "update"; readonly mark: number; readonly mostTries: number }
  | { readonly name: "look" }
  | { readonly name: "log out" }

export type SessionOutput =
  | { readonly saved: boolean; readonly tries: number }
  /** `null` if the session has ended. */
  | { readonly marks: ReadonlyArray<number> | null }
  | "logged out"

export type SessionOperation = Operation<SessionInput, SessionOutput>

const again = (times: number) => ({ schedule: Schedule.spaced("100 millis"), times })

/** Adds a mark, and tries to commit it so many times. */
export const update = Effect.fnUntraced(function* (
  token: string,
  { mark, mostTries, renews }: { readonly mark: number; readonly mostTries: number; readonly renews: boolean }
) {
  let tries = 0
  const session = yield* Marks.open(Redacted.make(token))
  yield* session.update((marks) => [...marks, mark])
  if (renews) yield* session.renewToken
  const commit = Effect.suspend(() => {
    tries++
    return session.commit
  })
  const committed = Option.map(yield* Effect.retry(commit, again(mostTries - 1)), ({ token }) => Redacted.value(token))
  // Under another token it is another session, which began because this one was not there.
  const saved = Option.filter(committed, (next) => renews || next === token)
  return { saved: Option.isSome(saved), tries, token: Option.getOrElse(saved, () => "") }
})

export const logOut = (token: string) =>
  Marks.open(Redacted.make(token)).pipe(
    Effect.flatMap((session) => session.destroy),
    Effect.retry(again(50)),
    Effect.as("logged out" as const)
  )

export const look = (token: string) =>
  Effect.gen(function* () {
    const session = yield* Marks.open(Redacted.make(token), { touch: false })
    return { marks: Option.isSome(yield* session.token) ? yield* session.get : null }
  })

interface Rules {
  readonly violations: Array<string>
  /** Changes that were made twice after a failure, as docs/reliability.md allows. */
  twice: number
}

const savedIn = ({ answer, input }: SessionOperation): boolean =>
  input.name === "update" && typeof answer?.output === "object" && "saved" in answer.output && answer.output.saved

const marksIn = ({ answer }: SessionOperation): ReadonlyArray<number> | null | undefined =>
  typeof answer?.output === "object" && "marks" in answer.output ? answer.output.marks : undefined

const triesOf = ({ answer }: SessionOperation): number | undefined =>
  typeof answer?.output === "object" && "tries" in answer.output ? answer.output.tries : undefined

/**
 * Did the commit of another one fail in the meantime? Commits that wait for each other are saved in one write. If that
 * has no answer, each continues alone, as if its own commit had failed.
 */
const hasFailedBeside = (operations: ReadonlyArray<SessionOperation>, { answer, called }: SessionOperation): boolean =>
  operations.some(
    (other) =>
      other.input.name === "update" &&
      (triesOf(other) ?? 2) > 1 &&
      other.called < (answer?.at ?? Number.POSITIVE_INFINITY) &&
      called < (other.answer?.at ?? Number.POSITIVE_INFINITY)
  )

/** No mark that was saved before a look is missing in it, and none is there more often than it was tried. */
const checkLook = (rules: Rules, operations: ReadonlyArray<SessionOperation>, looked: SessionOperation) => {
  const marks = marksIn(looked)
  if (marks == null) return
  for (const operation of operations) {
    const { answer, input } = operation
    if (input.name !== "update") continue
    const count = marks.filter((mark) => mark === input.mark).length
    const tries = (triesOf(operation) ?? input.mostTries) + (hasFailedBeside(operations, operation) ? 1 : 0)
    if (savedIn(operation) && (answer?.at ?? 0) < looked.called && count === 0) {
      rules.violations.push(`A confirmed change was lost:\n${show([operation, looked])}`)
    }
    if (count > tries) rules.violations.push(`A change was made ${count} times:\n${show([operation, looked])}`)
    if (count === 2) rules.twice++
  }
}

/** What is wrong with the history of one session. */
const checkSession = (rules: Rules, operations: ReadonlyArray<SessionOperation>): void => {
  const logOuts = operations.filter(({ input }) => input.name === "log out")
  const out = Math.min(...logOuts.map(({ answer }) => answer?.at ?? Number.POSITIVE_INFINITY))
  const began = Math.min(...logOuts.map(({ called }) => called))
  for (const operation of operations) {
    const { answer, called, input } = operation
    if (answer === undefined) continue
    const isActive = savedIn(operation) || marksIn(operation) != null
    if (called > out && isActive) rules.violations.push(`A log-out came undone:\n${show([...logOuts, operation])}`)
    const isEnded = input.name !== "log out" && !isActive
    if (answer.at < began && isEnded) rules.violations.push(`A session was lost:\n${show([operation])}`)
  }
  const looks = operations.filter((operation) => marksIn(operation) != null)
  // The last one sees everything that an earlier one saw.
  const last = looks.toSorted((a, b) => a.called - b.called).at(-1)
  if (last !== undefined) checkLook(rules, operations, last)
}

export const checkConfirmed = (operations: ReadonlyArray<SessionOperation>): Readonly<Rules> => {
  const rules: Rules = { violations: [], twice: 0 }
  for (const name of new Set(operations.map(({ on }) => on))) {
    checkSession(
      rules,
      operations.filter(({ on }) => on === name)
    )
  }
  return rules
}
