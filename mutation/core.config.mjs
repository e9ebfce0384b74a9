import { options } from "./options.mjs"

export default options("core", [
  "src/*.ts",
  // The test suite of stores: a mutant of it is a weaker test.
  "!src/SessionStoreTest.ts",
  "!src/{Redis,Sql}Store.ts"
])
