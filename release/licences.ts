/**
 * Lists the licences of all installed packages, and fails if one is not known or not allowed, or if an entry of a lock
 * file has no checksum. It reads each lock file of the project, and package.json of what stands in `node_modules`: what
 * is not installed here, such as a binary for another system, counts by what the lock file says.
 */
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))

/** Allowed in what this package depends on when it runs: nothing is asked for but a notice. */
const permissive = ["0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BlueOak-1.0.0", "ISC", "MIT", "Unlicense"]

/** Allowed in tools, which are not handed on. */
const forTools = [...permissive, "CC-BY-3.0", "CC-BY-4.0", "CC0-1.0", "MPL-2.0", "Python-2.0", "Zlib"]

/** One entry of a lock file. */
interface Locked {
  readonly version?: string
  readonly license?: string
  readonly integrity?: string
  readonly link?: boolean
  readonly dev?: boolean
  readonly devOptional?: boolean
  readonly optional?: boolean
  readonly inBundle?: boolean
}

const json = (file: string): Record<string, unknown> => JSON.parse(readFileSync(file, "utf8"))

/** Whether an SPDX expression, of names with AND, OR and parentheses, leaves a choice that is allowed. */
const isAllowed = (expression: string, allowed: ReadonlyArray<string>): boolean => {
  const words = expression.replace(/[()]/g, " $& ").trim().split(/\s+/)
  const simple = (): boolean => {
    const word = words.shift()
    if (word !== "(") return word !== undefined && allowed.includes(word)
    const inner = either()
    return words.shift() === ")" && inner
  }
  const all = (): boolean => {
    let result = simple()
    while (words[0] === "AND" && words.shift()) result = simple() && result
    return result
  }
  const either = (): boolean => {
    let result = all()
    while (words[0] === "OR" && words.shift()) result = all() || result
    return result
  }
  return either() && words.length === 0
}

/** The licence that a package names itself. Old ones have an object, or a list of them. */
const licenceOf = (folder: string, locked: Locked): string | undefined => {
  const file = join(folder, "package.json")
  const { license, licenses } = existsSync(file) ? json(file) : { license: locked.license, licenses: undefined }
  const all = [license, licenses].flat().flatMap((one) => {
    if (typeof one === "string") return [one]
    return typeof one === "object" && one !== null && "type" in one && typeof one.type === "string" ? [one.type] : []
  })
  return all.length === 0 ? undefined : all.join(" OR ")
}

/** Effect's compiler for other systems: optional, and not served by the registry that the lock file was made with. */
const isElsewhere = (id: string, { optional, integrity }: Locked): boolean =>
  optional === true && integrity === undefined && id.startsWith("@effect/tsgo-")

/** Dictionaries of the spell-checker, which nothing is built from. */
const exceptions = ["@cspell/dict-django@4.1.7: WTFPL", "@cspell/dict-en-common-misspellings@2.2.6: CC BY-SA 4.0"]

const problems: Array<string> = []
const elsewhere: Array<string> = []
const packages = new Map<string, Set<string>>()

for (const folder of [".", "docs", "bench", "mutation"]) {
  const lock: Record<string, Locked> = Object(json(join(root, folder, "package-lock.json")).packages)
  for (const [path, locked] of Object.entries(lock)) {
    // A package without a version is optional, and does not exist for this system; a link is this package itself.
    if (!path.startsWith("node_modules/") || locked.link || locked.version === undefined) continue
    const id = `${path.replace(/^.*node_modules\//, "")}@${locked.version}`
    if (isElsewhere(id, locked)) {
      elsewhere.push(id)
      continue
    }
    const isTool = folder !== "." || locked.dev === true || locked.devOptional === true
    const licence = licenceOf(join(root, folder, path), locked)
    if (licence === undefined) problems.push(`${id} names no licence`)
    else if (!isAllowed(licence, isTool ? forTools : permissive) && !exceptions.includes(`${id}: ${licence}`))
      problems.push(`${id}: ${licence} is not allowed`)
    if (locked.integrity === undefined && locked.inBundle !== true) problems.push(`${id} has no checksum in ${folder}`)
    const name = licence ?? "unknown"
    packages.set(name, (packages.get(name) ?? new Set()).add(isTool ? id : `${id} (at run time)`))
  }
}

const isLong = process.argv.includes("--all")
for (const [licence, ids] of [...packages].sort(([, one], [, other]) => other.size - one.size)) {
  const names = [...ids].sort()
  const shown = isLong ? names : names.filter((name) => name.endsWith("(at run time)") || names.length <= 5)
  console.log([`${licence}: ${names.length}`, ...shown.map((name) => `  ${name}`)].join("\n"))
}
console.log(`Not installed and not looked at: ${elsewhere.join(", ")}`)
if (problems.length > 0) {
  console.error(`\n${problems.join("\n")}\nSee release/licences.ts for what is allowed.`)
  process.exitCode = 1
}
