import { declareValuePlugin, PluginKind } from "@stryker-mutator/api/plugin"

const isDescription = (path) => {
  if (path.isObjectExpression())
    return path.node.properties.length === 1 && path.node.properties[0].key?.name === "description"
  return path.isStringLiteral() && path.parentPath.isObjectProperty() && path.parent.key.name === "description"
}

/** Leaves out what a metric says of itself, which is for people to read and for no test to quote. */
export const strykerPlugins = [
  declareValuePlugin(PluginKind.Ignore, "wording", {
    shouldIgnore: (path) => (isDescription(path) ? "the description of a metric" : undefined)
  })
]
