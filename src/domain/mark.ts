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

export function formatMark({ keyId, rotationId, fingerprint, at }: Mark): string {
  return `keyturn/1 key=${keyId} rot=${rotationId} fp=${fingerprint} at=${at.toISOString()}`;
}

/** The mark in a secret's comment; nothing when the comment is somebody else's. */
export function parseMark(comment: string | undefined): Mark | undefined {
  const groups = markPattern.exec(comment ?? "")?.groups;
  if (groups === undefined) return undefined;
  const { keyId = "", rotationId = "", fingerprint = "", at = "" } = groups;
  const time = new Date(at);
  return Number.isNaN(time.getTime()) ? undefined : { keyId, rotationId, fingerprint, at: time };
}

/** What is compared before a mark is believed. */
export interface MarkEvidence {
  secretModified: Date;
  /** The provider config's masked preview and when it was taken. */
  preview?: string;
  previewModified?: Date;
  /** How the provider masks the key the mark names. */
  maskedValue?: string;
}

/**
 * Whether the mark speaks of the value that is in the secret now. A mark whose secret was modified at another time, or
 * whose key shows another masked value than the gateway's preview, was left behind by somebody's edit.
 * Returns the reason for disbelief, or nothing.
 */
export function disbelieveMark(mark: Mark, evidence: MarkEvidence): string | undefined {
  const { secretModified, preview, previewModified, maskedValue } = evidence;
  if (Math.abs(secretModified.getTime() - mark.at.getTime()) > markToleranceMs) {
    return `the secret was modified at ${secretModified.toISOString()}, its mark is of ${mark.at.toISOString()}`;
  }
  const previewIsYounger = previewModified !== undefined && previewModified >= mark.at;
  if (previewIsYounger && preview !== undefined && maskedValue !== undefined && !masksAgree(preview, maskedValue)) {
    return `the gateway's preview is not that of key ${mark.keyId}`;
  }
  return undefined;
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
