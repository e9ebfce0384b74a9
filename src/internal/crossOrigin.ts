/**
 * Tells requests that a page of another origin made from those of the application's own, as pure functions of a request.
 *
 * The rules are those of Go's `http.CrossOriginProtection`, which need no token in a form: browsers say of each request
 * where it came from, and no page can change what they say. WebSockets come on top, since a handshake is a GET.
 */
import { Formatter } from "effect"
import type { HttpServerRequest } from "effect/http"

type Request = HttpServerRequest.HttpServerRequest

/** Why a request is refused, for a log; `undefined` if it is not. */
export type Check = (request: Request) => string | undefined

// Those that HTTP calls safe, but for TRACE, which nobody answers.
const isSafe = (method: string): boolean => method === "GET" || method === "HEAD" || method === "OPTIONS"

/** Whether a request asks for a WebSocket, which a page of any origin may open, and which carries cookies. */
export const isWebSocket = ({ headers }: Request): boolean =>
  headers.upgrade !== undefined && /websocket/i.test(headers.upgrade)

/** The host that a request is for. A `Request` that was made by hand has it in its URL alone. */
const hostOf = ({ headers, originalUrl }: Request): string | undefined =>
  headers.host ?? /^https?:\/\/([^/?#]*)/i.exec(originalUrl)?.[1]

const hostOfOrigin = (origin: string): string | undefined => /^[^:/?#]+:\/\/([^/?#]+)$/.exec(origin)?.[1]

// A header is what the client sent, and a log is read by people.
const show = (value: string): string => Formatter.format(value.slice(0, 200))

const reasonAgainst = (request: Request): string | undefined => {
  const site = request.headers["sec-fetch-site"]
  if (site === "same-origin" || site === "none") return undefined
  if (site !== undefined && site !== "") return `Sec-Fetch-Site is ${show(site)}`
  const { origin } = request.headers
  // No browser, or a request of the same origin in one that is older than both headers.
  if (origin === undefined || origin === "") return undefined
  const host = hostOf(request)
  // The scheme is not compared: behind a proxy it is not known. Strict-Transport-Security is what guards it.
  if (host !== undefined && hostOfOrigin(origin)?.toLowerCase() === host.toLowerCase()) return undefined
  return `Origin is ${show(origin)}, and the host ${show(host ?? "")}`
}

const originShape = /^[a-z][a-z0-9+.-]*:\/\/[^\s/?#@*]+$/

/** As browsers write it, which is what it is compared with. Other schemes than those of the web have no other form. */
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
 * Makes the check from its options. Throws a `TypeError` if a trusted origin is none, since it would never match.
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
 * Whether a browser that has a cookie of this kind keeps it back from such a request, since a page of another site made
 * it. `Sec-Fetch-Site` tells sites from origins; a browser that does not send it is given the benefit of the doubt.
 */
export const isWithheld = (request: Request, sameSite: "lax" | "strict" | "none"): boolean => {
  const { headers, method } = request
  if (sameSite === "none" || headers["sec-fetch-site"] !== "cross-site") return false
  // A link: Lax means that a page that the user goes to gets the cookie, and a frame or a script's request does not.
  const isLink = (method === "GET" || method === "HEAD") && headers["sec-fetch-dest"] === "document"
  return sameSite === "strict" || !isLink
}
