/**
 * Indexes: all sessions of a user, or of any other value, on any store.
 *
 * An index record is kept in the same store, under a key that no token can have. It has the members, and the time of
 * the last revocation. Every change of it is a compare-and-set. **Members are added before they exist and removed after
 * they are gone.** So a record may name sessions that no longer exist, but never lacks one whose token a client holds.
 *
 * - {@link join}: before a session exists under a key, add that key. A session that was not a member before has ended
 *   if the last revocation is not earlier than its opening. One that was a member has ended if it no longer is.
 * - {@link confirm}: before the token is handed out, its key must still be a member. If it is not, a revocation came in
 *   between.
 * - {@link revoke}: mark the members and note the time in one compare-and-set, then end their sessions, then remove the
 *   members. If the process dies half-way, every remaining session is still listed.
 *
 * A client gets a token only after its key was confirmed. So a later revocation finds the key among the members and
 * ends the session, and an earlier one was seen.
 */
import { DateTime, Effect, Option, Predicate } from "effect"
import type { SessionStoreError } from "../SessionStore.ts"
import { makeId } from "./envelope.ts"
import { compareAndSet, done, type Records, type Store, write } from "./records.ts"
import type { Contents } from "./state.ts"
import { hashToken } from "./token.ts"
import { takeTurn } from "./turns.ts"

/** A session that a record names by its key. During a renewal, both the old and the new key are members. */
interface Member {
  readonly ids: ReadonlyArray<string>
  /** The key that its session had before, if it joined in a renewal. */
  readonly from?: string | undefined
  readonly deadline: number
  readonly addedAt: number
  /** Its session is being ended. It no longer counts, and stays until that is done. */
  readonly isRevoked: boolean
}

interface IndexRecord {
  readonly members: ReadonlyArray<Member>
  readonly revokedAt: number | undefined
}

const empty: IndexRecord = { members: [], revokedAt: undefined }

/** How long a revocation is remembered at least, in milliseconds. A log-in that began before it may take that long. */
const revocationTime = 600_000

/** How long it may take until a new member exists, in milliseconds. */
const birthTime = 60_000

/** The keys of the records that name a session with this value. */
export const keysOf = <A>(self: Records<A>, value: A): ReadonlyArray<string> => {
  const keys: Array<string> = []
  for (const [name, { indexedBy }] of self.indexes) {
    const indexed = indexedBy(value)
    if (indexed !== undefined) keys.push(keyOf(self, name, indexed))
  }
  return keys
}

// JSON distinguishes strings that UTF-8 does not, such as different lone surrogates. No token contains a colon.
export const keyOf = <A>(self: Records<A>, name: string, indexed: string): string =>
  `index:${hashToken(JSON.stringify([self.key, name, indexed]))}`

const isSame = (one: ReadonlyArray<string>, other: ReadonlyArray<string>): boolean =>
  one.length === other.length && one.every((key) => other.includes(key))

/**
 * What a commit has to do about indexes: nothing; join them, if they were declared after the session was saved; or
 * renew the token, because the session now belongs to another user.
 */
export const changeOf = <A>(self: Records<A>, base: Contents<A>, contents: Contents<A>): "none" | "join" | "renew" => {
  if (self.indexes.size === 0) return "none"
  const wanted = keysOf(self, contents.value)
  if (isSame(wanted, contents.memberOf)) return "none"
  return isSame(wanted, keysOf(self, base.value)) ? "join" : "renew"
}

const parse = (text: string): IndexRecord => {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    return empty
  }
  if (!Predicate.hasProperty(parsed, "members") || !Array.isArray(parsed.members)) return empty
  const revokedAt = Predicate.hasProperty(parsed, "revokedAt") ? parsed.revokedAt : undefined
  return {
    members: parsed.members.filter(isMember),
    revokedAt: isInstant(revokedAt) ? revokedAt : undefined
  }
}

/** The latest time that a date can hold, minus what is added to a time here. */
const endOfTime = 8.64e15 - revocationTime

// A damaged record must not produce an invalid date.
const isInstant = (input: unknown): input is number => Predicate.isNumber(input) && Math.abs(input) <= endOfTime

const isMember = (input: unknown): input is Member =>
  Predicate.hasProperty(input, "ids") &&
  Array.isArray(input.ids) &&
  input.ids.every(Predicate.isString) &&
  Predicate.hasProperty(input, "deadline") &&
  isInstant(input.deadline) &&
  Predicate.hasProperty(input, "addedAt") &&
  Predicate.isNumber(input.addedAt) &&
  Predicate.hasProperty(input, "isRevoked") &&
  Predicate.isBoolean(input.isRevoked)

const format = <A>(self: Records<A>, { members, revokedAt }: IndexRecord): string =>
  JSON.stringify({ version: 1, index: self.key, members, revokedAt, write: makeId() })

/** The record stays until its last member is over and its last revocation no longer matters. */
const expiryOf = ({ members, revokedAt }: IndexRecord): DateTime.Utc =>
  DateTime.makeUnsafe(
    Math.max(-1, ...members.map(({ deadline }) => deadline), revokedAt === undefined ? -1 : revokedAt + revocationTime)
  )

/** The next record, if it has to be written, and the result. */
interface Change<B> {
  readonly next: IndexRecord | undefined
  readonly result: B
}

/**
 * Changes a record by compare-and-set. In one process, calls of `destroyAllOf` take turns at it. Commits do not wait for
 * them or for each other, so a call to the store that hangs holds up no log-in.
 */
const change = <A, B, E>(
  self: Records<A>,
  store: Store,
  key: string,
  decide: (record: IndexRecord, now: number) => Effect.Effect<Change<B>, E>
): Effect.Effect<B, E | SessionStoreError> =>
  takeTurn(
    () => self.queues.get(store, key),
    () => undefined,
    () =>
      compareAndSet(
        store,
        key,
        store.find(key),
        (found) =>
          Effect.clockWith((clock) => {
            const decided = decide(Option.isSome(found) ? parse(found.value) : empty, clock.currentTimeMillisUnsafe())
            return Effect.map(decided, ({ next, result }) =>
              next === undefined
                ? done(result)
                : write(Option.getOrUndefined(found), format(self, next), expiryOf(next), result)
            )
          }),
        undefined
      ),
    { outer: store.restore }
  )

/** A session that is about to be added under a key. */
interface Joining {
  readonly key: string
  /** Its key until now, if it has one. */
  readonly former: string | undefined
  readonly openedAt: number
  readonly memberOf: ReadonlyArray<string>
}

/** Adds a key to the records of a value. `false` if the session has been revoked. */
export const join = Effect.fnUntraced(function* <A>(
  self: Records<A>,
  store: Store,
  contents: Contents<A>,
  joining: Joining
): Effect.fn.Return<boolean, SessionStoreError> {
  for (const [name, { max, indexedBy }] of self.indexes) {
    const indexed = indexedBy(contents.value)
    if (indexed === undefined) continue
    const key = keyOf(self, name, indexed)
    const revoked = yield* change(self, store, key, (record, now) => {
      const next = withMember(record, joining, joining.memberOf.includes(key), contents.deadline, now)
      return next === undefined
        ? Effect.succeed({ next, result: undefined })
        : Effect.map(withAtMost(self, store, next, joining.key, max, now), (next) => ({
            next,
            result: next.members.filter(({ isRevoked }) => isRevoked)
          }))
    })
    if (revoked === undefined) return false
    yield* endAll(self, store, key, revoked)
  }
  return true
})

const withMember = (
  { members, revokedAt }: IndexRecord,
  { former, key, openedAt }: Joining,
  wasMember: boolean,
  deadline: number,
  now: number
): IndexRecord | undefined => {
  const isKnown = ({ ids }: Member) => ids.includes(key) || (former !== undefined && ids.includes(former))
  // Two simultaneous log-ins of one session count as one: only one of them can renew it.
  const isTwin = ({ from, isRevoked }: Member) => former !== undefined && from === former && !isRevoked
  const known = members.find(isKnown)
  // If the session was opened before the revocation, the password may have been checked before it too.
  if (known === undefined && (wasMember || (revokedAt !== undefined && revokedAt >= Math.floor(openedAt)))) return
  const mine = known ?? members.find(isTwin)
  if (mine === undefined) {
    const member = { ids: [key], from: former, deadline, addedAt: now, isRevoked: false }
    return { revokedAt, members: [...alive(members, now), member] }
  }
  if (mine.isRevoked) return undefined
  const joined = { ...mine, ids: [...new Set([...mine.ids, key])], deadline: Math.max(mine.deadline, deadline) }
  return { revokedAt, members: alive(members, now).map((member) => (member === mine ? joined : member)) }
}

const alive = (members: ReadonlyArray<Member>, now: number): ReadonlyArray<Member> =>
  members.filter(({ deadline }) => deadline >= now)

/**
 * Marks the oldest members over the limit, but never the one that joins. Members whose sessions are gone do not count.
 */
const withAtMost = Effect.fnUntraced(function* <A>(
  self: Records<A>,
  store: Store,
  { members, revokedAt }: IndexRecord,
  key: string,
  max: number,
  now: number
): Effect.fn.Return<IndexRecord, SessionStoreError> {
  const count = (members: ReadonlyArray<Member>) => members.filter(({ isRevoked }) => !isRevoked).length
  if (count(members) <= max) return { members, revokedAt }
  const there = yield* Effect.filter(members, (member) =>
    member.isRevoked || member.ids.includes(key) || now - member.addedAt < birthTime
      ? Effect.succeed(true)
      : exists(self, store, member)
  )
  let tooMany = count(there) - max
  return {
    revokedAt,
    // Also mark those that do not exist, because they may begin in the meantime.
    members: members.map((member) =>
      !there.includes(member) || (!member.isRevoked && !member.ids.includes(key) && tooMany-- > 0)
        ? { ...member, isRevoked: true }
        : member
    )
  }
})

const exists = Effect.fnUntraced(function* <A>(
  self: Records<A>,
  store: Store,
  { ids }: Member
): Effect.fn.Return<boolean, SessionStoreError> {
  for (const id of ids) {
    const found = yield* self.inspect(yield* store.find(id))
    // A tombstone may turn back into its session, unless a log-out has sealed it.
    if (found._tag !== "Nothing" && !(found._tag === "Tombstone" && found.isSealed)) return true
  }
  return false
})

/** Ends the sessions of marked members, then removes the members, and returns how many there were. */
const endAll = Effect.fnUntraced(function* <A>(
  self: Records<A>,
  store: Store,
  key: string,
  revoked: ReadonlyArray<Member>
): Effect.fn.Return<number, SessionStoreError> {
  if (revoked.length === 0) return 0
  let ended = 0
  for (const { ids } of revoked) {
    const outcomes = yield* Effect.forEach(ids, (id) => self.end(store, id, undefined))
    if (outcomes.includes(true)) ended++
  }
  const gone = new Set(revoked.flatMap(({ ids }) => ids))
  yield* change(self, store, key, (record) => {
    const members = record.members.filter(({ ids, isRevoked }) => !isRevoked || !ids.every((id) => gone.has(id)))
    return Effect.succeed({ next: { ...record, members }, result: undefined })
  })
  return ended
})

/** Whether the key is still a member of all records, before its token is handed out. */
export const confirm = <A>(
  store: Store,
  { memberOf }: Contents<A>,
  key: string
): Effect.Effect<boolean, SessionStoreError> =>
  Effect.map(
    Effect.forEach(memberOf, (record) => membersOf(store, record)),
    (all) => all.every((members) => members.some(({ ids, isRevoked }) => !isRevoked && ids.includes(key)))
  )

/**
 * Removes the key that a new key replaced, after the session under the new key was confirmed. Best effort, like
 * {@link leave}.
 */
export const tidy = <A>(self: Records<A>, store: Store, records: ReadonlyArray<string>, key: string) =>
  changeAll(self, store, records, (member) => (member.ids.includes(key) ? { ...member, ids: [key] } : member))

/** Removes a key from records, after its session is gone. Best effort: if this fails, the key is pruned later. */
export const leave = <A>(self: Records<A>, store: Store, records: ReadonlyArray<string>, key: string) =>
  changeAll(self, store, records, (member) => (member.ids.includes(key) ? undefined : member))

const changeAll = <A>(
  self: Records<A>,
  store: Store,
  records: ReadonlyArray<string>,
  f: (member: Member) => Member | undefined
): Effect.Effect<void> =>
  Effect.ignore(
    Effect.forEach(
      records,
      (record) =>
        change(self, store, record, ({ members, revokedAt }) => {
          const changed = members.map(f)
          const isConcerned = changed.some((member, i) => member !== members[i])
          const next = { members: changed.filter(Predicate.isNotUndefined), revokedAt }
          return Effect.succeed({ next: isConcerned ? next : undefined, result: undefined })
        }),
      { discard: true }
    )
  )

/** Ends all sessions of a value except one, and returns how many there were. */
export const revoke = Effect.fnUntraced(function* <A>(
  self: Records<A>,
  store: Store,
  key: string,
  except: string | undefined
): Effect.fn.Return<number, SessionStoreError> {
  const revoked = yield* change(self, store, key, ({ members }, now) => {
    const next = members.map((member) =>
      except !== undefined && member.ids.includes(except) ? member : { ...member, isRevoked: true }
    )
    return Effect.succeed({
      next: { members: next, revokedAt: Math.floor(now) },
      result: next.filter(({ isRevoked }) => isRevoked)
    })
  })
  return yield* endAll(self, store, key, revoked)
})

const membersOf = (store: Pick<Store, "find">, key: string): Effect.Effect<ReadonlyArray<Member>, SessionStoreError> =>
  Effect.map(store.find(key), (found) => (Option.isSome(found) ? parse(found.value) : empty).members)

/**
 * The keys of the sessions of a value, including those marked to end: if the process that marked them failed, they
 * still exist, and the list must not hide them.
 */
export const idsOf = (
  store: Pick<Store, "find">,
  key: string
): Effect.Effect<ReadonlyArray<string>, SessionStoreError> =>
  Effect.map(membersOf(store, key), (members) => members.flatMap(({ ids }) => ids))
