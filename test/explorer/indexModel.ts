/**
 * What must be true of indexes. Told, as the model is, of each write and of what requests were told.
 *
 * Sessions of the explorer are indexed by a **group**: every user belongs to one of two.
 */
import { groupOf } from "./group.ts"
import { hashOf } from "./hash.ts"
import { type Held, parse } from "./held.ts"
import type { Caller, Entry, Key, Model, Rule } from "./model.ts"
import { sessionKey } from "./subject.ts"

interface Revocation {
  readonly group: string
  /** When it was asked for, and when it was over, whatever came of it. */
  readonly from: number
  to: number | undefined
  isConfirmed: boolean
  /** A key of the session that is to stay. */
  readonly spared: string | undefined
}

/** The group of a session, and when the request began that logged it in. */
interface Membership {
  readonly group: string
  readonly openedAt: number
  /** When that was saved. */
  readonly joinedAt: number
}

export interface IndexModelOptions {
  readonly now: () => number
  readonly entries: ReadonlyMap<string, Entry>
  /** How many sessions a group may have. */
  readonly max: number | undefined
  readonly model: Model
}

const recordOf = (group: string): string => `index:${hashOf(JSON.stringify([sessionKey, "group", group]))}`

export class IndexModel {
  readonly #options: IndexModelOptions
  readonly #revocations: Array<Revocation> = []
  readonly #members = new Map<string, Membership>()
  #isTroubled = false

  constructor(options: IndexModelOptions) {
    this.#options = options
  }

  #fail(rule: Rule, detail: string): void {
    this.#options.model.fail(rule, detail)
  }

  /** A commit has failed or was given up, so that more sessions of a group may be left than it may have. */
  onTrouble(): void {
    this.#isTroubled = true
  }

  /** A write of a session has reached the store. */
  onWrite({ key, predecessor }: Key, held: Held | undefined, caller: Caller | undefined): void {
    const { max, model } = this.#options
    const was = this.#members.get(key)
    const isEnd = held === undefined || held._tag === "Grave" || (held._tag === "Tombstone" && held.isSealed)
    // A log-in may have ended it, to make room, or a log-out everywhere.
    if (isEnd && was !== undefined && (max !== undefined || this.#isRevoking(was.group))) model.onEnding(key)
    if (held === undefined || !("value" in held)) return
    const group = groupOf(held.value.user)
    if (group === undefined) {
      this.#members.delete(key)
      return
    }
    const before = was ?? (predecessor === undefined ? undefined : this.#members.get(predecessor))
    const joinedAt = this.#options.now()
    const isMember = before?.group === group
    this.#members.set(key, isMember ? before : { group, openedAt: caller?.openedAt ?? joinedAt, joinedAt })
    if (this.#isRevoking(group)) model.onEnding(key)
  }

  #isRevoking(group: string): boolean {
    return this.#revocations.some((revocation) => revocation.group === group && revocation.to === undefined)
  }

  /** Somebody asks for the end of all sessions of a group. */
  onRevoking(group: string, spared: string | undefined): Revocation {
    const { model, now } = this.#options
    // A session that does not belong to the group is no exception in it.
    const isMember = spared !== undefined && this.#members.get(spared)?.group === group
    const revocation = { group, from: now(), to: undefined, isConfirmed: false, spared: isMember ? spared : undefined }
    this.#revocations.push(revocation)
    for (const [key, membership] of this.#members) {
      if (membership.group === group && !this.#isSpared(revocation, key)) model.onEnding(key)
    }
    return revocation
  }

  #isSpared({ spared }: Revocation, key: string): boolean {
    return spared !== undefined && (spared === key || this.#options.model.areOneLine(spared, key))
  }

  onRevoked(revocation: Revocation, isConfirmed: boolean): void {
    revocation.to = this.#options.now()
    revocation.isConfirmed = isConfirmed
    this.check()
  }

  /** Whether a commit of this request may have been refused for what happened to its group. */
  isRefused({ key, openedAt }: Pick<Caller, "key" | "openedAt">, user: number | undefined): boolean {
    const groups = [user === undefined ? undefined : groupOf(user), key && this.#members.get(key)?.group]
    return groups.some(
      (group) =>
        group !== undefined &&
        (this.#options.max !== undefined ||
          this.#revocations.some(
            (revocation) => revocation.group === group && (revocation.to === undefined || revocation.to >= openedAt)
          ))
    )
  }

  /** The active sessions of a group whose tokens were handed out. */
  activeIn(group: string): ReadonlyArray<string> {
    const { model } = this.#options
    return [...model.keys.values()]
      .filter(({ isHanded, key }) => {
        const held = isHanded ? model.held(key) : undefined
        return held?._tag === "Session" && groupOf(held.value.user) === group
      })
      .map(({ key }) => key)
  }

  /** After each confirmation, and at the end. */
  check(): void {
    const { max } = this.#options
    for (const group of ["0", "1"]) {
      const active = this.activeIn(group)
      const ids = this.#idsOf(group)
      for (const key of active) {
        this.#checkEscaped(key, group)
        if (!ids.includes(key)) this.#fail("an index lacks a session", this.#options.model.nameOf(key))
      }
      if (max !== undefined && active.length > max && !this.#isTroubled) {
        this.#fail("there are more sessions than may be", `${active.length} of group ${group}`)
      }
    }
  }

  #idsOf(group: string): ReadonlyArray<string> {
    const entry = this.#options.entries.get(recordOf(group))
    if (entry === undefined) return []
    const held = parse(entry.text)
    return held._tag === "Index" ? held.ids : []
  }

  #checkEscaped(key: string, group: string): void {
    const { model } = this.#options
    const membership = this.#members.get(key)
    const escaped = this.#revocations.some(
      (revocation) =>
        revocation.isConfirmed &&
        revocation.group === group &&
        membership !== undefined &&
        membership.openedAt < revocation.from &&
        // It is remembered for ten minutes.
        membership.joinedAt - revocation.from <= 600_000 &&
        !this.#isSpared(revocation, key)
    )
    if (escaped) this.#fail("a session escaped a log-out everywhere", model.nameOf(key))
  }

  /** What `sessionsOf` has listed, between two instants that are known by what was active then. */
  checkListed(group: string, listed: ReadonlyArray<string>, before: ReadonlyArray<string>): void {
    const { model } = this.#options
    const after = this.activeIn(group)
    for (const key of before) {
      if (after.includes(key) && !listed.includes(key)) this.#fail("a session is not listed", model.nameOf(key))
    }
    for (const key of listed) {
      if (this.#members.get(key)?.group !== group) this.#fail("what is not of a group is listed", model.nameOf(key))
    }
  }
}
