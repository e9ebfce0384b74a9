/** An entry of the package, and the file with the report of what it exports. */
export interface Report {
  readonly entry: string
  readonly file: string
  readonly module: string
}

/** The reports there are to be: one for each entry of package.json that is a module. */
export const reportsOf = (exports: Readonly<Record<string, string | null>>): ReadonlyArray<Report> =>
  Object.entries(exports).flatMap(([path, module]) => {
    if (module === null || !module.endsWith(".js")) return []
    const entry = path === "." ? "index" : path.slice(2)
    return [{ entry, file: `${entry}.api.md`, module }]
  })

/**
 * The names that a report has, such as `MemStore` and `Session.Service`. It has namespaces that its entry only refers to,
 * too; which it exports stands in the source of the entry.
 */
export const namesIn = (report: string, source: string): ReadonlyArray<string> => {
  const exported = [...report.matchAll(/^export (?:abstract )?(?:class|const|function|interface|type) (\w+)/gm)]
  const namespaces = [...report.matchAll(/^declare namespace (\w+) \{\s+export \{([^}]*)\}/gm)]
  return [
    ...exported.map(([, name = ""]) => name),
    ...namespaces
      .filter(([, name]) => source.includes(`export * as ${name} from`))
      .flatMap(([, namespace, names = ""]) =>
        names.split(",").map((name) => `${namespace}.${name.trim().replace(/^\w+ as /, "")}`)
      )
  ].sort()
}
