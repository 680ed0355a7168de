import { containsKey } from "./key-shape.ts";

/**
 * Ids for keys whose provider cannot be asked for theirs, since no admin credential is configured. They say all that is
 * known of the key: the fingerprint of its value, where that was handed in, or how it ends, where only the gateway's
 * preview shows it. No provider's own id looks like one.
 */

/** The id of a key whose value went through our hands. Other values have other ids. */
export function idOfFingerprint(fingerprint: string): string {
  return `by-hand-${fingerprint}`;
}

/** The id of a key of which a masked form (`****9AbC`) is all that is known; nothing where the mask shows too little. */
export function idOfMask(mask: string): string | undefined {
  const end = /[\w-]{4}$/.exec(mask)?.[0];
  return end === undefined ? undefined : `ends-in-${end}`;
}

/** Whether the id is one of these, so that no provider knows it. */
export function isOurId(id: string): boolean {
  return /^(?:by-hand-[0-9a-f]{16}|ends-in-[\w-]{4})$/.test(id);
}

/** What an id says of its key. Ids of two kinds can be one key's, of one kind they are two keys'. */
export function kindOfId(id: string): "a provider's" | "ending" | "fingerprint" {
  if (!isOurId(id)) return "a provider's";
  return fingerprintOfId(id) === undefined ? "ending" : "fingerprint";
}

/** The masked form in the id of a key of which no more is known. */
export function maskOfId(id: string): string | undefined {
  const end = /^ends-in-([\w-]{4})$/.exec(id)?.[1];
  return end === undefined ? undefined : `****${end}`;
}

/** The fingerprint in the id of a key whose value went through our hands. */
export function fingerprintOfId(id: string): string | undefined {
  return /^by-hand-([0-9a-f]{16})$/.exec(id)?.[1];
}

/** Why the text cannot be the id of a key, without repeating it, since it may be a secret; undefined where it can. */
export function whyNoKeyId(text: string): string | undefined {
  if (containsKey(text) || /^(?:sk-|AIza|AQ\.)/.test(text))
    return "it is the value of a key, not its id: give the id that the provider shows beside the key";
  // It becomes part of an address: a dot segment would leave its place.
  if (/^\.{1,2}$/.test(text) || !/^[\w.:/-]{1,200}$/.test(text)) {
    return "it is no id of a key: give the id that the provider shows beside the key";
  }
  return undefined;
}
