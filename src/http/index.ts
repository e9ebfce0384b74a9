/**
 * Sessions for `effect/http`.
 *
 * @module effect-sessions/http
 */
/**
 * Sessions over HTTP. `HttpSession.middleware` takes a session class, and provides the session of each request to the
 * routes of an `HttpRouter` or an `HttpApi`.
 */
export * as HttpSession from "./HttpSession.ts"
