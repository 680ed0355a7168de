import { whyNoKeyId } from "./key-id.ts";

/** What keyturn writes into a secret's comment, in one request with the value, so that the two never disagree. */
export interface Mark {
  keyId: string;
  rotationId: string;
  /** 16 hex digits of the SHA-256 of the value. */
  fingerprint: string;
  at: Date;
}

const markPattern =
  /^keyturn\/1 key=(?<keyId>\S+) rot=(?<rotationId>\S+) fp=(?<fingerprint>[0-9a-f]{16}) at=(?<at>\S+)$/;

/** How far the secret's `modified` may be from the mark's `at`: two clocks and a slow request. */
export const markToleranceMs = 5 * 60_000;

/** What a mark says where the value's fingerprint was never known: the key was put into the slot by hand. */
export const noFingerprint = "0".repeat(16);

export function formatMark({ keyId, rotationId, fingerprint, at }: Mark): string {
  return `keyturn/1 key=${keyId} rot=${rotationId} fp=${fingerprint} at=${at.toISOString()}`;
}

/** The mark in a secret's comment; nothing when the comment is somebody else's. */
export function parseMark(comment: string | undefined): Mark | undefined {
  const groups = markPattern.exec(comment ?? "")?.groups;
  if (groups === undefined) return undefined;
  const { keyId = "", rotationId = "", fingerprint = "", at = "" } = groups;
  const time = new Date(at);
  // What names no key is no mark of ours: somebody may have written a value there.
  if (Number.isNaN(time.getTime()) || whyNoKeyId(keyId) !== undefined) return undefined;
  return { keyId, rotationId, fingerprint, at: time };
}

/** Whose an alias is that a rotation made for itself. */
export interface AliasOwner {
  installation: string;
  rotationId: string;
}

const aliasPattern = /^keyturn\/1 alias of=(?<installation>\S+) rot=(?<rotationId>\S+)$/;

/** What the secret of a rotation's own alias bears as its comment: the sweep of another installation leaves it alone. */
export function formatAliasComment({ installation, rotationId }: AliasOwner): string {
  return `keyturn/1 alias of=${installation} rot=${rotationId}`;
}

/** Whose the alias is by its secret's comment; nothing where the comment does not say. */
export function parseAliasComment(comment: string | undefined): AliasOwner | undefined {
  const groups = aliasPattern.exec(comment ?? "")?.groups;
  if (groups === undefined) return undefined;
  const { installation = "", rotationId = "" } = groups;
  return { installation, rotationId };
}

/**
 * Whether two masked forms (`sk-svc...9AbC`, `****9AbC`) can be of one value: their visible beginnings and endings
 * agree as far as both show them.
 */
export function masksAgree(one: string, other: string): boolean {
  const a = visibleEnds(one);
  const b = visibleEnds(other);
  const startsAgree = a.start.startsWith(b.start) || b.start.startsWith(a.start);
  const endsAgree = a.end.endsWith(b.end) || b.end.endsWith(a.end);
  return startsAgree && endsAgree;
}

/** Whether a masked form can be of this value: what it shows of its beginning and end is there. */
export function maskFits(mask: string, value: string): boolean {
  const { start, end } = visibleEnds(mask);
  return value.length >= start.length + end.length && value.startsWith(start) && value.endsWith(end);
}

/** Whether a masked form shows enough to tell keys apart: at least four characters of the ending. */
export function maskTells(mask: string): boolean {
  return visibleEnds(mask).end.length >= 4;
}

function visibleEnds(mask: string): { start: string; end: string } {
  const start = /^[\w-]*/.exec(mask)?.[0] ?? "";
  const end = /[\w-]*$/.exec(mask)?.[0] ?? "";
  return start === mask ? { start: "", end: mask } : { start, end };
}
