/** What the workflows may do, and what they run: nothing that others can change afterwards. */
import { readdirSync, readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"

const folder = new URL("../.github/workflows/", import.meta.url)

const workflows = readdirSync(folder).map((file) => ({ file, text: readFileSync(new URL(file, folder), "utf8") }))

/** The jobs of a workflow, by how they are indented. */
const jobsOf = (text: string): ReadonlyArray<string> =>
  text.slice(text.indexOf("\njobs:\n") + 7).split(/\n(?= {2}[\w-]+:\n)/)

describe.each(workflows)("the workflow $file", ({ text }) => {
  it("runs actions by the digest of a commit, with the version beside it", () => {
    const uses = [...text.matchAll(/\buses:(.*)$/gm)].map(([, used = ""]) => used.trim())
    assert.isAbove(uses.length, 0)
    for (const used of uses) assert.match(used, /^[\w-]+\/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/)
  })

  it("has no right by default but to read", () => {
    assert.match(text, /^permissions:(?: \{\}|\n {2}contents: read)\n(?! )/m)
  })

  it("runs nothing that was installed in a job that has more", () => {
    const mighty = jobsOf(text).filter((job) => /: write\b/.test(job))
    for (const job of mighty) assert.notMatch(job, /npm ci|npm install|npx|npm run|\.ci\/|actions\/checkout/)
  })

  it("needs no secret that somebody holds", () => {
    assert.notMatch(text, /\bsecrets\./)
  })
})
