import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decodeProtectedHeader } from "jose";
import { afterAll, describe, expect, test } from "vitest";

import { Redacted } from "../src/redacted.ts";
import {
  createSealer,
  createSealing,
  generateSealingKey,
  readSealingKeys,
  type SealingPrivateKey,
  type SealPurpose,
} from "../src/sealing.ts";

const value = "sk-svcacct-MadeUpMadeUpMadeUpMadeUp1234";
const purpose = { slot: "production/openai", rotationId: "rot-1" };
const first = await generateSealingKey("2026-11");
const second = await generateSealingKey("2026-05");
const stranger = await generateSealingKey("2026-11");
const sealing = createSealing([first.publicKey, second.publicKey], [first.privateKey, second.privateKey]);

/** The message of a failure of this type; its text is searched for whatever must not be in it. */
async function failure(type: string, attempt: () => unknown, secrets: string[] = [value]): Promise<string> {
  const error: unknown = await Promise.resolve()
    .then(attempt)
    .then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
  expect(error).toMatchObject({ name: "RotationFailure", type, retried: false });
  const { message, stack = "" } = error as Error;
  for (const secret of secrets) expect(message + stack).not.toContain(secret);
  return message;
}

describe("a sealed key (promise 4)", () => {
  test("opens to what was sealed, and shows nothing of it on the way", async () => {
    const sealed = await sealing.seal(new Redacted(value), purpose);
    expect((await sealing.open(sealed, purpose)).reveal()).toBe(value);
    for (const form of [sealed, Buffer.from(sealed, "base64url").toString("latin1")]) {
      expect(form).not.toContain("MadeUp");
    }
  });

  test("says in its header which key opens it and what it is for, and nothing else about itself", async () => {
    const header = decodeProtectedHeader(await sealing.seal(new Redacted(value), purpose));
    const { epk, ...rest } = header;
    expect(rest).toEqual({ alg: "ECDH-ES", enc: "A256GCM", kid: "2026-11", slot: purpose.slot, rot: "rot-1" });
    expect(epk).not.toHaveProperty("d");
  });

  test("never looks the same twice", async () => {
    const again = await Promise.all([1, 2].map(() => sealing.seal(new Redacted(value), purpose)));
    expect(again[0]).not.toBe(again[1]);
  });

  test("is sealed by an operator who holds no private key", async () => {
    const sealed = await createSealer([first.publicKey]).seal(new Redacted(value), purpose);
    expect((await sealing.open(sealed, purpose)).reveal()).toBe(value);
  });

  test("still opens with the second key after a new one became the first", async () => {
    const before = createSealing([second.publicKey], [second.privateKey]);
    const sealed = await before.seal(new Redacted(value), purpose);
    expect((await sealing.open(sealed, purpose)).reveal()).toBe(value);
  });

  test.each<[string, SealPurpose]>([
    ["another slot", { ...purpose, slot: "staging/openai" }],
    ["another rotation", { ...purpose, rotationId: "rot-2" }],
    ["another purpose", { slot: purpose.slot, purpose: "leaked" }],
  ])("does not open for %s", async (_, other) => {
    const sealed = await sealing.seal(new Redacted(value), purpose);
    expect(await failure("SealUnreadable", () => sealing.open(sealed, other))).toContain("another slot or rotation");
  });

  test("opens as a leaked key only where it was handed in as one", async () => {
    const leaked: SealPurpose = { slot: purpose.slot, purpose: "leaked" };
    const sealed = await sealing.seal(new Redacted(value), leaked);
    expect((await sealing.open(sealed, leaked)).reveal()).toBe(value);
    await failure("SealUnreadable", () => sealing.open(sealed, purpose));
  });

  test("of a leaked value that is known without its slot opens for no slot, and for none of the slots", async () => {
    const slotless: SealPurpose = { purpose: "leaked" };
    const leaked: SealPurpose = { slot: purpose.slot, purpose: "leaked" };
    const sealed = await sealing.seal(new Redacted(value), slotless);
    expect((await sealing.open(sealed, slotless)).reveal()).toBe(value);
    const { epk: _, ...header } = decodeProtectedHeader(sealed);
    expect(header).toEqual({ alg: "ECDH-ES", enc: "A256GCM", kid: "2026-11", purpose: "leaked" });
    await failure("SealUnreadable", () => sealing.open(sealed, leaked));
    await failure("SealUnreadable", () => sealing.open(sealed, purpose));
    const ofSlot = await sealing.seal(new Redacted(value), leaked);
    expect(await failure("SealUnreadable", () => sealing.open(ofSlot, slotless))).toContain("than no slot");
  });

  test.each([0, 2, 3, 4])("does not open when part %d of it was altered", async (part) => {
    const parts = (await sealing.seal(new Redacted(value), purpose)).split(".");
    const bytes = Buffer.from(parts[part] ?? "", "base64url");
    if (part === 0) {
      const header = { ...(JSON.parse(bytes.toString()) as Record<string, unknown>), rot: "rot-2" };
      parts[0] = Buffer.from(JSON.stringify(header)).toString("base64url");
      await failure("SealUnreadable", () => sealing.open(parts.join("."), { ...purpose, rotationId: "rot-2" }));
      return;
    }
    bytes.writeUInt8(bytes.readUInt8(0) ^ 1, 0);
    parts[part] = bytes.toString("base64url");
    expect(await failure("SealUnreadable", () => sealing.open(parts.join("."), purpose))).toContain("altered");
  });

  test("does not open with a key that only bears the same name", async () => {
    const theirs = createSealing([stranger.publicKey], [stranger.privateKey]);
    const sealed = await theirs.seal(new Redacted(value), purpose);
    expect(await failure("SealUnreadable", () => sealing.open(sealed, purpose))).toContain("named 2026-11");
  });

  test("names the key that would open it when no worker has that key", async () => {
    const old = await generateSealingKey("2025-01");
    const sealed = await createSealer([old.publicKey]).seal(new Redacted(value), purpose);
    expect(await failure("SealUnreadable", () => sealing.open(sealed, purpose))).toContain("2025-01");
  });

  test.each(["", "nonsense", "a.b.c.d.e", value])("%j is no sealed key, and is not repeated", async (text) => {
    await failure("SealUnreadable", () => sealing.open(text, purpose), [value]);
  });
});

describe("the private keys of a worker", () => {
  const { d } = first.privateKey;

  test.each<[string, SealingPrivateKey[]]>([
    ["there is none", []],
    ["only the second is there", [second.privateKey]],
    ["another key bears the first one's name", [stranger.privateKey]],
  ])("are refused when %s", async (_, keys) => {
    const publicKeys = [first.publicKey, second.publicKey];
    const message = await failure(
      "InvalidInput",
      () => createSealing(publicKeys, keys),
      keys.map((key) => key.d),
    );
    expect(message).toContain("no private key for sealing key 2026-11");
  });

  test("are refused when the inventory has no public key", async () => {
    await failure("InvalidInput", () => createSealing([], [first.privateKey]), [d]);
    expect(await failure("InvalidInput", () => createSealer([]))).toContain("run keyturn seal-key");
  });

  const directory = mkdtempSync(join(tmpdir(), "keyturn-sealing-"));
  afterAll(() => rmSync(directory, { recursive: true }));
  const set = JSON.stringify({ keys: [first.privateKey, second.privateKey] });
  const file = join(directory, "sealing.json");
  writeFileSync(file, set);

  test("are read from the environment or from a file, of which an empty one is none", () => {
    const keys = [first.privateKey, second.privateKey];
    expect(readSealingKeys({ KEYTURN_SEALING_KEY: set })).toEqual(keys);
    expect(readSealingKeys({ KEYTURN_SEALING_KEY_FILE: file })).toEqual(keys);
    expect(readSealingKeys({ KEYTURN_SEALING_KEY: "", KEYTURN_SEALING_KEY_FILE: file })).toEqual(keys);
  });

  test("are asked for by name where there are none", async () => {
    for (const env of [{}, { KEYTURN_SEALING_KEY: "", KEYTURN_SEALING_KEY_FILE: "" }]) {
      expect(await failure("InvalidInput", () => readSealingKeys(env))).toContain("keyturn seal-key makes one");
    }
    const missing = { KEYTURN_SEALING_KEY_FILE: join(directory, "none") };
    expect(await failure("InvalidInput", () => readSealingKeys(missing))).toContain("cannot read the sealing key file");
  });

  test.each([
    ["no JSON", (key: string) => `{"d": "${key}"`],
    ["one key instead of a set", () => JSON.stringify(first.privateKey)],
    ["a set of none", () => '{"keys":[]}'],
    ["only public keys", () => JSON.stringify({ keys: [{ kid: "x", ...first.publicKey.publicKey }] })],
    [
      "keys of another kind",
      (key: string) => JSON.stringify({ keys: [{ kid: "x", kty: "OKP", crv: "X25519", d: key }] }),
    ],
  ])("are not quoted when they are %s", async (_, text) => {
    const message = await failure("InvalidInput", () => readSealingKeys({ KEYTURN_SEALING_KEY: text(d) }), [d]);
    expect(message).toContain("not a JWK Set");
  });
});
