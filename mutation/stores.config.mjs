import { options, stores } from "./options.mjs"

export default options("stores", stores)

// Mutants that survive, and may:
// - the statements for MySQL, and what chooses them: no test runs them, for want of a driver
// - the empty answer of Redis if there is nothing to ask for, and the cursor "" instead of "0": both have the same result
// - where the arguments begin in a message of Redis: never at its first character
// - the encoding "utf8", which is the default of Buffer
