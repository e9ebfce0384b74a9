/**
 * Compares the exports of each entry of the package with the reports next to this file, and fails if they differ. With
 * `--update` it writes the reports. The entries are those of package.json.
 *
 * API Extractor reads the built declarations, with its own TypeScript.
 */
import { spawnSync } from "node:child_process"
import { copyFileSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import {
  CompilerState,
  Extractor,
  ExtractorConfig,
  ExtractorLogLevel,
  ExtractorMessageCategory
} from "@microsoft/api-extractor"
import manifest from "../package.json" with { type: "json" }
import { reportsOf } from "./entries.ts"

const root = fileURLToPath(new URL("..", import.meta.url))
const folder = join(root, "api")
const found = mkdtempSync(join(tmpdir(), "sessions-api-"))

const reports = reportsOf(manifest.exports)
const declarationsOf = (module: string): string => join(root, module.replace(/\.js$/, ".d.ts"))
const files = reports.map(({ module }) => declarationsOf(module))

const compilerOptions = { target: "ES2023", lib: ["ES2023", "ES2024.String"], module: "NodeNext", types: ["node"] }
const silent = { default: { logLevel: ExtractorLogLevel.None } }

const configs = reports.map(({ file, module }) =>
  ExtractorConfig.prepare({
    configObjectFullPath: undefined,
    packageJsonFullPath: join(root, "package.json"),
    configObject: {
      projectFolder: root,
      mainEntryPointFilePath: declarationsOf(module),
      newlineKind: "lf",
      compiler: {
        overrideTsconfig: { compilerOptions: { ...compilerOptions, strict: true, skipLibCheck: true }, files }
      },
      // The base of an error class is not exported, and has its fields.
      apiReport: {
        enabled: true,
        includeForgottenExports: true,
        reportFileName: file,
        reportFolder: folder,
        reportTempFolder: found
      },
      docModel: { enabled: false },
      dtsRollup: { enabled: false },
      tsdocMetadata: { enabled: false },
      messages: { extractorMessageReporting: silent, tsdocMessageReporting: silent }
    }
  })
)

const [first] = configs
if (first === undefined) throw new Error("package.json exports nothing")
const compilerState = CompilerState.create(first, { additionalEntryPoints: files.slice(1) })

const problems: Array<string> = []
for (const config of configs) {
  Extractor.invoke(config, {
    compilerState,
    messageCallback: (message) => {
      // Differences are reported below.
      message.handled = true
      if (message.category === ExtractorMessageCategory.Compiler) problems.push(message.formatMessageWithLocation(root))
    }
  })
}
if (problems.length > 0) throw new Error(`The declarations do not compile\n${problems.join("\n")}`)

const isUpdate = process.argv.includes("--update")
const names = reports.map(({ file }) => file)
const gone = readdirSync(folder).filter((file) => file.endsWith(".api.md") && !names.includes(file))

/** Shows how a report differs, and says whether it does. */
const differs = (file: string): boolean => {
  const committed = join(folder, file)
  const from = existsSync(committed) ? committed : "/dev/null"
  return spawnSync("diff", ["--unified", from, join(found, file)], { stdio: "inherit" }).status !== 0
}

if (isUpdate) {
  for (const file of names) copyFileSync(join(found, file), join(folder, file))
  for (const file of gone) rmSync(join(folder, file))
  console.log(`Wrote ${names.map((file) => `api/${file}`).join(", ")}`)
} else {
  const changed = [...names.filter(differs), ...gone]
  if (changed.length > 0) {
    console.error(`
The public API has changed: ${changed.map((file) => `api/${file}`).join(", ")}
If you mean it: run \`npm run api -- --update\`, look at the difference and commit it, add what is new to test/types,
and write in CHANGELOG.md what a user will notice. If you do not, your change breaks somebody's program.`)
    process.exitCode = 1
  } else {
    console.log(`The API of ${names.length} entries is as in api/*.api.md`)
  }
}
rmSync(found, { recursive: true })
