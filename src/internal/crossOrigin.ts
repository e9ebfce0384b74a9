/**
 * Tells requests made by a page of another origin from those of the application itself, as pure functions of a request.
 *
 * The rules are those of Go's `http.CrossOriginProtection`, which need no token in a form: browsers say where each
 * request came from, and no page can change that. This module also checks WebSockets, whose handshake is a GET.
 */
import { Formatter } from "effect"
import type { HttpServerRequest } from "effect/http"

type Request = HttpServerRequest.HttpServerRequest

/** Why a request is refused, for a log; `undefined` if it is not. */
export type Check = (request: Request) => string | undefined

// The safe methods of HTTP, except TRACE, which nobody answers.
const isSafe = (method: string): boolean => method === "GET" || method === "HEAD" || method === "OPTIONS"

/** Whether a request asks for a WebSocket. A page of any origin may open one, and the browser sends cookies with it. */
export const isWebSocket = ({ headers }: Request): boolean =>
  headers.upgrade !== undefined && /websocket/i.test(headers.upgrade)

/** The host of a request. A `Request` made by hand has it only in its URL. */
const hostOf = ({ headers, originalUrl }: Request): string | undefined =>
  headers.host ?? /^https?:\/\/([^/?#]*)/i.exec(originalUrl)?.[1]

const hostOfOrigin = (origin: string): string | undefined => /^[^:/?#]+:\/\/([^/?#]+)$/.exec(origin)?.[1]

// Escaped and shortened, because the client chose this text and people read the log.
const show = (value: string): string => Formatter.format(value.slice(0, 200))

const reasonAgainst = (request: Request): string | undefined => {
  const site = request.headers["sec-fetch-site"]
  if (site === "same-origin" || site === "none") return undefined
  if (site !== undefined && site !== "") return `Sec-Fetch-Site is ${show(site)}`
  const { origin } = request.headers
  // Not a browser, or a same-origin request of a browser that is older than both headers.
  if (origin === undefined || origin === "") return undefined
  const host = hostOf(request)
  // The scheme is not compared, because behind a proxy it is unknown. Strict-Transport-Security protects against that.
  if (host !== undefined && hostOfOrigin(origin)?.toLowerCase() === host.toLowerCase()) return undefined
  return `Origin is ${show(origin)}, and the host ${show(host ?? "")}`
}

const originShape = /^[a-z][a-z0-9+.-]*:\/\/[^\s/?#@*]+$/

/** Whether this is an origin as browsers write it. Only http and https URLs have more than one form. */
const isOrigin = (origin: string): boolean => {
  if (!originShape.test(origin)) return false
  if (!/^https?:/.test(origin)) return true
  try {
    return new URL(origin).origin === origin
  } catch {
    return false
  }
}

/**
 * Makes the check from its options. Throws a `TypeError` if a trusted origin is malformed, because it would never
 * match.
 */
export const make = (options: {
  readonly trusted?: ReadonlyArray<string> | undefined
  readonly exempt?: ((request: Request) => boolean) | undefined
}): Check => {
  const trusted = new Set(options.trusted)
  for (const origin of trusted) {
    if (isOrigin(origin)) continue
    throw new TypeError(
      `HttpSession: the trusted origin ${Formatter.format(origin)} is none; write it as browsers do, in lower case and ` +
        `without a path or a default port, such as "https://app.example.com"`
    )
  }
  return (request) => {
    if (isSafe(request.method) && !isWebSocket(request)) return undefined
    const reason = reasonAgainst(request)
    if (reason === undefined) return undefined
    const { origin } = request.headers
    return (origin !== undefined && trusted.has(origin)) || options.exempt?.(request) === true ? undefined : reason
  }
}

/**
 * Whether a browser withholds a cookie with this `SameSite` from such a request, because a page of another site made
 * it. `Sec-Fetch-Site` tells sites from origins; a browser that does not send it gets the benefit of the doubt.
 */
export const isWithheld = (request: Request, sameSite: "lax" | "strict" | "none"): boolean => {
  const { headers, method } = request
  if (sameSite === "none" || headers["sec-fetch-site"] !== "cross-site") return false
  // A link. Lax sends the cookie when the user navigates to a page, but not with a frame or a script's request.
  const isLink = (method === "GET" || method === "HEAD") && headers["sec-fetch-dest"] === "document"
  return sameSite === "strict" || !isLink
}
