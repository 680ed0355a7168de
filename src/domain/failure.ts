/**
 * Everything that can go wrong outside, by what a person would do about it. A type exists only if someone acts on
 * it; each is a heading in docs/failures.md, and `retried` is the one place that decides whether a step is tried
 * again.
 */
export const failureTypes = {
  RateLimited: { retried: true },
  Unavailable: { retried: true },
  NotYetPropagated: { retried: true },
  AdminCredentialRejected: { retried: false },
  KeyRejected: { retried: false },
  KeyLimitReached: { retried: false },
  SlotMissing: { retried: false },
  SlotChanged: { retried: false },
  KeyStillUsed: { retried: false },
  KeyAmbiguous: { retried: false },
  KeyUnknown: { retried: false },
  NobodyDecided: { retried: false },
  InvalidInput: { retried: false },
  SlotBusy: { retried: false },
  SealUnreadable: { retried: false },
  RequestInvalid: { retried: false },
  ResponseUnexpected: { retried: false },
} as const satisfies Record<string, { retried: boolean }>;

export type FailureType = keyof typeof failureTypes;

/** What a failure may carry beside its sentence. */
export interface FailureDetails {
  /** How long the service asked us to wait, in milliseconds. */
  retryAfterMs?: number | undefined;
  /** Overrides the table: a key refused while the provider may still be settling is tried again. */
  retried?: boolean;
  /** What a workflow reads of the failure, as its details: ids and times, never a secret. */
  details?: unknown[];
}

/**
 * A failure an operator can act on. The message is lower-case, names the object and the next move and carries the
 * service's request id where there is one, never a response body: some services echo the key in it.
 */
export class RotationFailure extends Error {
  override readonly name: string = "RotationFailure";
  readonly type: FailureType;
  readonly retried: boolean;
  readonly retryAfterMs: number | undefined;
  readonly details: readonly unknown[];

  constructor(type: FailureType, message: string, details: FailureDetails = {}) {
    super(message);
    this.type = type;
    this.retried = details.retried ?? failureTypes[type].retried;
    this.retryAfterMs = details.retryAfterMs;
    this.details = details.details ?? [];
  }
}
