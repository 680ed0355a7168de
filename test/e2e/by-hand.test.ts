import type { WorkflowHandle } from "@temporalio/client";
import { Runtime } from "@temporalio/worker";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { formatMark, parseMark } from "../../src/domain/mark.ts";
import type { Progress, RotationResult } from "../../src/domain/rotation.ts";
import type { ProviderName } from "../../src/domain/slot.ts";
import { Redacted } from "../../src/redacted.ts";
import type { DevServer } from "../../src/temporal/dev-server.ts";
import { editByHand, secretOf } from "../support/more-slots.ts";
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
      policy: { ...quick.policy, settleBudget: "3s" },
      slots: { ...allSlots, ...batch },
      without: Object.values(credentialOf),
    });
    type = await typist(world, temporal);
    // A neighbour whose key nobody can tell would keep every key of its provider from being revoked.
    const value = await valueOf(world, "key_stg_1");
    const mark = {
      keyId: "key_stg_1",
      rotationId: "0b0e5c11-7f3c-4d55-9d0a-5d7c2f8a9b10",
      fingerprint: new Redacted(value).fingerprint(),
      at: new Date(),
    };
    const { id } = await secretOf(world, "default", "github-ai-agent-staging");
    await editByHand(world, id, { value, comment: formatMark(mark) });
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

  test("a key that a slot holds is refused, one that its provider never accepts is named, and another is asked for", async () => {
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
    expect((await type(["submit-key", batch, "--key-id", marked.id], marked.value)).code).toBe(0);
    await untilRevocationIsAsked(world, batch);

    const handle = await world.start({ slot });
    await untilKeyIsWanted(world, slot);
    const [served] = await world.servedKeys("openai");
    const servedValue = await valueOf(world, served ?? "");
    const refusals: [string, string][] = [
      [servedValue, "production/openai holds it already"],
      [marked.value, "production/openai:batch holds it already"],
    ];
    for (const [value, reason] of refusals) {
      const refused = await type(["submit-key", slot], value);
      expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining(reason) });
      expect(foundIn(`${refused.stdout}${refused.stderr}`, [value])).toEqual([]);
    }
    expect((await progressOf(world, slot)).waiting?.asks?.kind).toBe("key");

    // A new key may not be accepted yet: it is taken, tried for as long as the policy says, and given up with its name.
    const dead = await makeByHand(world, openai, "dead");
    await world.ask(`/keys/${dead.id}/expire`, {});
    const neverAccepted = [dead.value, `sk-svcacct-${"Zz9".repeat(10)}`];
    const named = { fate: "named", why: expect.stringContaining("it was handed in") };
    for (const value of neverAccepted) {
      expect(await type(["submit-key", slot], value)).toMatchObject({ code: 0 });
      await world.until(async () => {
        const { keys, waiting } = await progressOf(world, slot);
        return waiting?.asks?.kind === "key" && keys.some(({ id, fate }) => id === idOf(value) && fate === "named");
      });
      const { keys, newKey, steps } = await progressOf(world, slot);
      expect(keys).toContainEqual(expect.objectContaining({ id: idOf(value), role: "handed-in", ...named }));
      expect(newKey).toBeNull();
      expect(steps.findLast(({ step }) => step === "verifyAtProvider")?.outcome).toBe("failed");
    }
    for (const run of [handle, other]) await run.signal("abortSignal", { by: "ada" });
    const stopped = (await handle.result()) as RotationResult;
    expect(stopped).toMatchObject({ outcome: "aborted", newKey: null });
    expect(stopped.leftOver.map(({ id }) => id)).toEqual(expect.arrayContaining(neverAccepted.map(idOf)));
    // The key that the slot serves was handed in, too: nobody is told to revoke it unseen.
    const ofServed = stopped.keys.find(({ id }) => id === idOf(servedValue));
    if (ofServed?.fate !== "held")
      expect(ofServed).toMatchObject({ fate: "named", why: expect.stringMatching(/may hold it: look/) });
    expect(stopped.keys.find(({ role }) => role === "old")).toMatchObject({
      fate: "held",
      why: `${slot} holds it`,
    });
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
    const [secret] = (await world.secrets()).filter(({ name }) => name === "github-ai-agent-prod_openai_default");
    const compromisedKeyId = parseMark(secret?.comment ?? "")?.keyId;
    const refused = await world.start(
      { slot, compromisedKeyId, strategy: "cut-first" },
      undefined,
      "emergencyRotation",
    );
    await expect(refused.result()).rejects.toMatchObject({
      cause: { type: "InvalidInput", message: expect.stringContaining(`revoke it by hand at ${consoleOf.openai}`) },
    });
    const handle = await world.start(
      { slot, compromisedKeyId, strategy: "swap-first" },
      undefined,
      "emergencyRotation",
    );
    await untilKeyIsWanted(world, slot);
    expect((await type(["submit-key", slot], value)).code).toBe(0);
    await untilRevocationIsAsked(world, slot);
    const others = (await liveKeys(world, openai)).filter((id) => id !== undefined);
    const hands = await handsOf(world, openai);
    for (const id of others) if ((await valueOf(world, id)) !== value) await hands.revokeKey(id);
    expect((await type(["approve", slot])).code).toBe(0);
    const result = (await handle.result()) as RotationResult;
    expect(result).toMatchObject({ kind: "emergency", outcome: "rotated", newKey: { id: idOf(value) } });
    expect(result.keys).toContainEqual(
      expect.objectContaining({ id: compromisedKeyId, role: "compromised", fate: "ended", seen: true }),
    );
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
      type: "NobodyDecided",
      message: expect.stringContaining("nobody revoked ends-in-"),
    });
    expect((failure as { details: RotationResult[] }).details[0]).toMatchObject({
      newKey: { id: idOf(value) },
      // What earlier runs of the slot named is named again beside it.
      leftOver: expect.arrayContaining([expect.objectContaining({ id: endOf(oldValue) })]),
    });
  } finally {
    await type.leave();
    await world.stop();
  }
}, 60_000);
