import { fingerprintOfId, kindOfId } from "./key-id.ts";
import { type Mark, markToleranceMs, maskTells, masksAgree, noFingerprint } from "./mark.ts";

/** What is seen of a slot, for telling which key it holds: what lies in its secret, and what this run wrote there. */
export type Seen =
  /** Its secret was looked for by id, or by name where it never had one, twice some seconds apart: it is not there. */
  | { kind: "gone" }
  /** It could not be looked at. */
  | { kind: "unreadable"; why: string }
  /** No marks are kept there: the last result tells, or what this run wrote. */
  | { kind: "remembered"; keyId?: string; ours?: Ours }
  | SeenSecret;

/** A secret that was read. */
export interface SeenSecret {
  kind: "secret";
  /** When it was last written, by Cloudflare's clock. */
  modified: Date;
  mark?: Mark;
  /** How the provider masks the key that the mark names, where that is known. */
  markedMask?: string;
  /** Whether the gateway lists a provider config for it: a secret alone may serve, too (reference/cloudflare.md, 2026). */
  config: "present" | "absent";
  /** The config's masked form of the value, and when it was taken: by Cloudflare's clock too. */
  preview?: string;
  previewModified?: Date;
  ours?: Ours;
}

/** The key that this run wrote into the slot, or began to. */
export interface Ours {
  rotationId: string;
  keyId: string;
}

/** What is known of the key that is asked for. The more is known, the less is "unknown". */
export interface AskedKey {
  id: string;
  /** How its provider masks it. */
  maskedValue?: string;
  /** 16 hex digits of the SHA-256 of its value. */
  fingerprint?: string;
  /** A value that was written before the key was made is another key's. */
  createdAt?: Date;
}

export type HeldAnswer = "yes" | "no" | "unknown";

export interface Judgement {
  answer: HeldAnswer;
  /** Goes into a sentence: what the answer goes by. */
  why: string;
}

/**
 * Whether a slot holds a key, as far as can be told from what is seen of it. "No" is said only where something seen
 * speaks against it; where nothing tells, or two things contradict each other, the answer is "unknown".
 */
export function judgeHeld(seen: Seen, key: AskedKey): Judgement {
  switch (seen.kind) {
    case "gone":
      return no("its secret is not there");
    case "unreadable":
      return unknown(seen.why);
    case "remembered":
      return byMemory(seen, key);
    case "secret":
      return withOurs(seen, key, byAge(seen, key, bySecret(seen, key)));
  }
}

/** Whether the mark speaks of the value that is in the secret now, and why not. */
export function doubtMark({ mark, modified, preview, previewModified, markedMask }: SeenSecret): string | undefined {
  if (mark === undefined) return "the secret bears no mark of keyturn";
  const agrees = alike(preview, markedMask);
  const taken = previewModified?.getTime() ?? -Infinity;
  if (Math.abs(modified.getTime() - mark.at.getTime()) > markToleranceMs) {
    // Somebody edited the secret, its value perhaps: only a preview taken since can say that it is still the mark's.
    if (agrees === true && taken >= modified.getTime()) return undefined;
    return `the secret was modified at ${modified.toISOString()}, its mark is of ${mark.at.toISOString()}`;
  }
  if (agrees === false && taken >= mark.at.getTime()) return `the gateway's preview is not that of key ${mark.keyId}`;
  return undefined;
}

/**
 * The gateway's preview of the value that is in the secret now: taken no earlier than the secret's last write, and
 * showing enough to tell keys apart.
 */
export function currentPreview({ modified, preview, previewModified }: SeenSecret): string | undefined {
  if (preview === undefined || previewModified === undefined || !maskTells(preview)) return undefined;
  return previewModified >= modified ? preview : undefined;
}

/** Whether two masked forms are of one value; undefined where either shows too little to tell keys apart. */
export function alike(one: string | undefined, other: string | undefined): boolean | undefined {
  if (one === undefined || other === undefined || !maskTells(one) || !maskTells(other)) return undefined;
  return masksAgree(one, other);
}

function byMemory({ keyId, ours }: { keyId?: string; ours?: Ours }, key: AskedKey): Judgement {
  // The last result is out of date once this run has written.
  if (ours !== undefined) {
    return ours.keyId === key.id ? yes("this rotation wrote it there") : no("this rotation wrote another key there");
  }
  if (keyId === undefined) return unknown("no result of an earlier rotation tells which key it holds");
  return keyId === key.id ? yes("its last rotation left it there") : no("its last rotation left another key there");
}

function bySecret(seen: SeenSecret, key: AskedKey): Judgement {
  const { mark, config } = seen;
  const named = mark === undefined ? "nothing" : whomItNames(mark, key);
  if (config === "absent") {
    const said = mark === undefined ? "its secret bears no mark" : `its secret's mark names ${mark.keyId}`;
    return unknown(`${said}, and the gateway lists no provider config for it`);
  }
  const doubt = doubtMark(seen);
  const current = currentPreview(seen);
  const shows = alike(current, key.maskedValue);
  if (mark !== undefined && doubt === undefined) {
    if (named === "this") {
      return shownSince(seen, key, mark.at) === false
        ? unknown("its mark names the key, and the gateway's preview is another's")
        : yes("its mark names the key");
    }
    if (named === "other") {
      // A preview like this key's, where the marked key's own is not known to fit it as well: two witnesses differ.
      const fitsBoth = alike(seen.preview, seen.markedMask) === true;
      return shownSince(seen, key, mark.at) === true && !fitsBoth
        ? unknown(`its mark names ${mark.keyId}, and the gateway's preview is like the key's`)
        : no(`its mark names ${mark.keyId}`);
    }
  }
  if (shows === true) {
    return mark !== undefined && named === "other" && alike(current, seen.markedMask) === true
      ? unknown(`the gateway's preview is like the key's, and like that of ${mark.keyId}`)
      : yes("the gateway's preview is the key's");
  }
  const whose = doubt ?? `its mark names ${mark?.keyId}, which may be any key of its provider`;
  if (shows === false) {
    return named === "this" && mark !== undefined && isFresh(seen, mark)
      ? unknown(`its mark names the key, and the gateway's preview is another's`)
      : no("the gateway's preview is another key's");
  }
  return unknown(`${whose}, and the gateway shows no preview of its present value that tells`);
}

/** A value that was written before the key was made is another one's, whatever else is not known of it. */
function byAge({ modified, mark }: SeenSecret, key: AskedKey, judged: Judgement): Judgement {
  if (judged.answer !== "unknown" || key.createdAt === undefined) return judged;
  if (mark !== undefined && whomItNames(mark, key) === "this") return judged;
  const before = modified.getTime() + markToleranceMs < key.createdAt.getTime();
  return before ? no("it was last written before the key was made") : judged;
}

/** A write of this run that does not show may still arrive. */
function withOurs({ mark, ours }: SeenSecret, key: AskedKey, judged: Judgement): Judgement {
  if (judged.answer !== "no" || ours?.keyId !== key.id || mark?.rotationId === ours.rotationId) return judged;
  return unknown(`${judged.why}, and this rotation's write of the key may still arrive`);
}

/** Whom a mark names: this key, another one, or one that cannot be told, since it names no id of the provider's. */
function whomItNames(mark: Mark, key: AskedKey): "this" | "other" | "any" {
  const fingerprint = key.fingerprint ?? fingerprintOfId(key.id);
  // Two projects can have keys of one id: the values tell, where both are known.
  if (fingerprint !== undefined && mark.fingerprint !== noFingerprint) {
    return mark.fingerprint === fingerprint ? "this" : "other";
  }
  if (mark.keyId === key.id) return "this";
  return kindOfId(mark.keyId) === kindOfId(key.id) ? "other" : "any";
}

/** Whether the preview is this key's, where it was taken no earlier than a moment. */
function shownSince({ preview, previewModified }: SeenSecret, key: AskedKey, since: Date): boolean | undefined {
  if (previewModified === undefined || previewModified < since) return undefined;
  return alike(preview, key.maskedValue);
}

function isFresh({ modified }: SeenSecret, mark: Mark): boolean {
  return Math.abs(modified.getTime() - mark.at.getTime()) <= markToleranceMs;
}

const yes = (why: string): Judgement => ({ answer: "yes", why });
const no = (why: string): Judgement => ({ answer: "no", why });
const unknown = (why: string): Judgement => ({ answer: "unknown", why });
