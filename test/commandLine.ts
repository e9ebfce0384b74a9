/** Fails if an option of a command is not a known one, rather than run less than was asked, or something else. */
export const assertKnown = (option: string, value: string | undefined, known: ReadonlyArray<string>): void => {
  if (value !== undefined && !known.includes(value)) throw new Error(`--${option} is one of: ${known.join(", ")}`)
}
