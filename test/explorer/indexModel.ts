/**
 * What must be true of indexes. A **value** is what sessions belong together by. The model knows of each session since
 * when it belongs to its value: since the request was opened that logged in.
 */
import { type Held, indexed, indexOf, type Member, parse, recordKeyOf, type Value } from "./held.ts"
import type { Caller, Entry, Key, Line, Rule } from "./model.ts"

/** What these rules ask of the model. */
export interface Sessions {
  readonly keys: ReadonlyMap<string, Key>
  readonly writes: number
  readonly held: (key: string) => Held | undefined
  readonly isActive: (key: string) => boolean
  readonly wasActiveSince: (key: string, writes: number) => boolean
  readonly lineOf: (key: string) => Line | undefined
  readonly areOneLine: (one: string, other: string) => boolean
  readonly nameOf: (key: string) => string
  readonly onEnding: (key: string, isForRoom: boolean) => void
  readonly fail: (rule: Rule, detail: string) => void
}

/** A `destroyAllOf`, from when it was called. */
export interface Revocation {
  readonly value: string
  readonly calledAt: number
  /** The session of this value that it spares. */
  readonly spared: string | undefined
}

interface Belonging {
  readonly value: string
  readonly since: number
}

/** What was there as a list was asked for. */
export interface Listing {
  readonly writes: number
  readonly there: ReadonlyMap<string, number>
}

/** How long a revocation is remembered, and how long a session that is about to begin is waited for. */
const revocationTime = 600_000
const birthTime = 60_000

const noMembers: ReadonlyArray<Member> = []

const membersOf = (entry: Entry | undefined) => {
  const held = entry === undefined ? undefined : parse(entry.text)
  return held?._tag === "Index" ? held : { members: noMembers, revokedAt: undefined }
}

export class IndexModel {
  readonly #sessions: Sessions
  readonly #now: () => number
  readonly #max: number
  readonly #belongings = new Map<string, Belonging>()
  readonly #handedAt = new Map<string, number>()
  readonly #confirmed: Array<Revocation> = []
  /** The `destroyAllOf` that each request is at, or was last at. */
  readonly #revoking = new Map<number, Revocation>()
  /** When a revocation was noted in the record of a value. */
  readonly #noted: Array<{ readonly value: string; readonly at: number }> = []
  readonly #marked = new Set<string>()
  /** Which keys were ever named by the record of a value. */
  readonly #named = new Set<string>()
  /** How many sessions a record has ever named, that is how many log-ins there were. */
  readonly #logIns = new Map<string, number>()
  /** Keys that were taken for given up, before there was a session. */
  readonly #pruned = new Set<string>()

  constructor(sessions: Sessions, now: () => number, max: number) {
    this.#sessions = sessions
    this.#now = now
    this.#max = max
  }

  /** A record was written. */
  onRecord(value: string, before: Entry | undefined, after: Entry | undefined, caller: Caller | undefined): void {
    const [former, next] = [membersOf(before), membersOf(after)]
    const revoking = caller === undefined ? undefined : this.#revoking.get(caller.id)
    const isNoted = next.revokedAt !== former.revokedAt
    const isRevocation = isNoted || revoking?.value === value
    if (isNoted) this.#noted.push({ value, at: this.#now() })
    for (const { ids, isRevoked } of next.members) {
      if (!ids.some((id) => this.#named.has(`${value} ${id}`))) {
        this.#logIns.set(value, (this.#logIns.get(value) ?? 0) + 1)
      }
      for (const id of ids) this.#named.add(`${value} ${id}`)
      if (isRevoked) this.#onMarked(value, ids, former.members, isRevocation, revoking)
    }
    this.#checkRoom(value, former.members, next.members, isRevocation)
    this.#checkTakenOut(former.members, next.members)
    this.#checkNamed()
  }

  #onMarked(
    value: string,
    ids: ReadonlyArray<string>,
    former: ReadonlyArray<Member>,
    isRevocation: boolean,
    revoking: Revocation | undefined
  ): void {
    if (former.some((member) => member.isRevoked && member.ids.some((id) => ids.includes(id)))) return
    if (isRevocation && revoking?.spared !== undefined && ids.includes(revoking.spared)) {
      this.#sessions.fail("a session that was to be spared is ended", this.#sessions.nameOf(revoking.spared))
    }
    for (const id of ids) {
      this.#marked.add(id)
      // What it was until now, as another user, does not end to make room for one of that user.
      const before = this.#sessions.lineOf(id)?.lastHanded
      const isOf = before === undefined || this.#belongings.get(before)?.value === value
      if (this.#sessions.keys.has(id)) this.#sessions.onEnding(id, !isRevocation && isOf)
    }
  }

  /** To make room for one, as many stay as there may be. */
  #checkRoom(value: string, former: ReadonlyArray<Member>, next: ReadonlyArray<Member>, isRevocation: boolean): void {
    const marked = (members: ReadonlyArray<Member>) =>
      members.filter(({ isRevoked }) => isRevoked).flatMap(({ ids }) => ids)
    const before = marked(former)
    // A member without a session takes up no place, but is marked, because its session may begin in the meantime.
    const ends = marked(next).some((id) => !before.includes(id) && this.#sessions.isActive(id))
    if (isRevocation || !ends) return
    const left = next.filter(({ isRevoked }) => !isRevoked).length
    if (left < this.#max) this.#sessions.fail("a session is ended needlessly", `user ${value} would have ${left}`)
  }

  #checkTakenOut(former: ReadonlyArray<Member>, next: ReadonlyArray<Member>): void {
    const ids = new Set(next.flatMap((member) => member.ids))
    for (const member of former) {
      if (member.isRevoked || member.deadline < this.#now()) continue
      for (const id of member.ids) {
        if (ids.has(id) || this.#sessions.keys.has(id)) continue
        this.#pruned.add(id)
        if (this.#now() - member.addedAt < birthTime)
          this.#sessions.fail("an index lacks a session", "one that is about to begin")
      }
    }
  }

  /** A session was written, active or not. */
  onSession(known: Key, before: Held | undefined, after: Held & { readonly value: Value }, caller: Caller | undefined) {
    const value = indexOf(after.value)
    if (before === undefined && this.#marked.has(known.key)) this.#sessions.onEnding(known.key, false)
    const line = this.#sessions.lineOf(known.key)
    if (this.#pruned.has(known.key) && line !== undefined) line.wasSlow = true
    if (before?._tag === "Session" && indexOf(before.value) !== value) {
      this.#sessions.fail("a log-in kept the token", known.name)
    }
    const belonging = this.#belongings.get(known.key)
    if (value === undefined) this.#belongings.delete(known.key)
    else if (belonging?.value !== value) {
      const former = known.predecessor === undefined ? undefined : this.#belongings.get(known.predecessor)
      const since = former?.value === value ? former.since : (caller?.openedAt ?? this.#now())
      this.#belongings.set(known.key, { value, since })
    }
    if (after._tag === "Session") this.#checkEscaped(known)
  }

  onHandedOut(known: Key): void {
    if (!this.#handedAt.has(known.key)) this.#handedAt.set(known.key, this.#now())
    this.#checkEscaped(known)
    this.#checkNamed()
    for (const value of indexed) this.#checkAtMost(value)
  }

  /** A request calls `destroyAllOf`. */
  onRevoking(caller: Caller, value: string, spared: string | undefined): Revocation {
    const isSparing = spared !== undefined && this.#belongings.get(spared)?.value === value
    const revocation = { value, calledAt: this.#now(), spared: isSparing ? spared : undefined }
    this.#revoking.set(caller.id, revocation)
    return revocation
  }

  onRevocationOver(caller: Caller, revocation: Revocation | undefined): void {
    this.#revoking.delete(caller.id)
    if (revocation === undefined) return
    this.#confirmed.push(revocation)
    for (const known of this.#sessions.keys.values()) this.#checkEscaped(known)
  }

  /** The active sessions of a value whose tokens a client has. */
  #activeOf(value: string): ReadonlyArray<Key> {
    return [...this.#sessions.keys.values()].filter((known) => known.isHanded && this.#valueOf(known.key) === value)
  }

  #valueOf(key: string): string | undefined {
    const held = this.#sessions.held(key)
    return held?._tag === "Session" ? indexOf(held.value) : undefined
  }

  #checkEscaped(known: Key): void {
    const value = this.#valueOf(known.key)
    const since = this.#belongings.get(known.key)?.since
    if (value === undefined || since === undefined || !known.isHanded) return
    for (const { calledAt, spared, value: revoked } of this.#confirmed) {
      if (revoked !== value || since > calledAt) continue
      if (spared !== undefined && this.#sessions.areOneLine(spared, known.key)) continue
      if ((this.#handedAt.get(known.key) ?? 0) > calledAt + revocationTime) continue
      this.#sessions.fail("a session escaped the end of all", `${known.name} of user ${value} is active`)
    }
  }

  /** An index names at least every session whose token a client has. */
  #checkNamed(): void {
    for (const value of indexed) {
      const record = this.#sessions.held(recordKeyOf(value))
      const ids = record?._tag === "Index" ? record.members.flatMap(({ ids }) => ids) : []
      for (const { key, name } of this.#activeOf(value)) {
        if (!ids.includes(key)) this.#sessions.fail("an index lacks a session", `${name} of user ${value}`)
      }
    }
  }

  #checkAtMost(value: string): void {
    const active = this.#activeOf(value)
    if (active.length <= this.#max) return
    const names = active.map(({ name }) => name).join(", ")
    this.#sessions.fail("a user has too many sessions", `user ${value} has ${names}`)
  }

  onListing(value: string): Listing {
    const there = this.#activeOf(value).map(({ activeSince, key }) => [key, activeSince] as const)
    return { writes: this.#sessions.writes, there: new Map(there) }
  }

  onListed(value: string, { there, writes }: Listing, listed: ReadonlyMap<string, string | undefined>): void {
    for (const [key, since] of there) {
      // What is to end counts as gone.
      if (this.#marked.has(key)) continue
      const isStill = this.#sessions.isActive(key) && this.#sessions.keys.get(key)?.activeSince === since
      if (isStill && !listed.has(key)) this.#sessions.fail("a list lacks a session", this.#sessions.nameOf(key))
    }
    for (const [key, belongsTo] of listed) {
      if (belongsTo !== value || !this.#sessions.wasActiveSince(key, writes)) {
        this.#sessions.fail("a list has what is not to be in it", `${this.#sessions.nameOf(key)}, for user ${value}`)
      }
    }
  }

  /** Whether a commit may have been refused: all of these values ended, or some of its sessions were to. */
  isRefused(values: ReadonlySet<string>, { id, key, openedAt }: Pick<Caller, "id" | "key" | "openedAt">): boolean {
    // A key that was never written is that of a log-in, of this request or another.
    const isOwn = (marked: string) => {
      const known = this.#sessions.keys.get(marked)
      return marked === key || (values.size > 0 && (known === undefined || known.creator === id))
    }
    return (
      this.#noted.some(({ at, value }) => at >= openedAt && values.has(value)) ||
      [...this.#marked].some(isOwn) ||
      (values.size > 0 && this.#pruned.size > 0)
    )
  }

  checkEnd(lines: Iterable<Line>): void {
    this.#checkNamed()
    const all = [...lines]
    for (const value of indexed) {
      this.#checkAtMost(value)
      const left = all.filter(
        (line) =>
          line.lastHanded !== undefined &&
          this.#belongings.get(line.lastHanded)?.value === value &&
          line.endings === line.endingsForRoom &&
          !(line.isEnded || line.hasExpired || line.isMerged || line.isMaybeMerged || line.isAtRisk || line.wasSlow)
      ).length
      const active = this.#activeOf(value).length
      // A log-in that came to nothing, and a session that has ended otherwise, may have taken the place of another.
      const others = (this.#logIns.get(value) ?? 0) - left
      if (active < Math.min(this.#max, left) - others) {
        this.#sessions.fail("a session is ended needlessly", `user ${value} has ${active} left of ${left}`)
      }
    }
    for (const known of this.#sessions.keys.values()) this.#checkEscaped(known)
  }
}
