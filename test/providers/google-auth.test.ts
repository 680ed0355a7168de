import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { RotationFailure } from "../../src/domain/failure.ts";
import { createGoogleAuth } from "../../src/providers/google-auth.ts";
import { Redacted } from "../../src/redacted.ts";
import { startVendor, type Vendor } from "../support/vendor.ts";

const subject = "made-up-subject-token-0123456789";
const token = "ya29.made-up-0123456789abcdef";

let vendor: Vendor;
let folder: string;

beforeEach(async () => {
  vendor = await startVendor();
  folder = await mkdtemp(join(tmpdir(), "keyturn-google-"));
  const subjectFile = join(folder, "subject");
  const file = join(folder, "credentials.json");
  await writeFile(subjectFile, subject);
  // Workload identity, as a CI system has it; the exchange of tokens goes to the scripted server.
  await writeFile(
    file,
    JSON.stringify({
      type: "external_account",
      audience: "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
      subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
      token_url: `${vendor.url}/v1/token`,
      credential_source: { file: subjectFile },
    }),
  );
  vi.stubEnv("GOOGLE_APPLICATION_CREDENTIALS", file);
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await vendor.close();
  await rm(folder, { recursive: true, force: true });
});

const granted = {
  body: {
    access_token: token,
    issued_token_type: "urn:ietf:params:oauth:token-type:access_token",
    token_type: "Bearer",
    expires_in: 3600,
  },
};

async function failureOf(attempt: Promise<unknown>): Promise<RotationFailure> {
  const error = await attempt.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof RotationFailure)) throw new Error("it did not fail as a rotation failure", { cause: error });
  for (const secret of [subject, token]) expect(`${error.message} ${error.stack}`).not.toContain(secret);
  return error;
}

test("takes a given token and asks nobody", async () => {
  const auth = createGoogleAuth({ accessToken: new Redacted(token) });
  expect((await auth.token()).reveal()).toBe(token);
  expect(vendor.calls).toEqual([]);
});

test("takes application default credentials, once while the token is good", async () => {
  vendor.replies(granted);
  const auth = createGoogleAuth();
  expect((await auth.token()).reveal()).toBe(token);
  expect((await auth.token()).reveal()).toBe(token);
  expect(vendor.calls).toHaveLength(1);
});

test("tells a refusal from an outage", async () => {
  const outage = { status: 503, body: {} };
  // The library's own four attempts, which cannot be switched off here.
  vendor.replies(outage, outage, outage, outage, { status: 400, body: { error: "invalid_grant" } });
  const auth = createGoogleAuth();
  expect(await failureOf(auth.token())).toMatchObject({ type: "Unavailable", retried: true });
  expect(await failureOf(auth.token())).toMatchObject({ type: "AdminCredentialRejected", retried: false });
});

test("says what to set where there are no credentials", async () => {
  vi.stubEnv("GOOGLE_APPLICATION_CREDENTIALS", join(folder, "nothing-here.json"));
  const failure = await failureOf(createGoogleAuth().token());
  expect(failure.type).toBe("AdminCredentialRejected");
  expect(failure.message).toContain("GOOGLE_APPLICATION_CREDENTIALS");
});
