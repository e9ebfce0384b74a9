/**
 * What must be true. The model is told of each write that reaches the store, of what requests intend and of what they
 * were told, and says what was broken.
 *
 * A **line** is a session over all of its renewals. Each change is known by a number of its own, so it can be counted.
 * Some losses are excused: a line that was logged out or has expired, and one for which a commit failed and was given
 * up.
 */
import { createHash } from "node:crypto"
import { type Held, parse, recordOf } from "./held.ts"
import { IndexModel } from "./indexModel.ts"

export type Rule =
  | "a change that was confirmed is lost"
  | "a change was confirmed under a token that never had it"
  | "a change was dropped without a reason"
  | "a change was made twice"
  | "a change is in two sessions"
  | "a log-out came undone"
  | "a log-out had no effect"
  | "a session is active that nobody has the token of"
  | "a session is lost"
  | "a renewal that was cut off lost the session"
  | "a merge that was given up lost a value"
  | "a merge lost a value"
  | "two tokens open one session"
  | "an expiry moved back"
  | "a session outlives its idle timeout"
  | "a session expires before its idle timeout"
  | "the browser is not what its user was told"
  | "what is not handed out is listed"
  | "what was read is out of date"
  | "a token opens what it must not"
  | "a session shows what is not its own"
  | "a session escaped the end of all"
  | "a session that was to be spared is ended"
  | "a session is ended needlessly"
  | "a user has too many sessions"
  | "an index lacks a session"
  | "a list lacks a session"
  | "a list has what is not to be in it"
  | "a log-in kept the token"
  | "something died"
  | "it never came to rest"

export interface Violation {
  readonly rule: Rule
  readonly detail: string
}

export interface Entry {
  readonly text: string
  readonly expiry: number
}

/** A session that is active at the end. */
interface Active {
  readonly known: Key
  readonly line: Line
  readonly log: ReadonlyArray<number>
}

/** The caller of the store, as far as the model needs to know. */
export interface Caller {
  readonly id: number
  readonly touch: boolean
  /** When it opened its session. */
  readonly openedAt: number
  /** The key of its session, if it has one. */
  readonly key: string | undefined
}

export interface Line {
  parent: Line | undefined
  /** A request asked to end it, and may have been told that it has ended. */
  endings: number
  /** Of these, to make room for another. */
  endingsForRoom: number
  isEnded: boolean
  /** It ended before this was written. */
  hasExpired: boolean
  /** Renewals whose result nobody was told. */
  isAtRisk: boolean
  /** A renewal took longer than the minute that it may be pending. */
  wasSlow: boolean
  /** More than one thing went wrong, so the clean-up after the first fault failed too. */
  isHopeless: boolean
  /** Merged into another session: certainly, or without confirmation. */
  isMerged: boolean
  isMaybeMerged: boolean
  /** The sessions that have taken it in, or tried to. */
  readonly mergedInto: Set<string>
  /** A commit has failed, so for a while its value may exist only in the memory of that request. */
  hasFailed: boolean
  lastUse: number
  lastHanded: string | undefined
}

export interface Key {
  readonly key: string
  readonly name: string
  readonly order: number
  line: Line
  creator: number | undefined
  predecessor: string | undefined
  isHanded: boolean
  /** The write by which it last became an active session. */
  activeSince: number
  /** The write by which it last ceased to be one. */
  inactiveSince: number
  /** When its tombstone goes, and with it what a log-out by this token is led on by. */
  tombstoneEnd: number | undefined
  readonly writers: Array<{ readonly at: number; readonly by: number | undefined }>
}

interface Change {
  readonly id: number
  readonly request: number
  line: Line | undefined
  isConfirmed: boolean
  /** Keys under which it stood in an active session. */
  readonly seenUnder: Set<string>
  firstSeen: number
  wasDoubledByOthers: boolean
  /** A merge that took it in was given up. */
  mayBeInTwo: boolean
}

const hashes = new Map<string, string>()

/** The key of a token in the store. */
export const hashOf = (token: string): string => {
  const known = hashes.get(token)
  if (known !== undefined) return known
  if (hashes.size > 2000) hashes.clear()
  const hash = createHash("sha256").update(token).digest("base64url")
  hashes.set(token, hash)
  return hash
}

export interface Counts {
  expired: number
  /**
   * A change that a commit made again because another request wrote between its first write, which failed, and its
   * next.
   */
  doubledAfterOthers: number
  /** A change that is in two sessions: a merge was given up, or others wrote between its failure and its next try. */
  inTwoSessions: number
  /** A response with an older token arrived after one with a newer token. */
  staleCookies: number
  browsersChecked: number
  /** A log-out by a token whose tombstone had expired: it ends nothing. */
  logOutsAfterTombstone: number
  /** More than one thing went wrong in one try of a commit that was given up. */
  excusedAsCutOff: number
  /** A renewal took longer than a minute. */
  excusedAsSlow: number
}

export const noCounts = (): Counts => ({
  expired: 0,
  doubledAfterOthers: 0,
  inTwoSessions: 0,
  staleCookies: 0,
  browsersChecked: 0,
  logOutsAfterTombstone: 0,
  excusedAsCutOff: 0,
  excusedAsSlow: 0
})

const newLine = (): Line => ({
  parent: undefined,
  endings: 0,
  endingsForRoom: 0,
  isEnded: false,
  hasExpired: false,
  isAtRisk: false,
  wasSlow: false,
  isHopeless: false,
  isMerged: false,
  isMaybeMerged: false,
  mergedInto: new Set(),
  hasFailed: false,
  lastUse: 0,
  lastHanded: undefined
})

const root = (line: Line): Line => (line.parent === undefined ? line : root(line.parent))

const isActiveSession = (held: Held | undefined): held is Held & { readonly _tag: "Session" } =>
  held?._tag === "Session"

export interface ModelOptions {
  readonly now: () => number
  readonly entries: ReadonlyMap<string, Entry>
  readonly idleTimeout: number | undefined
  readonly touchInterval: number
  readonly lifetime: number
  /** `undefined` without indexes. */
  readonly maxSessions: number | undefined
}

export class Model {
  readonly violations: Array<Violation> = []
  readonly counts = noCounts()
  readonly keys = new Map<string, Key>()
  readonly indexes: IndexModel | undefined
  readonly #options: ModelOptions
  readonly #changes = new Map<number, Change>()
  readonly #expired = new Set<string>()
  readonly #gaveUp = new Set<number>()
  readonly #committing = new Set<Caller>()
  #writes = 0

  constructor(options: ModelOptions) {
    this.#options = options
    const { maxSessions, now } = options
    this.indexes = maxSessions === undefined ? undefined : new IndexModel(this, now, maxSessions)
  }

  fail(rule: Rule, detail: string): void {
    this.violations.push({ rule, detail })
  }

  /** The name of a session in a history: `s1` for the first. */
  nameOf(key: string): string {
    const record = recordOf(key)
    return record === undefined ? (this.keys.get(key)?.name ?? "an unknown session") : `index ${record}`
  }

  lineOf(key: string): Line | undefined {
    const known = this.keys.get(key)
    return known === undefined ? undefined : root(known.line)
  }

  /** Whether two keys belong to the same line. */
  areOneLine(one: string, other: string): boolean {
    return this.lineOf(one) !== undefined && this.lineOf(one) === this.lineOf(other)
  }

  /** What is under a key now. */
  held(key: string): Held | undefined {
    const entry = this.#options.entries.get(key)
    return entry === undefined || entry.expiry < this.#options.now() ? undefined : parse(entry.text)
  }

  isActive(key: string): boolean {
    return isActiveSession(this.held(key))
  }

  /** Whether it was, at any time since so many writes had reached the store. */
  wasActiveSince(key: string, writes: number): boolean {
    const entry = this.#options.entries.get(key)
    // It may have expired since.
    if (entry !== undefined && isActiveSession(parse(entry.text))) return true
    return (this.keys.get(key)?.inactiveSince ?? 0) > writes
  }

  #link(one: string, other: string): void {
    const [a, b] = [this.lineOf(one), this.lineOf(other)]
    if (a === undefined || b === undefined || a === b) return
    b.parent = a
    a.endings += b.endings
    a.endingsForRoom += b.endingsForRoom
    a.isEnded ||= b.isEnded
    a.hasExpired ||= b.hasExpired
    a.isAtRisk ||= b.isAtRisk
    a.wasSlow ||= b.wasSlow
    a.isHopeless ||= b.isHopeless
    a.isMerged ||= b.isMerged
    a.isMaybeMerged ||= b.isMaybeMerged
    a.hasFailed ||= b.hasFailed
    for (const key of b.mergedInto) a.mergedInto.add(key)
    a.lastUse = Math.max(a.lastUse, b.lastUse)
    a.lastHanded = b.lastHanded ?? a.lastHanded
  }

  #keyOf(key: string, by: Caller | undefined): Key {
    const known = this.keys.get(key)
    if (known !== undefined) return known
    const order = this.keys.size + 1
    const made: Key = {
      key,
      name: `s${order}`,
      order,
      line: newLine(),
      creator: by?.id,
      predecessor: by?.key,
      isHanded: false,
      activeSince: 0,
      inactiveSince: 0,
      tombstoneEnd: undefined,
      writers: []
    }
    made.line.lastUse = this.#options.now()
    made.line.isAtRisk = by !== undefined && this.#gaveUp.has(by.id)
    this.keys.set(key, made)
    if (by?.key !== undefined) this.#link(by.key, key)
    return made
  }

  /** A request that counts as use is asking the store for something. */
  onUse(caller: Caller): void {
    const line = caller.key === undefined ? undefined : this.lineOf(caller.key)
    if (line !== undefined && caller.touch) line.lastUse = this.#options.now()
  }

  /** A request that counts as use has begun a commit, which another's write may take along. */
  onCommitting(caller: Caller): void {
    if (caller.touch) this.#committing.add(caller)
  }

  onCommitOver(caller: Caller): void {
    this.#committing.delete(caller)
  }

  /** A write has reached the store. `after` is undefined if it removed what was there. */
  onWrite(
    key: string,
    before: Entry | undefined,
    after: Entry | undefined,
    caller: Caller | undefined,
    calledAt: number
  ): void {
    const at = ++this.#writes
    const record = recordOf(key)
    if (record !== undefined) {
      this.indexes?.onRecord(record, before, after, caller)
      return
    }
    const known = this.#keyOf(key, caller)
    known.writers.push({ at, by: caller?.id })
    if (before === undefined || !isActiveSession(parse(before.text))) known.activeSince = at
    const held = after === undefined ? undefined : parse(after.text)
    if (before !== undefined && isActiveSession(parse(before.text)) && !isActiveSession(held)) known.inactiveSince = at
    if (held !== undefined && "value" in held) {
      this.indexes?.onSession(known, before === undefined ? undefined : parse(before.text), held, caller)
    }
    if (held?._tag === "Hold") {
      root(known.line).mergedInto.add(held.successor)
      // A log-out in progress follows it there.
      if (root(known.line).endings > 0) this.onEnding(held.successor)
    }
    if (held?._tag === "Tombstone") {
      known.tombstoneEnd = after?.expiry
      this.#keyOf(held.successor, undefined)
      const former = before === undefined ? undefined : parse(before.text)
      if (former?._tag === "Hold" && !held.isSealed) this.#onMerged(known, held.successor, former.value.log)
      else if (former?._tag !== "Hold" && !root(known.line).mergedInto.has(held.successor))
        this.#link(key, held.successor)
    }
    if (!isActiveSession(held) || after === undefined) return
    const line = root(known.line)
    const isUse = caller?.touch !== false || [...this.#committing].some((other) => other.key === key)
    if (isUse) line.lastUse = Math.max(line.lastUse, calledAt)
    if (line.isEnded) this.fail("a log-out came undone", `${known.name} is active again`)
    for (const other of this.keys.values()) {
      if (other !== known && root(other.line) === line && this.isActive(other.key)) {
        this.fail("two tokens open one session", `${other.name} and ${known.name}`)
      }
    }
    this.#checkExpiry(known, line, before, after, caller, calledAt)
    this.#checkLog(known, held.value.log, at)
  }

  /** A merge lets go of what it held, which has to be in the other session by now. */
  #onMerged({ line, name }: Key, successor: string, log: ReadonlyArray<number>): void {
    root(line).isMerged = true
    for (const id of log) {
      const change = this.#changes.get(id)
      if (change?.line === undefined) continue
      if (!change.seenUnder.has(successor)) {
        this.fail("a merge lost a value", `change ${id}, of ${name}, is not in ${this.nameOf(successor)}`)
      }
      change.line = this.lineOf(successor)
    }
  }

  /** A session is written that has expired by the time that it arrives. */
  onLateWrite(key: string, text: string, caller: Caller | undefined): void {
    if (recordOf(key) !== undefined) return
    const known = this.#keyOf(key, caller)
    const held = parse(text)
    if (!("value" in held)) return
    const line = root(known.line)
    if (held._tag === "Pending") line.wasSlow = true
    else line.hasExpired = true
    for (const id of held.value.log) this.#changes.get(id)?.seenUnder.add(key)
  }

  #checkExpiry(
    { key, name }: Key,
    line: Line,
    before: Entry | undefined,
    after: Entry,
    caller: Caller | undefined,
    calledAt: number
  ): void {
    const { idleTimeout } = this.#options
    if (before !== undefined && isActiveSession(parse(before.text)) && after.expiry < before.expiry) {
      this.fail("an expiry moved back", `that of ${name}, by ${before.expiry - after.expiry} ms`)
    }
    if (idleTimeout === undefined) return
    const lastUse = caller === undefined || caller.touch || caller.key !== key ? calledAt : line.lastUse
    if (after.expiry > Math.max(lastUse, line.lastUse) + idleTimeout) {
      this.fail(
        "a session outlives its idle timeout",
        `${name}, by ${after.expiry - Math.max(lastUse, line.lastUse) - idleTimeout} ms`
      )
    }
  }

  #checkLog({ key, name }: Key, log: ReadonlyArray<number>, at: number): void {
    for (const id of new Set(log)) {
      const change = this.#changes.get(id)
      if (change === undefined) continue
      if (change.seenUnder.size === 0) change.firstSeen = at
      if (log.indexOf(id) !== log.lastIndexOf(id) && !change.wasDoubledByOthers) {
        if (this.#othersWroteSince(change)) {
          change.wasDoubledByOthers = true
          this.counts.doubledAfterOthers++
        } else {
          this.fail("a change was made twice", `change ${id}, in ${name}: [${log.join(", ")}]`)
        }
      }
      change.seenUnder.add(key)
    }
  }

  #othersWroteSince({ firstSeen, request, seenUnder }: Change): boolean {
    return [...this.keys.values()].some(
      (known) =>
        [...seenUnder].some((key) => this.areOneLine(key, known.key)) &&
        known.writers.some(({ at, by }) => at > firstSeen && by !== request)
    )
  }

  /** A request means to make a change. */
  onChange(id: number, request: number): void {
    this.#changes.set(id, {
      id,
      request,
      line: undefined,
      isConfirmed: false,
      seenUnder: new Set(),
      firstSeen: 0,
      wasDoubledByOthers: false,
      mayBeInTwo: false
    })
  }

  /** What a session shows was in the store under one of its keys, or was just made by its own request. */
  checkShown(key: string, log: ReadonlyArray<number>, request: number): void {
    for (const id of log) {
      const change = this.#changes.get(id)
      if (change === undefined || change.request === request) continue
      if (![...change.seenUnder].some((under) => this.areOneLine(under, key))) {
        this.fail("a session shows what is not its own", `${this.nameOf(key)} shows change ${id}`)
      }
    }
  }

  /** A commit said that it saved these changes under this token. */
  onCommitted(
    key: string,
    changes: ReadonlyArray<number>,
    caller: Caller,
    taken: ReadonlyMap<string, ReadonlyArray<number>>
  ) {
    const known = this.#keyOf(key, caller)
    if (caller.key !== undefined) this.#link(caller.key, key)
    this.#handOut(known)
    this.#confirm(known, changes)
    for (const [other, log] of taken) {
      const line = this.lineOf(other)
      if (line === undefined || line === root(known.line)) continue
      line.mergedInto.add(key)
      if (log.length > 0) line.isMerged = true
      else line.isMaybeMerged = true
      this.#confirm(known, log)
    }
    this.#checkConserved()
  }

  #handOut(known: Key): void {
    known.isHanded = true
    const line = root(known.line)
    const last = line.lastHanded === undefined ? undefined : this.keys.get(line.lastHanded)
    if (last === undefined || last.order < known.order) line.lastHanded = known.key
    this.indexes?.onHandedOut(known)
  }

  /** A commit of a listed session said that it was saved. */
  onListedCommitted(key: string, changes: ReadonlyArray<number>): void {
    const known = this.keys.get(key)
    if (known !== undefined) this.#confirm(known, changes)
  }

  #confirm(known: Key, changes: ReadonlyArray<number>): void {
    for (const id of changes) {
      const change = this.#changes.get(id)
      if (change === undefined) continue
      if (![...change.seenUnder].some((key) => this.areOneLine(key, known.key))) {
        this.fail("a change was confirmed under a token that never had it", `change ${id}, ${known.name}`)
      }
      change.isConfirmed = true
      change.line = root(known.line)
    }
  }

  /** How many writes have reached the store. */
  get writes(): number {
    return this.#writes
  }

  /**
   * A commit said that its session had ended. It may have met a tombstone, or a hold, that was taken back afterwards: then
   * the changes were refused. `writes` had reached the store when that session was opened.
   */
  onDropped(
    caller: Pick<Caller, "id" | "key">,
    changes: ReadonlyArray<number>,
    openedAt: number,
    writes: number,
    logIns: ReadonlySet<string> = new Set()
  ): void {
    if (changes.length === 0) return
    if (this.indexes?.isRefused(logIns, { ...caller, openedAt })) return
    const known = caller.key === undefined ? undefined : this.keys.get(caller.key)
    if (known === undefined) {
      const hasExpired = this.#options.now() - openedAt > (this.#options.idleTimeout ?? this.#options.lifetime)
      // Another request found it in the list before its first commit was confirmed, or it was created for a merge that
      // took longer than the minute that it may be pending.
      const wasEnded = [...this.keys.values()].some(
        ({ creator, line }) => creator === caller.id && (root(line).endings > 0 || root(line).wasSlow)
      )
      if (hasExpired || wasEnded) return
      this.fail("a change was dropped without a reason", `change ${changes.join(", ")} of a new session`)
    } else if (this.isActive(known.key) && known.activeSince <= writes) {
      this.fail("a change was dropped without a reason", `change ${changes.join(", ")}, ${known.name} is active`)
    }
  }

  /**
   * A commit with a merge met a failure, and was tried again. Its first try may have arrived. If others have gone on from
   * there, or have merged the same session meanwhile, the value may be in two places.
   */
  onMergeUnclear(caller: Pick<Caller, "id" | "key">, merges: ReadonlyArray<string>, writes: number): void {
    const isTouched = [...this.keys.values()].some(
      (known) =>
        [caller.key, ...merges].some((key) => key !== undefined && this.areOneLine(key, known.key)) &&
        known.writers.some(({ at, by }) => at > writes && by !== caller.id)
    )
    if (!isTouched) return
    this.#allowTwo(merges)
  }

  #allowTwo(merges: ReadonlyArray<string>): void {
    for (const change of this.#changes.values()) {
      change.mayBeInTwo ||= [...change.seenUnder].some((under) => merges.some((key) => this.areOneLine(under, key)))
    }
  }

  /** A request that counts as use, opened then, was told that its session is there. */
  checkIdle(key: string, openedAt: number, touch: boolean): void {
    const { idleTimeout, touchInterval } = this.#options
    const entry = this.#options.entries.get(key)
    if (idleTimeout === undefined || !touch || entry === undefined) return
    const held = parse(entry.text)
    if (!isActiveSession(held)) return
    const least = Math.min(held.deadline, openedAt + idleTimeout - touchInterval)
    if (entry.expiry < least) {
      this.fail("a session expires before its idle timeout", `${this.nameOf(key)}, by ${least - entry.expiry} ms`)
    }
  }

  /** A request asks for the end of a session. Until it gets an answer, the session may have ended or not. */
  onEnding(key: string, isForRoom = false): void {
    const visited = new Set<Line>()
    const visit = (line: Line | undefined) => {
      if (line === undefined || visited.has(line)) return
      visited.add(line)
      line.endings++
      if (isForRoom) line.endingsForRoom++
      for (const successor of line.mergedInto) visit(this.lineOf(successor))
    }
    visit(this.lineOf(key))
  }

  onEnded(key: string): void {
    // Once more, as it may have been merged since.
    this.onEnding(key)
    const known = this.keys.get(key)
    const line = this.lineOf(key)
    if (known === undefined || line === undefined) return
    if (known.tombstoneEnd !== undefined && known.tombstoneEnd < this.#options.now()) {
      this.counts.logOutsAfterTombstone++
      return
    }
    line.isEnded = true
    for (const other of this.keys.values()) {
      if (root(other.line) === line && this.isActive(other.key)) {
        this.fail("a log-out had no effect", `${known.name} was logged out, and ${other.name} is active`)
      }
    }
  }

  /** A commit, or a log-out, failed, and may be tried again. */
  onFailed(caller: Caller, merges: Iterable<string>): void {
    for (const key of [caller.key, ...merges]) {
      const line = key === undefined ? undefined : this.lineOf(key)
      if (line !== undefined) line.hasFailed = true
    }
  }

  /** Nobody will learn the result of this request's commit. `isHopeless` if more than one thing went wrong in it. */
  onGivenUp(caller: Caller, merges: ReadonlyArray<string>, isHopeless: boolean): void {
    this.#gaveUp.add(caller.id)
    for (const known of this.keys.values()) {
      if (known.creator !== caller.id && known.key !== caller.key) continue
      const line = root(known.line)
      line.isAtRisk = true
      line.isHopeless ||= isHopeless
    }
    for (const key of merges) {
      const line = this.lineOf(key)
      if (line === undefined) continue
      line.isMaybeMerged = true
      line.isHopeless ||= isHopeless
    }
    this.#allowTwo(merges)
  }

  /** The clock may have ended sessions. */
  onTime(isAtEnd = false): void {
    for (const known of this.keys.values()) {
      const entry = this.#options.entries.get(known.key)
      if (entry === undefined || entry.expiry >= this.#options.now() || this.#expired.has(known.key + entry.text))
        continue
      this.#expired.add(known.key + entry.text)
      const held = parse(entry.text)
      const line = root(known.line)
      if (held._tag === "Pending" || held._tag === "Tombstone") {
        // At the end, it is what a renewal has left.
        line.wasSlow ||= !isAtEnd
        continue
      }
      line.hasExpired = true
      this.counts.expired++
    }
  }

  /** The changes that are confirmed by now and belong to the session of a key. */
  confirmedIn(key: string): ReadonlyArray<number> {
    const line = this.lineOf(key)
    if (line === undefined) return []
    return [...this.#changes.values()]
      .filter((change) => change.isConfirmed && change.line !== undefined && root(change.line) === line)
      .map(({ id }) => id)
  }

  #isExcused(line: Line): boolean {
    return this.#isGone(line) || line.isAtRisk
  }

  #isGone(line: Line): boolean {
    return line.isEnded || line.endings > 0 || line.hasExpired || line.isMerged || line.isMaybeMerged
  }

  /** Whether what a read found may lack what was confirmed. */
  isExcused(key: string): boolean {
    const line = this.lineOf(key)
    return line === undefined || line.wasSlow || this.#isExcused(line)
  }

  /** While requests run: no confirmed change may be completely gone from the store. */
  #checkConserved(): void {
    const present = new Set<number>()
    for (const key of this.#options.entries.keys()) {
      const held = this.held(key)
      if (held === undefined || !("value" in held)) continue
      for (const id of held.value.log) present.add(id)
    }
    for (const change of this.#changes.values()) {
      if (!change.isConfirmed || change.line === undefined || present.has(change.id)) continue
      const line = root(change.line)
      if (!this.#isExcused(line) && !line.hasFailed && !line.wasSlow) {
        this.fail("a change that was confirmed is lost", `change ${change.id}, while requests are under way`)
      }
    }
  }

  /** After all requests, and after all that was pending has expired. */
  checkEnd(): void {
    this.onTime(true)
    const active = [...this.keys.values()].flatMap((known) => {
      const held = this.held(known.key)
      return isActiveSession(held) ? [{ known, line: root(known.line), log: held.value.log }] : []
    })
    for (const { known, line } of active) {
      if (!known.isHanded && !line.isAtRisk) {
        this.fail("a session is active that nobody has the token of", known.name)
      }
      if (line.isEnded) this.fail("a log-out came undone", `${known.name} is active`)
    }
    for (const change of this.#changes.values()) this.#checkCount(change, active)
    this.#checkLines(active)
    this.indexes?.checkEnd(new Set([...this.keys.values()].map(({ line }) => root(line))))
  }

  #checkLines(active: ReadonlyArray<Active>): void {
    for (const line of new Set([...this.keys.values()].map(({ line }) => root(line)))) {
      if (line.lastHanded === undefined || active.some((session) => session.line === line)) continue
      const isLoss = !(line.isEnded || line.endings > 0 || line.hasExpired || line.isMerged)
      if (!isLoss) continue
      const name = this.nameOf(line.lastHanded)
      // Whether a merge took in a session without any change cannot be seen.
      const confirmed = this.confirmedIn(line.lastHanded)
      if (line.isMaybeMerged && confirmed.every((id) => active.some(({ log }) => log.includes(id)))) continue
      if (line.isHopeless) this.counts.excusedAsCutOff++
      else if (line.wasSlow) this.counts.excusedAsSlow++
      else if (line.isMaybeMerged) this.fail("a merge that was given up lost a value", `that of ${name}`)
      else if (line.isAtRisk) this.fail("a renewal that was cut off lost the session", name)
      else this.fail("a session is lost", name)
    }
  }

  #checkCount(change: Change, active: ReadonlyArray<Active>): void {
    const places = active.filter(({ log }) => log.includes(change.id))
    if (places.length > 1) {
      const names = places.map(({ known }) => known.name).join(" and ")
      if (change.mayBeInTwo) this.counts.inTwoSessions++
      else this.fail("a change is in two sessions", `change ${change.id}, in ${names}`)
    }
    if (!change.isConfirmed || change.line === undefined || places.length > 0) return
    const line = root(change.line)
    // A renewal that was cut off leaves what was there, or went through.
    const isLost = !(line.isAtRisk || line.wasSlow) || active.some((session) => session.line === line)
    const isExcused = line.isEnded || line.endings > 0 || line.hasExpired || line.isMaybeMerged
    if (!isExcused && isLost) {
      this.fail("a change that was confirmed is lost", `change ${change.id}, of ${this.nameOf(line.lastHanded ?? "")}`)
    }
  }
}
