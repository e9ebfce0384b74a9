/**
 * A plugin of TypeDoc, for readers. In the sidebar, pages have their titles, guides and recipes are apart, and entries
 * have the names that you import. The first page has one heading. On a narrow screen, wide tables and code scroll.
 */
import { Converter, DefaultTheme, JSX, PageEvent, ReflectionKind } from "typedoc"

const folderOf = (name) => (name.startsWith("docs/recipes/") ? "Recipes" : "Guides")

class Readable extends DefaultTheme {
  buildNavigation(project) {
    const elements = super.buildNavigation(project)
    // TypeDoc takes the slash in `effect-sessions/http` for a folder.
    const folder = elements.find(({ kind, text }) => kind === undefined && text === project.name)
    const entries = folder.children.map((entry) => ({ ...entry, text: `${folder.text}/${entry.text}` }))
    return [...elements.filter((element) => element !== folder), ...entries]
  }
}

const styles = `
.col-content { overflow-wrap: anywhere; }
.tsd-typography table { display: block; overflow-x: auto; overflow-wrap: normal; }
.tsd-typography img { max-width: 100%; }
pre, .tsd-signature { overflow-x: auto; }
pre, pre code { white-space: pre; }
`

/** @param {import("typedoc").Application} app */
export const load = (app) => {
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, (context) => {
    for (const page of context.project.getReflectionsByKind(ReflectionKind.Document)) {
      const title = /^# (.*)$/m.exec(page.content.map(({ text }) => text).join(""))?.[1] ?? page.name
      page.name = `${folderOf(page.name)}/${title.replaceAll("/", " ")}`
    }
  })
  app.renderer.defineTheme("readable", Readable)
  app.renderer.hooks.on("head.end", () =>
    JSX.createElement("style", null, JSX.createElement(JSX.Raw, { html: styles }))
  )
  app.renderer.on(PageEvent.END, (page) => {
    if (page.url === "index.html") page.contents = page.contents?.replace(/<div class="tsd-page-title">.*?<\/div>/s, "")
  })
}
