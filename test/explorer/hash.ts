/** The hash of a token, as the package makes it. */
import { createHash } from "node:crypto"

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
