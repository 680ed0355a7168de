import { RotationFailure } from "../domain/failure.ts";
import { Redacted } from "../redacted.ts";

/*
 * Google's credentials: an access token for its management APIs. npm google-auth-library 10.9 (Node >=18) reads them
 * where Google's own tools do: GOOGLE_APPLICATION_CREDENTIALS (service account, workload identity, impersonation), what
 * `gcloud auth application-default login` left, or the metadata server of Google Cloud.
 * cloud.google.com/docs/authentication/application-default-credentials, seen 2026-11.
 */

export interface GoogleAuth {
  /** A token that is good for a while yet. Fails with `AdminCredentialRejected` or `Unavailable`. */
  token(): Promise<Redacted>;
}

/** Covers the API Keys API, Monitoring and the lookup of keys; narrower ones exist for the first only (2026-08). */
const scopes = ["https://www.googleapis.com/auth/cloud-platform"];

/**
 * The given token (`GOOGLE_OAUTH_ACCESS_TOKEN`, about an hour long: for tests and emergencies), else application
 * default credentials. Tokens are kept until shortly before their end, so make one of these per process.
 */
export function createGoogleAuth({ accessToken }: { accessToken?: Redacted | undefined } = {}): GoogleAuth {
  if (accessToken !== undefined) return { token: () => Promise.resolve(accessToken) };
  let library: Promise<{ getAccessToken(): Promise<string | null | undefined> }> | undefined;
  return {
    async token() {
      library ??= openLibrary();
      let text: string | null | undefined;
      try {
        text = await (await library).getAccessToken();
      } catch (error) {
        throw failureOf(error);
      }
      if (!text) throw noCredentials();
      return new Redacted(text);
    },
  };
}

/**
 * Loaded only where a slot needs it. Its own retries are off where it lets us; its exchange of workload identity tokens
 * repeats an outage three times within seconds whatever it is told (10.9.1), which does no harm to a read.
 */
async function openLibrary(): Promise<{ getAccessToken(): Promise<string | null | undefined> }> {
  const { GoogleAuth: Library } = await import("google-auth-library");
  return new Library({
    scopes,
    // Tokens name no project; without one, the library would look it up with a request of its own.
    projectId: "unused",
    clientOptions: { transporterOptions: { retry: false, retryConfig: { retry: 0, noResponseRetries: 0 } } },
  });
}

/** What the library threw can hold the request it made, with its secrets: only status and code are looked at. */
function failureOf(error: unknown): RotationFailure {
  const status = statusOf(error);
  if (status !== undefined && status >= 400 && status < 500 && status !== 408 && status !== 429) {
    return new RotationFailure(
      "AdminCredentialRejected",
      `google gave no access token (status ${status}): renew the application default credentials, or what they impersonate`,
    );
  }
  const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
  if (status === undefined && (code === undefined || code === "ENOENT")) return noCredentials();
  return new RotationFailure(
    "Unavailable",
    `google gave no access token (${status === undefined ? code : `status ${status}`}); try again`,
  );
}

function statusOf(error: unknown): number | undefined {
  if (error === null || typeof error !== "object") return undefined;
  const direct = "status" in error ? error.status : undefined;
  if (typeof direct === "number") return direct;
  const response = "response" in error ? error.response : undefined;
  const inner = response !== null && typeof response === "object" && "status" in response ? response.status : undefined;
  return typeof inner === "number" ? inner : undefined;
}

function noCredentials(): RotationFailure {
  return new RotationFailure(
    "AdminCredentialRejected",
    "there are no usable google credentials: set GOOGLE_APPLICATION_CREDENTIALS, run gcloud auth application-default login, or set GOOGLE_OAUTH_ACCESS_TOKEN",
  );
}
