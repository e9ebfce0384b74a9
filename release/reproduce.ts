/**
 * Builds the package from a commit, and compares it with a tarball, file by file:
 *
 *     npm run reproduce -- v0.1.0                 # with what npm serves as this version
 *     npm run reproduce -- v0.1.0 package.tgz
 *
 * The commit is cloned to a temporary folder, and the packages of its lock file are installed again.
 */
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))

const [commit, given] = process.argv.slice(2)
if (commit === undefined) {
  console.error("Usage: npm run reproduce -- <tag or commit> [tarball]")
  process.exit(2)
}

const temporary = mkdtempSync(join(tmpdir(), "sessions-reproduce-"))

const run = (cwd: string, command: string, ...args: ReadonlyArray<string>): string =>
  execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] }).trim()

const folder = (name: string): string => {
  const path = join(temporary, name)
  mkdirSync(path)
  return path
}

/** Packs what npm takes for a package, and returns the tarball. */
const pack = (cwd: string, what: string, into: string): string => {
  run(cwd, "npm", "pack", what, "--silent", "--pack-destination", into)
  const [file = ""] = readdirSync(into)
  return join(into, file)
}

const sha256 = (file: string): string => createHash("sha256").update(readFileSync(file)).digest("hex")

/** The checksum and the mode of each file in a tarball. */
const filesOf = (tarball: string, into: string): ReadonlyMap<string, string> => {
  run(
    temporary,
    "tar",
    "--extract",
    "--file",
    tarball,
    "--directory",
    into,
    "--no-same-owner",
    "--preserve-permissions"
  )
  const paths = readdirSync(into, { encoding: "utf8", recursive: true })
    .filter((path) => !statSync(join(into, path)).isDirectory())
    .sort()
  return new Map(
    paths.map((path) => [path, `${sha256(join(into, path))} ${statSync(join(into, path)).mode.toString(8)}`])
  )
}

/** The package as the commit makes it. */
const build = (): string => {
  const clone = join(temporary, "clone")
  run(root, "git", "clone", "--quiet", "--no-checkout", ".", clone)
  run(clone, "git", "checkout", "--quiet", "--detach", run(root, "git", "rev-parse", "--verify", `${commit}^{commit}`))
  run(clone, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--loglevel=error")
  return pack(clone, ".", folder("packed"))
}

try {
  const built = build()
  const { name, version } = JSON.parse(readFileSync(join(temporary, "clone", "package.json"), "utf8"))
  const tarball = given === undefined ? pack(temporary, `${name}@${version}`, folder("served")) : resolve(given)
  const ours = filesOf(built, folder("built"))
  const theirs = filesOf(tarball, folder("given"))
  const different = [...new Set([...ours.keys(), ...theirs.keys()])].sort().flatMap((path) => {
    if (!theirs.has(path)) return [`${path} is missing from the tarball`]
    if (!ours.has(path)) return [`${path} does not come from ${commit}`]
    return ours.get(path) === theirs.get(path) ? [] : [`${path} differs`]
  })
  if (different.length > 0) {
    console.error(`${different.join("\n")}\n${tarball} was not built from ${commit}`)
    process.exitCode = 1
  } else {
    const isSame = sha256(built) === sha256(tarball)
    console.log(`${ours.size} files, each as ${commit} makes it`)
    // Compression is up to npm and zlib, which another Node.js has in other versions.
    console.log(
      isSame ? `The tarball is the same to the byte: SHA-256 ${sha256(built)}` : "The tarball is compressed otherwise"
    )
  }
} finally {
  rmSync(temporary, { recursive: true, force: true })
}
