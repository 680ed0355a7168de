/** A change of source text on purpose. */
export interface Replacement {
  /** Text that stands in the file exactly once. */
  find: string;
  replace: string;
}

/** The text with the replacement made. Throws where what is to be replaced is not there, or more than once. */
export function applyPatch(text: string, { find, replace }: Replacement): string {
  const count = text.split(find).length - 1;
  if (count !== 1)
    throw new Error(`what is to be replaced stands there ${count} times, not once: ${find.slice(0, 80)}`);
  return text.replace(find, () => replace);
}
