/** The stores with a separate entry. The cleanup belongs to them: only a store with a server has sweeps that fail. */
export const stores = ["src/*/*Store.ts", "src/internal/cleanup.ts"]

/** What the two runs have in common: that of the core, and that of those stores. */
export const options = (name, mutate) => ({
  mutate,
  testRunner: "vitest",
  vitest: { configFile: `mutation/${name}.vitest.config.ts`, related: false },
  plugins: ["@stryker-mutator/vitest-runner", "./mutation/wording.mjs", "./mutation/types.mjs"],
  ignorers: ["wording"],
  checkers: ["types"],
  coverageAnalysis: "perTest",
  concurrency: 2,
  // Beyond what the tests take by themselves.
  timeoutMS: 60_000,
  // TypeScript 7 has no interface to ask about a tsconfig.json. There is none by this name.
  tsconfigFile: "mutation/tsconfig.json",
  tempDirName: `.stryker-tmp/${name}`,
  ignorePatterns: ["bench", "docs", "dist", "mutation/reports", "mutation/node_modules"],
  reporters: ["clear-text", "html", "json", "progress-append-only"],
  htmlReporter: { fileName: `mutation/reports/${name}.html` },
  jsonReporter: { fileName: `mutation/reports/${name}.json` },
  clearTextReporter: { allowColor: false, logTests: false, reportTests: false },
  thresholds: { high: 95, low: 90, break: 90 }
})
