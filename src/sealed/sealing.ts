/**
 * Text to sealed text and back, under one key of the application, for one place in the store.
 *
 * AES-256-GCM, by `node:crypto`, which is synchronous: to seal 256 characters takes 24 µs.
 * `effect/crypto` takes 58 µs to encrypt alone, since Web Crypto answers by a promise. From the application's key and the place come two keys by HMAC-SHA-512, so that what was sealed for one place opens in no other.
 * One of them encrypts. The other makes the nonce, by HMAC-SHA-256 of the text: the same text in the same place is sealed
 * the same each time, by every server, which keeps `replace` a comparison of texts. Two texts in one place would have to
 * meet in 96 bits to share a nonce; those of different places share no key.
 */
import { createCipheriv, createDecipheriv, createHmac, createSecretKey, type KeyObject } from "node:crypto"

/** A key of the application, and the name that it has in what it sealed, which tells nothing of it. */
export interface SealingKey {
  readonly id: string
  readonly secret: KeyObject
}

const algorithm = "aes-256-gcm"
const nonceLength = 12
const tagLength = 16

const version = "sealed.1."

const keyShape = /^[\w+/-]{43}=?$/

/** The key of 32 bytes in Base64 or base64url; `undefined` of anything else. */
export const makeKey = (text: string): SealingKey | undefined => {
  if (!keyShape.test(text)) return undefined
  const secret = createSecretKey(Buffer.from(text, "base64"))
  return { id: createHmac("sha256", secret).update("effect-sessions key id").digest("base64url").slice(0, 8), secret }
}

interface PlaceKeys {
  readonly encryption: Uint8Array
  readonly nonce: Uint8Array
}

const keysOf = ({ secret }: SealingKey, place: string): PlaceKeys => {
  const bytes = createHmac("sha512", secret).update(`effect-sessions place:${place}`).digest()
  return { encryption: bytes.subarray(0, 32), nonce: bytes.subarray(32) }
}

const headOf = ({ id }: SealingKey): string => `${version}${id}.`

export const seal = (key: SealingKey, place: string, text: string): string => {
  const keys = keysOf(key, place)
  const head = headOf(key)
  const nonce = createHmac("sha256", keys.nonce).update(text).digest().subarray(0, nonceLength)
  const cipher = createCipheriv(algorithm, keys.encryption, nonce, { authTagLength: tagLength })
  cipher.setAAD(Buffer.from(head))
  const encrypted = [nonce, cipher.update(text, "utf8"), cipher.final(), cipher.getAuthTag()]
  return head + Buffer.concat(encrypted).toString("base64url")
}

/** What was sealed by this key for this place; `undefined` of anything else. */
export const unseal = (key: SealingKey, place: string, sealed: string): string | undefined => {
  const head = headOf(key)
  if (!sealed.startsWith(head)) return undefined
  const bytes = Buffer.from(sealed.slice(head.length), "base64url")
  if (bytes.length < nonceLength + tagLength) return undefined
  const nonce = bytes.subarray(0, nonceLength)
  const decipher = createDecipheriv(algorithm, keysOf(key, place).encryption, nonce, { authTagLength: tagLength })
  decipher.setAAD(Buffer.from(head))
  decipher.setAuthTag(bytes.subarray(-tagLength))
  try {
    const text = decipher.update(bytes.subarray(nonceLength, -tagLength), undefined, "utf8") + decipher.final("utf8")
    // Another spelling of the same bytes would be another text to `replace`.
    return sealed === head + bytes.toString("base64url") ? text : undefined
  } catch {
    return undefined
  }
}
