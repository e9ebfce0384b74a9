/**
 * A plugin of TypeDoc, for readers: pages stand in the sidebar by their titles, guides and recipes apart, and the first page
 * has one heading.
 */
import { Converter, PageEvent, ReflectionKind } from "typedoc"

const folderOf = (name) => (name.startsWith("docs/recipes/") ? "Recipes" : "Guides")

/** @param {import("typedoc").Application} app */
export const load = (app) => {
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, (context) => {
    for (const page of context.project.getReflectionsByKind(ReflectionKind.Document)) {
      const title = /^# (.*)$/m.exec(page.content.map(({ text }) => text).join(""))?.[1] ?? page.name
      page.name = `${folderOf(page.name)}/${title.replaceAll("/", " ")}`
    }
  })
  app.renderer.on(PageEvent.END, (page) => {
    if (page.url === "index.html") page.contents = page.contents?.replace(/<div class="tsd-page-title">.*?<\/div>/s, "")
  })
}
