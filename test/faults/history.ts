/** The calls of clients and their answers, recorded as they happen, and shown to a person. */
import { Effect } from "effect"
import type { Operation, RegisterOperation, Verdict } from "./linearizable.ts"

/** One line of a history. What has no answer yet may have happened, or may happen later. */
export type Entry<I, O> =
  | ({ readonly id: string } & Omit<Operation<I, O>, "answer">)
  | { readonly id: string; readonly answer: { readonly at: number; readonly output: O } }

/** The clock that all processes of a machine share. */
const now = (): number => Number(process.hrtime.bigint())

/** Records what a client does: the call before it is made, and the answer after it arrives. A failure is no answer. */
export const makeRecorder = <I, O>(client: string, append: (entry: Entry<I, O>) => void) => {
  let count = 0
  return <A extends O, E, R>(on: string, input: I, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.suspend(() => {
      const id = `${client} ${count++}`
      append({ id, client, on, input, called: now() })
      return Effect.tap(effect, (output) => Effect.sync(() => append({ id, answer: { at: now(), output } })))
    })
}

export const operationsOf = <I, O>(entries: ReadonlyArray<Entry<I, O>>): ReadonlyArray<Operation<I, O>> => {
  const answers = new Map(entries.flatMap((entry) => ("answer" in entry ? [[entry.id, entry.answer] as const] : [])))
  return entries.flatMap((entry) => ("answer" in entry ? [] : [{ ...entry, answer: answers.get(entry.id) }]))
}

/** One operation a line, in milliseconds since the first one. */
export const show = (operations: ReadonlyArray<Operation<unknown, unknown>>): string => {
  const sorted = operations.toSorted((a, b) => a.called - b.called)
  const since = (at: number) => ((at - (sorted[0]?.called ?? 0)) / 1e6).toFixed(3).padStart(10)
  return sorted
    .map(({ answer, called, client, input, on }) => {
      const end = answer === undefined ? "  no answer" : `${since(answer.at)}: ${JSON.stringify(answer.output)}`
      return `${since(called)} to ${end}   ${client}, ${on}: ${JSON.stringify(input)}`
    })
    .join("\n")
}

/** What had to do with the place at which a search was stuck. */
export const showStuck = (operations: ReadonlyArray<RegisterOperation>, { stuck }: Verdict): string => {
  const from = Math.min(...stuck.operations.map(({ called }) => called)) - 20e6
  const until = Math.max(...stuck.operations.map(({ answer, called }) => answer?.at ?? called))
  const near = operations.filter(
    ({ answer, called, input }) => called <= until && (answer === undefined ? input.name !== "find" : answer.at >= from)
  )
  return `Nothing fits once ${JSON.stringify(stuck.state)} stands there. Within 20 ms of that:\n${show(near)}`
}
