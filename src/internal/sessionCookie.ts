/**
 * The session cookie, as pure functions: from a `Cookie` header to the tokens in it, and from a response to one that
 * sets or removes the cookie.
 */
import { Duration, Formatter, Result } from "effect"
import { Cookies, type HttpServerRequest, HttpServerResponse } from "effect/http"
import { isToken } from "./token.ts"

type Response = HttpServerResponse.HttpServerResponse

export type Attributes = NonNullable<Cookies.Cookie["options"]>

/** A valid combination of name and attributes. */
export interface SessionCookie {
  readonly name: string
  readonly attributes: Attributes
}

const domainShape = /^\.?[a-z0-9-]+(\.[a-z0-9-]+)*$/i

/** Throws a `TypeError` that says why, if a browser would reject such a cookie. */
export const make = (
  name: string,
  attributes: Attributes & { readonly path: string; readonly sameSite: "lax" | "strict" | "none" }
): SessionCookie => {
  const { domain, partitioned, path, sameSite, secure } = attributes
  const reject = (why: string) => {
    throw new TypeError(`HttpSession: the cookie ${Formatter.format(name)} ${why}`)
  }
  const cookie = Cookies.makeCookie(name, "", attributes)
  if (Result.isFailure(cookie) && cookie.failure.reason._tag === "InvalidCookieName") reject("has no valid name")
  if (domain !== undefined && !domainShape.test(domain)) reject(`has no valid domain: ${Formatter.format(domain)}`)
  if (Result.isFailure(cookie) || !path.startsWith("/")) reject(`has no valid path: ${Formatter.format(path)}`)
  if (/^__(Host|Secure)-/i.test(name) && !secure) reject("has a prefix that demands secure: true")
  if (/^__Host-/i.test(name) && path !== "/") reject(`has a prefix that demands path: "/"`)
  if (/^__Host-/i.test(name) && domain !== undefined) reject("has a prefix that demands no domain")
  if (sameSite === "none" && !secure) reject(`needs secure: true with sameSite: "none", or browsers drop it`)
  if (partitioned && !secure) reject("needs secure: true with partitioned: true, or browsers drop it")
  return { name, attributes }
}

// Only space and tab, no other Unicode space. A browser stores "\xA0__Host-session" under a name that no prefix
// protects, so trimming that would let any sibling subdomain set the session.
const isBlank = (code: number): boolean => code === 0x20 || code === 0x09

/**
 * Passes the position of each value of a name in a `Cookie` header to `isEnough`, in order, until that returns `true`.
 * It searches for the name only: other cookies are neither split nor decoded. Takes time proportional to the length of
 * the header.
 */
const scan = (header: string, name: string, isEnough: (start: number, end: number) => boolean): void => {
  let at = header.indexOf(name)
  while (at !== -1) {
    let before = at
    while (isBlank(header.charCodeAt(before - 1))) before--
    let after = at + name.length
    while (isBlank(header.charCodeAt(after))) after++
    if (header[after] === "=" && (before === 0 || header[before - 1] === ";")) {
      const semicolon = header.indexOf(";", after)
      const end = semicolon === -1 ? header.length : semicolon
      let [first, last] = [after + 1, end]
      while (first < last && isBlank(header.charCodeAt(first))) first++
      while (first < last && isBlank(header.charCodeAt(last - 1))) last--
      if (isEnough(first, last)) return
      after = end
    }
    at = header.indexOf(name, after)
  }
}

const quote = '"'

/** The value if it may be a token, `undefined` otherwise. Some clients put a value in quotes. */
const tokenAt = (header: string, start: number, end: number): string | undefined => {
  const isQuoted = end - start === 45 && header[start] === quote && header[end - 1] === quote
  const [first, last] = isQuoted ? [start + 1, end - 1] : [start, end]
  const value = header.slice(first, last)
  return isToken(value) ? value : undefined
}

/** The limit of tokens to try, because each may cost a look-up in the store. */
const maxTokens = 4

const noTokens: ReadonlyArray<string> = []

/**
 * The distinct tokens under a name, up to four. A browser sends several cookies of one name if they differ in path or
 * domain, and a sibling subdomain can add some. So the first one has no priority.
 */
export const tokensOf = (header: string | undefined, name: string): ReadonlyArray<string> => {
  if (header === undefined) return noTokens
  const tokens: Array<string> = []
  scan(header, name, (start, end) => {
    const token = tokenAt(header, start, end)
    if (token !== undefined && !tokens.includes(token)) tokens.push(token)
    return tokens.length === maxTokens
  })
  return tokens
}

/** Whether there is a cookie of that name, with any value. */
export const isIn = (header: string | undefined, name: string): boolean => {
  let isThere = false
  if (header !== undefined) {
    scan(header, name, () => {
      isThere = true
      return true
    })
  }
  return isThere
}

/** Adds a value to a list header, unless a present value already covers it. */
const append = (response: Response, header: string, value: string, present: RegExp): Response => {
  const values = response.headers[header]
  if (values === undefined) return HttpServerResponse.setHeader(response, header, value)
  const isThere = values.split(",").some((each) => present.test(each.trim()))
  return isThere ? response : HttpServerResponse.setHeader(response, header, `${values}, ${value}`)
}

/** Tells caches that the response depends on the cookie. */
export const vary = (response: Response): Response => append(response, "vary", "Cookie", /^(\*|cookie)$/i)

/** Tells caches that the response depends on `Authorization`. */
export const varyByAuthorization = (response: Response): Response =>
  append(response, "vary", "Authorization", /^(\*|authorization)$/i)

/** Sets the cookie. Without a lifetime, it lasts until the browser closes. */
export const set = (response: Response, cookie: SessionCookie, token: string, lifetime: Attributes): Response =>
  append(
    HttpServerResponse.setCookieUnsafe(response, cookie.name, token, { ...cookie.attributes, ...lifetime }),
    "cache-control",
    'no-cache="Set-Cookie"',
    /^no-store$|^no-cache="set-cookie"$/i
  )

/** Makes the browser delete the cookie. */
export const remove = (response: Response, cookie: SessionCookie): Response =>
  set(response, cookie, "", { maxAge: Duration.zero, expires: new Date(0) })

/** Makes the browser delete the other data that it stores for the site. */
export const clearSiteData = (response: Response): Response =>
  HttpServerResponse.setHeader(response, "clear-site-data", '"cache", "cookies", "storage"')

const localhost = /^(.+\.)?localhost$|^127\.\d+\.\d+\.\d+$|^\[::1\]$/i

/** Whether the browser would reject a secure cookie, as far as the server can tell. */
export const isOverPlainHttp = ({ headers, originalUrl, protocol }: HttpServerRequest.HttpServerRequest): boolean => {
  const host = /^http:\/\/(\[[^\]]*\]|[^/:?#]*)/i.exec(originalUrl)?.[1]
  // A proxy that terminates TLS may say so in these headers. They cannot be trusted, but are good enough for a hint.
  const isProxied = /https/i.test(`${protocol} ${headers["x-forwarded-proto"]} ${headers.forwarded}`)
  return host !== undefined && !localhost.test(host) && !isProxied
}
