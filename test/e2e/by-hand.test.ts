import type { WorkflowHandle } from "@temporalio/client";
import { Runtime } from "@temporalio/worker";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { Progress, RotationResult } from "../../src/domain/rotation.ts";
import type { ProviderName } from "../../src/domain/slot.ts";
import { Redacted } from "../../src/redacted.ts";
import type { DevServer } from "../../src/temporal/dev-server.ts";
import {
  allSlots,
  handsOf,
  liveKeys,
  makeByHand,
  progressOf,
  type Subject,
  subjects,
  type Typist,
  typist,
  untilKeyIsWanted,
  valueOf,
  wantedName,
} from "../support/providers.ts";
import { foundIn, keepingLogger, logged, readableHistory } from "../support/secrecy.ts";
import { quick, startTemporal, startWorld, type World } from "../support/world.ts";

/** Rotations by a worker that has no admin credential: people make keys and revoke them, and nothing is claimed that was not seen. */

const credentialOf: Record<ProviderName, string> = {
  openai: "OPENAI_ADMIN_KEY",
  gemini: "GOOGLE_OAUTH_ACCESS_TOKEN",
  anthropic: "ANTHROPIC_ADMIN_KEY",
};
const consoleOf: Record<ProviderName, string> = {
  openai: "https://platform.openai.com/api-keys",
  gemini: "https://console.cloud.google.com/apis/credentials?project=my-project",
  anthropic: "https://platform.claude.com/settings/keys",
};

let temporal: DevServer;
beforeAll(async () => {
  Runtime.install({ logger: keepingLogger });
  temporal = await startTemporal();
});
afterAll(() => temporal.stop());

const idOf = (value: string): string => `by-hand-${new Redacted(value).fingerprint()}`;
const endOf = (value: string): string => `ends-in-${value.slice(-4)}`;

async function untilRevocationIsAsked(world: World, slot: string): Promise<Progress> {
  await world.until(async () => /a person to revoke/.test((await progressOf(world, slot)).waiting?.for ?? ""));
  return progressOf(world, slot);
}

describe("without any admin credential", () => {
  let world: World;
  let type: Typist;
  beforeAll(async () => {
    const batch = { "production/openai:batch": allSlots["production/openai"] };
    world = await startWorld({
      temporal,
      ...quick,
      slots: { ...allSlots, ...batch },
      without: Object.values(credentialOf),
    });
    type = await typist(world, temporal);
  });
  afterAll(async () => {
    await type.leave();
    await world.stop();
  });

  /** A rotation up to the request for the old key's revocation. */
  async function handedIn(subject: Subject): Promise<{ handle: WorkflowHandle; made: { id: string; value: string } }> {
    const handle = await world.start({ slot: subject.slot });
    const made = await makeByHand(world, subject, wantedName(await untilKeyIsWanted(world, subject.slot)));
    const taken = await type(["submit-key", subject.slot, "--json"], made.value);
    expect(JSON.parse(taken.stdout)).toMatchObject({ accepted: true, keyId: idOf(made.value) });
    return { handle, made };
  }

  describe.each(subjects)("a rotation of $slot", (subject) => {
    const { slot, provider, heldKey } = subject;
    let result: RotationResult;
    let history: string;
    let made: { id: string; value: string };
    let oldValue: string;
    let asked: Progress;
    beforeAll(async () => {
      oldValue = await valueOf(world, heldKey);
      const begun = await handedIn(subject);
      made = begun.made;
      asked = await untilRevocationIsAsked(world, slot);
      expect((await type(["status", slot])).code).toBe(3);
      await (await handsOf(world, subject)).revokeKey(heldKey);
      expect((await type(["approve", slot])).code).toBe(0);
      result = (await begun.handle.result()) as RotationResult;
      history = await readableHistory(begun.handle);
    }, 120_000);

    test("puts in the key that a person made, and sees the old one dead", async () => {
      expect(result).toMatchObject({
        outcome: "rotated",
        oldKey: { id: endOf(oldValue) },
        newKey: { id: idOf(made.value) },
        leftOver: [],
      });
      expect(await world.servedKeys(provider)).toEqual([made.id]);
      expect(await liveKeys(world, subject)).toEqual([made.id]);
      const { revoked, confirmedDead } = result.times;
      expect(Date.parse(revoked ?? "")).toBeLessThanOrEqual(Date.parse(confirmedDead ?? ""));
    });

    test("asked for the revocation in words that find key and console", () => {
      expect(asked.waiting).toMatchObject({ asks: { kind: "revocation" }, person: true });
      expect(asked.waiting?.for).toContain(endOf(oldValue));
      expect(asked.waiting?.action).toContain(consoleOf[provider]);
      expect(asked.waiting?.action).toMatch(/then keyturn approve production\/\w+, or keyturn abort/);
    });

    test("says what nobody could check", () => {
      expect(result.unknown).toEqual([
        "state and life of the old key",
        "project, age and life of the new key",
        "clients' use of the new key",
        "use of the old key",
      ]);
      expect(result.steps.find(({ step }) => step === "awaitIdle")?.note).toMatch(
        /ceiling .* is not set|neither .* is set/,
      );
      expect(result.steps.find(({ step }) => step === "disableKey")?.outcome).toBe("skipped");
      expect(result.times.lastUsed).toBeUndefined();
    });

    test("shows no key in the clear", async () => {
      const values = await world.values();
      expect(foundIn(history, values)).toEqual([]);
      expect(foundIn(logged.join("\n"), values)).toEqual([]);
    });
  });

  const openai = subjects[0] as Subject;
  const { slot } = openai;

  test("the next rotation knows the key by its mark, and says under which name to find it", async () => {
    const [before] = await liveKeys(world, openai);
    const { handle } = await handedIn(openai);
    const { waiting, oldKey } = await untilRevocationIsAsked(world, slot);
    expect(oldKey?.id).toBe(idOf(await valueOf(world, before ?? "")));
    expect(waiting?.action).toMatch(/its name begins with kt\.acme\.production\.openai\.default\.[0-9a-f]{8}\./);
    // Nobody revoked it: what a person says is not believed without a death.
    expect((await type(["approve", slot])).code).toBe(0);
    const result = (await handle.result()) as RotationResult;
    expect(result).toMatchObject({ outcome: "rotated", leftOver: [{ id: oldKey?.id }] });
    expect(result.leftOver[0]?.why).toMatch(/says that it is revoked, and it was not seen dead/);
    expect(result.times).not.toHaveProperty("revoked");
    expect(result.times).not.toHaveProperty("confirmedDead");
    expect(result.unknown).toEqual(expect.arrayContaining(["revoked", "confirmedDead"]));
    await (await handsOf(world, openai)).revokeKey(before ?? "");
  }, 60_000);

  test("a key that is dead, that the slot holds, or that another slot holds by its mark is refused, and the wait goes on", async () => {
    const shared = await makeByHand(world, openai, "shared");
    await world.cloudflare("POST", "/ai-gateway/gateways/github-ai-agent-prod/provider_configs", {
      alias: "batch",
      provider_slug: "openai",
      default_config: false,
      secret: shared.value,
    });
    const batch = "production/openai:batch";
    await world.until(async () => (await world.secrets()).some(({ name }) => name.endsWith("_openai_batch")));
    const other = await world.start({ slot: batch });
    await untilKeyIsWanted(world, batch);
    const marked = await makeByHand(world, openai, "marked");
    expect((await type(["submit-key", batch], marked.value)).code).toBe(0);
    await untilRevocationIsAsked(world, batch);

    const handle = await world.start({ slot });
    await untilKeyIsWanted(world, slot);
    const dead = await makeByHand(world, openai, "dead");
    await world.ask(`/keys/${dead.id}/expire`, {});
    const [served] = await world.servedKeys("openai");
    const refusals: [string, string][] = [
      [dead.value, "the provider says key refused"],
      [await valueOf(world, served ?? ""), "production/openai holds it already"],
      [marked.value, "production/openai:batch holds it already"],
      [`sk-svcacct-${"Zz9".repeat(10)}`, "the provider says key refused"],
    ];
    for (const [value, reason] of refusals) {
      const refused = await type(["submit-key", slot], value);
      expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining(reason) });
      expect(foundIn(`${refused.stdout}${refused.stderr}`, [value])).toEqual([]);
    }
    expect((await progressOf(world, slot)).waiting?.asks?.kind).toBe("key");
    for (const run of [handle, other]) await run.signal("abortSignal", { by: "ada" });
    expect(await handle.result()).toMatchObject({ outcome: "aborted", newKey: null, leftOver: [] });
    // What the other one waited for was a revocation: the old key is named, and nobody says that it is dead.
    const aborted = (await other.result()) as RotationResult;
    expect(aborted).toMatchObject({ outcome: "aborted", leftOver: [{ id: endOf(shared.value) }] });
    expect(aborted.times).not.toHaveProperty("revoked");
  }, 60_000);

  test("the id that a person gives is the key's, in the result and in the mark", async () => {
    const handle = await world.start({ slot });
    const made = await makeByHand(world, openai, wantedName(await untilKeyIsWanted(world, slot)));
    const taken = await type(["submit-key", slot, "--key-id", made.id, "--json"], made.value);
    expect(JSON.parse(taken.stdout)).toMatchObject({ keyId: made.id });
    await untilRevocationIsAsked(world, slot);
    const [secret] = (await world.secrets()).filter(({ name }) => name === "github-ai-agent-prod_openai_default");
    expect(secret?.comment).toContain(`key=${made.id} `);
    await handle.signal("abortSignal", { by: "ada" });
    expect(await handle.result()).toMatchObject({ outcome: "aborted", newKey: { id: made.id } });
  }, 60_000);

  test("an emergency cannot cut by itself, and says at once who can; one that swaps first asks for it at the end", async () => {
    const { value } = await makeByHand(world, openai, "for the emergency");
    const refused = await world.start({ slot, strategy: "cut-first" }, undefined, "emergencyRotation");
    await expect(refused.result()).rejects.toMatchObject({
      cause: { type: "InvalidInput", message: expect.stringContaining(`revoke it by hand at ${consoleOf.openai}`) },
    });
    const handle = await world.start({ slot, strategy: "swap-first" }, undefined, "emergencyRotation");
    await untilKeyIsWanted(world, slot);
    expect((await type(["submit-key", slot], value)).code).toBe(0);
    await untilRevocationIsAsked(world, slot);
    const others = (await liveKeys(world, openai)).filter((id) => id !== undefined);
    const hands = await handsOf(world, openai);
    for (const id of others) if ((await valueOf(world, id)) !== value) await hands.revokeKey(id);
    expect((await type(["approve", slot])).code).toBe(0);
    const result = (await handle.result()) as RotationResult;
    expect(result).toMatchObject({ kind: "emergency", outcome: "rotated", newKey: { id: idOf(value) }, leftOver: [] });
    expect(result.clocks?.revoked).toBeDefined();
    expect(result.unknown).toContain("use of the compromised key");
  }, 60_000);
});

test("nobody who revokes the old key in time stops the rotation, with the old key named", async () => {
  const openai = subjects[0] as Subject;
  const policy = { ...quick.policy, personDeadline: "15s" };
  const world = await startWorld({ temporal, ...quick, policy, slots: allSlots, without: Object.values(credentialOf) });
  const type = await typist(world, temporal);
  try {
    const oldValue = await valueOf(world, openai.heldKey);
    const handle = await world.start({ slot: openai.slot });
    const { value } = await makeByHand(world, openai, wantedName(await untilKeyIsWanted(world, openai.slot)));
    expect((await type(["submit-key", openai.slot], value)).code).toBe(0);
    const failure = await handle
      .result()
      .catch((error: unknown) => (error as { cause: { message: string; details: RotationResult[] } }).cause);
    expect(failure).toMatchObject({
      type: "InvalidInput",
      message: expect.stringContaining("nobody revoked ends-in-"),
    });
    expect((failure as { details: RotationResult[] }).details[0]).toMatchObject({
      newKey: { id: idOf(value) },
      leftOver: [{ id: endOf(oldValue) }],
    });
  } finally {
    await type.leave();
    await world.stop();
  }
}, 60_000);
