import { options } from "./options.mjs"

export default options("stores", ["src/{Redis,Sql}Store.ts"])
