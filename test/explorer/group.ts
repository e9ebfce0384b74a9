/** The group that a user belongs to: sessions of the explorer are indexed by it, if they are. */
export const groupOf = (user: number | null): string | undefined => (user === null ? undefined : String(user % 2))
