/**
 * Sessions for `effect/http`.
 *
 * @module effect-sessions/http
 */
export * as HttpSession from "./HttpSession.ts"
