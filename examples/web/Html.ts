/**
 * Markup from templates, in which all text is escaped.
 */
import { Data } from "effect"

/** Markup, as opposed to text. */
export class Html extends Data.Class<{ readonly markup: string }> {}

type Content = string | number | undefined | Html | ReadonlyArray<Html>

const escapes: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;"
}

const toMarkup = (content: Content): string => {
  if (content instanceof Html) return content.markup
  if (Array.isArray(content)) return content.map(toMarkup).join("")
  return String(content ?? "").replace(/[&<>"']/g, (character) => escapes[character] ?? character)
}

/** Makes markup from a template, and escapes all text that is put into it. */
export const html = (template: TemplateStringsArray, ...contents: ReadonlyArray<Content>): Html =>
  new Html({ markup: String.raw({ raw: template }, ...contents.map(toMarkup)) })
