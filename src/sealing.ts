import { readFileSync } from "node:fs";
import { CompactEncrypt, compactDecrypt, decodeProtectedHeader, exportJWK, generateKeyPair, importJWK } from "jose";
import { z } from "zod";

import type { Environment, SealingPublicKey } from "./config.ts";
import { RotationFailure } from "./domain/failure.ts";
import { Redacted } from "./redacted.ts";

/**
 * What a sealed key is for: written into the authenticated header and checked on opening. A leaked value that is known
 * without its slot is sealed for no slot, and opens for none.
 */
export type SealPurpose = { slot: string; rotationId: string } | { slot?: string; purpose: "leaked" };

/** Seals key values on their way through Temporal, and opens them in the activity that needs them. */
export interface Sealing {
  /** Encrypts the value to the inventory's first public key (JWE, ECDH-ES with AES-256-GCM). */
  seal(value: Redacted, purpose: SealPurpose): Promise<string>;
  /** The reverse. Fails with `SealUnreadable` when no key of ours opens it or it was sealed for something else. */
  open(sealed: string, purpose: SealPurpose): Promise<Redacted>;
}

const privateKeySetSchema = z.object({
  keys: z
    .array(
      z.object({
        kid: z.string(),
        kty: z.literal("EC"),
        crv: z.literal("P-256"),
        x: z.string(),
        y: z.string(),
        d: z.string(),
      }),
    )
    .min(1),
});
export type SealingPrivateKey = z.output<typeof privateKeySetSchema>["keys"][number];

/** Seals only: what the operator's machine can do, which holds no private key. */
export function createSealer(publicKeys: SealingPublicKey[]): Pick<Sealing, "seal"> {
  const first = publicKeys[0];
  if (first === undefined)
    throw new RotationFailure("InvalidInput", "the inventory has no sealing key: run keyturn seal-key");
  return {
    async seal(value, purpose) {
      const key = await importJWK(first.publicKey, "ECDH-ES");
      return new CompactEncrypt(new TextEncoder().encode(value.reveal()))
        .setProtectedHeader({ alg: "ECDH-ES", enc: "A256GCM", kid: first.kid, ...headerOf(purpose) })
        .encrypt(key);
    },
  };
}

/**
 * Seals and opens: what a worker can do. Fails with `InvalidInput` when the private half of the first public key is not
 * there, since such a worker could not open what it seals itself.
 */
export function createSealing(publicKeys: SealingPublicKey[], privateKeys: SealingPrivateKey[]): Sealing {
  const first = publicKeys[0];
  const match = privateKeys.find((key) => key.kid === first?.kid);
  if (first === undefined || match === undefined || match.x !== first.publicKey.x || match.y !== first.publicKey.y) {
    throw new RotationFailure(
      "InvalidInput",
      `no private key for sealing key ${first?.kid ?? "(none)"}, the first in the inventory: give it in KEYTURN_SEALING_KEY or KEYTURN_SEALING_KEY_FILE`,
    );
  }
  return {
    ...createSealer(publicKeys),
    async open(sealed, purpose) {
      const header = readHeader(sealed);
      const key = privateKeys.find(({ kid }) => kid === header["kid"]);
      if (key === undefined) {
        throw unreadable(`the key was sealed with ${String(header["kid"])}, and this worker has no such sealing key`);
      }
      const expected = headerOf(purpose);
      if (purposeFields.some((field) => header[field] !== expected[field])) {
        throw unreadable(`the key was sealed for another slot or rotation than ${forWhat(purpose)}`);
      }
      try {
        const { plaintext } = await compactDecrypt(sealed, await importJWK(key, "ECDH-ES"));
        return new Redacted(new TextDecoder().decode(plaintext));
      } catch {
        throw unreadable(
          `the sealed key for ${forWhat(purpose)} was altered or sealed to another key named ${key.kid}`,
        );
      }
    },
  };
}

/** Makes a new pair; the private half is a `SealingPrivateKey` for `KEYTURN_SEALING_KEY`. */
export async function generateSealingKey(
  kid: string,
): Promise<{ publicKey: SealingPublicKey; privateKey: SealingPrivateKey }> {
  const pair = await generateKeyPair("ECDH-ES", { crv: "P-256", extractable: true });
  const { x = "", y = "", d = "" } = await exportJWK(pair.privateKey);
  const shared = { kty: "EC", crv: "P-256", x, y } as const;
  return { publicKey: { kid, publicKey: shared }, privateKey: { kid, ...shared, d } };
}

/**
 * The private sealing keys: a JWK Set in `KEYTURN_SEALING_KEY`, or in the file that `KEYTURN_SEALING_KEY_FILE` names.
 * Fails with `InvalidInput`; the message never quotes them.
 */
export function readSealingKeys(env: Environment): SealingPrivateKey[] {
  const text = env["KEYTURN_SEALING_KEY"] || readKeyFile(env["KEYTURN_SEALING_KEY_FILE"]);
  if (text === undefined) {
    throw new RotationFailure(
      "InvalidInput",
      "no sealing key: set KEYTURN_SEALING_KEY or KEYTURN_SEALING_KEY_FILE (keyturn seal-key makes one)",
    );
  }
  const parsed = privateKeySetSchema.safeParse(parseJson(text));
  if (parsed.success) return parsed.data.keys;
  throw new RotationFailure("InvalidInput", "the sealing key is not a JWK Set as keyturn seal-key writes it");
}

function readKeyFile(path: string | undefined): string | undefined {
  if (path === undefined || path === "") return undefined;
  try {
    return readFileSync(path, "utf8");
  } catch {
    throw new RotationFailure("InvalidInput", `cannot read the sealing key file ${path} (KEYTURN_SEALING_KEY_FILE)`);
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The fields of the header that say what a sealed key is for. One that is not expected must not be there. */
const purposeFields = ["slot", "rot", "purpose"] as const;

function headerOf(purpose: SealPurpose): Partial<Record<(typeof purposeFields)[number], string>> {
  if ("rotationId" in purpose) return { slot: purpose.slot, rot: purpose.rotationId };
  return { ...(purpose.slot === undefined ? {} : { slot: purpose.slot }), purpose: purpose.purpose };
}

function forWhat({ slot = "no slot" }: SealPurpose): string {
  return slot;
}

function readHeader(sealed: string): Record<string, unknown> {
  try {
    return decodeProtectedHeader(sealed) as Record<string, unknown>;
  } catch {
    throw unreadable("what should be a sealed key is not one");
  }
}

function unreadable(message: string): RotationFailure {
  return new RotationFailure("SealUnreadable", message);
}
