/**
 * The cookie that carries a token, as pure functions: of a `Cookie` header to the tokens in it, and of a response to the
 * response that sets the cookie or removes it.
 */
import { Duration, Formatter, Result } from "effect"
import { Cookies, type HttpServerRequest, HttpServerResponse } from "effect/http"
import { isToken } from "./token.ts"

type Response = HttpServerResponse.HttpServerResponse

export type Attributes = NonNullable<Cookies.Cookie["options"]>

/** A name and attributes that browsers accept together. */
export interface SessionCookie {
  readonly name: string
  readonly attributes: Attributes
}

const domainShape = /^\.?[a-z0-9-]+(\.[a-z0-9-]+)*$/i

/** Throws a `TypeError` that says why, if a browser would not take such a cookie. */
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

// Space and tab, and nothing else that Unicode counts as a space: a browser stores "\xA0__Host-session" under a name that
// no prefix protects, and to trim that would let any sibling subdomain set the session.
const isBlank = (code: number): boolean => code === 0x20 || code === 0x09

/**
 * Shows each value of a name in a `Cookie` header, in order, by where it stands, until it is told that this was enough.
 *
 * Looks for the name alone, so that other cookies are neither split nor decoded, however many there are. Takes time in
 * proportion to the length of the header.
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

/** The part that is to be tried as a token, or `undefined` if it is none. Some clients put a value in quotes. */
const tokenAt = (header: string, start: number, end: number): string | undefined => {
  const isQuoted = end - start === 45 && header[start] === quote && header[end - 1] === quote
  const [first, last] = isQuoted ? [start + 1, end - 1] : [start, end]
  const value = header.slice(first, last)
  return isToken(value) ? value : undefined
}

/** What is tried at most: each may cost a look-up in the store. */
const maxTokens = 4

const noTokens: ReadonlyArray<string> = []

/**
 * The tokens under a name, without repetition, up to four. A browser sends several cookies of one name if they differ in
 * path or domain, and a sibling subdomain can add some; so none of them counts more for being first.
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

/** Whether there is a cookie of that name, whatever its value. */
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

/** Adds a value to a header that is a list, unless one is there that says as much. */
const append = (response: Response, header: string, value: string, present: RegExp): Response => {
  const values = response.headers[header]
  if (values === undefined) return HttpServerResponse.setHeader(response, header, value)
  const isThere = values.split(",").some((each) => present.test(each.trim()))
  return isThere ? response : HttpServerResponse.setHeader(response, header, `${values}, ${value}`)
}

/** Says to caches that the response depends on the cookie. */
export const vary = (response: Response): Response => append(response, "vary", "Cookie", /^(\*|cookie)$/i)

/** Says the same of `Authorization`. */
export const varyByAuthorization = (response: Response): Response =>
  append(response, "vary", "Authorization", /^(\*|authorization)$/i)

/** Sets the cookie; without a lifetime, until the browser closes. */
export const set = (response: Response, cookie: SessionCookie, token: string, lifetime: Attributes): Response =>
  append(
    HttpServerResponse.setCookieUnsafe(response, cookie.name, token, { ...cookie.attributes, ...lifetime }),
    "cache-control",
    'no-cache="Set-Cookie"',
    /^no-store$|^no-cache="set-cookie"$/i
  )

/** Has the browser drop the cookie. */
export const remove = (response: Response, cookie: SessionCookie): Response =>
  set(response, cookie, "", { maxAge: Duration.zero, expires: new Date(0) })

/** Has the browser drop what else it keeps of the site. */
export const clearSiteData = (response: Response): Response =>
  HttpServerResponse.setHeader(response, "clear-site-data", '"cache", "cookies", "storage"')

const localhost = /^(.+\.)?localhost$|^127\.\d+\.\d+\.\d+$|^\[::1\]$/i

/** Whether a secure cookie would be lost on the way to the browser, as far as one can tell. */
export const isOverPlainHttp = ({ headers, originalUrl, protocol }: HttpServerRequest.HttpServerRequest): boolean => {
  const host = /^http:\/\/(\[[^\]]*\]|[^/:?#]*)/i.exec(originalUrl)?.[1]
  // A proxy that ends TLS may say so in these headers. They are not to be trusted, and good enough for a hint.
  const isProxied = /https/i.test(`${protocol} ${headers["x-forwarded-proto"]} ${headers.forwarded}`)
  return host !== undefined && !localhost.test(host) && !isProxied
}
