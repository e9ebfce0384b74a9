/**
 * Sessions for `effect/http`.
 *
 * @module
 */
export * as HttpSession from "./HttpSession.ts"
