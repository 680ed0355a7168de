import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { classifyAnswer, provesKey } from "../../src/domain/answer.ts";
import { canSwitch } from "../../src/providers/key-end.ts";
import { canDisable, canHandIn, canIssue, type KeyRecord } from "../../src/providers/provider.ts";
import type { WithEnd } from "../support/providers-at.ts";
import { Redacted } from "../../src/redacted.ts";
import { failureOf } from "./support.ts";

/** One provider and the service it talks to, as the contract needs them. */
export interface ContractWorld {
  provider: WithEnd;
  /** The same, with an admin credential that nobody gave out. */
  impostor: WithEnd;
  /** A live key of the slot's account that was there before, with its value. */
  settled: { id: string; value: Redacted };
  /** A value of the right shape that no key has. */
  madeUp: Redacted;
  /** Sends one model request with the key, straight to the provider. */
  use(value: Redacted): Promise<void>;
  stop(): Promise<void>;
}

/**
 * What every provider promises, whatever it is: the words of src/providers/provider.ts, each as a test. `start` makes the
 * world it is proved in. Everything late (lists, settling, death, usage) is waited for, never assumed.
 */
export function providerContract(name: string, start: () => Promise<ContractWorld>): void {
  describe(`${name} keeps the promises of a provider`, () => {
    let world: ContractWorld;
    beforeAll(async () => {
      world = await start();
    });
    afterAll(async () => {
      await world.stop();
    });

    /** A key to end: a new one where the provider makes keys, else the one that was there. */
    const expendable = async (label: string): Promise<{ id: string; value: Redacted }> => {
      const { provider, settled } = world;
      if (!canIssue(provider)) return settled;
      const { key, value } = await provider.issueKey({ name: label, lifeMs: 3_600_000 });
      return { id: key.id, value };
    };
    const verdictOf = async (value: Redacted) =>
      classifyAnswer(world.provider.name, await world.provider.tryKey(value));
    const becomes = (check: () => Promise<void>): Promise<void> => vi.waitFor(check, { timeout: 20_000, interval: 50 });

    test("knows a good admin credential from a bad one", async () => {
      await world.provider.checkAdminCredential();
      const failure = await failureOf(world.impostor.checkAdminCredential(), []);
      expect(failure).toMatchObject({ type: "AdminCredentialRejected", retried: false });
      expect((await failureOf(world.impostor.listKeys(), [])).type).toBe("AdminCredentialRejected");
    });

    test("lists the keys of the slot's account, and finds one by its id", async () => {
      const { provider, settled } = world;
      const listed = (await provider.listKeys()).find(({ id }) => id === settled.id);
      expect(listed).toMatchObject({ id: settled.id, state: "active" });
      expect(await provider.findKey(settled.id)).toEqual(listed);
      expect(settled.id).toMatch(/^\S+$/);
    });

    test("finds nothing under an id that no key has", async () => {
      expect(await world.provider.findKey("kt-no-such-key")).toBeUndefined();
    });

    test("tells a key that works from one that does not", async () => {
      expect(await verdictOf(world.settled.value)).toBe("works");
      expect(await verdictOf(world.madeUp)).toBe("key refused");
    });

    test("knows the shape of its keys", () => {
      expect(world.provider.looksLikeKey(world.settled.value)).toBe(true);
      expect(world.provider.looksLikeKey(new Redacted("not a key"))).toBe(false);
    });

    test("issues a key that works, under the name it was given", async ({ skip }) => {
      const { provider } = world;
      if (!canIssue(provider)) return skip("makes no keys");
      const label = "kt.acme.production.contract.default.0a1b2c3d.1-1";
      const { key, value } = await provider.issueKey({ name: label, lifeMs: 3_600_000 });
      expect(key).toMatchObject({ name: label, state: "active" });
      expect(provider.looksLikeKey(value)).toBe(true);
      await becomes(async () => {
        expect((await provider.listKeys()).find(({ id }) => id === key.id)?.name).toBe(label);
        expect(provesKey(await verdictOf(value))).toBe(true);
      });
      const end = await provider.setKeyLife(key.id, 86_400_000);
      expect((await provider.findKey(key.id))?.expiresAt).toEqual(end);
      await provider.revokeKey(key.id);
    });

    test("tells which key was used, and when", async () => {
      const { provider } = world;
      const { id, value } = await expendable("kt.acme.production.contract.default.0a1b2c3d.2-1");
      const from = new Date(Date.now() - 60_000);
      await becomes(async () => expect(provesKey(await verdictOf(value))).toBe(true));
      await world.use(value);
      await becomes(async () => {
        const report = await provider.readUsage({ keyIds: [id, "kt-no-such-key"], from, to: new Date() });
        expect(report.perKey).toBeUndefined();
        expect(report.bucketMs).toBeGreaterThan(0);
        const use = report.buckets.filter(({ requests }) => requests > 0);
        expect(use.length).toBeGreaterThan(0);
        expect([...new Set(use.map(({ keyId }) => keyId))]).toEqual([id]);
        for (const bucket of use) expect(bucket.to > from && bucket.from < bucket.to).toBe(true);
      });
    });

    test("switches a key off and on, each also when it already is", async ({ skip }) => {
      const { provider } = world;
      expect(canDisable(provider)).toBe(canSwitch(provider));
      if (!canSwitch(provider)) return skip("cannot switch keys off");
      const { id, value } = await expendable("kt.acme.production.contract.default.0a1b2c3d.3-1");
      await provider.disableKey(id);
      await provider.disableKey(id);
      expect((await provider.findKey(id))?.state).not.toBe("active");
      await becomes(async () => expect(await verdictOf(value)).toBe("key refused"));
      await provider.enableKey(id);
      await provider.enableKey(id);
      expect((await provider.findKey(id))?.state).toBe("active");
      await becomes(async () => expect(provesKey(await verdictOf(value))).toBe(true));
    });

    test("takes the one key a person means, and says why it takes none", async ({ skip }) => {
      const { provider, settled } = world;
      if (!canHandIn(provider)) return skip("takes no keys from people");
      const told = provider.handInInstructions({ name: "kt.acme.1" });
      expect(told.where).toMatch(/^https:\/\//);
      expect(told.keyName).toBe("kt.acme.1");
      const { createdAt } = (await provider.findKey(settled.id)) as KeyRecord;
      const took = await provider.identifyKey(settled.value, { openedAt: createdAt });
      expect(took).toMatchObject({ kind: "identified", key: { id: settled.id } });
      const old = await provider.identifyKey(settled.value, { openedAt: new Date(createdAt.getTime() + 3_600_000) });
      expect(old).toMatchObject({ kind: "refused", fault: "made before" });
      // Google may say no more than that it does not tell.
      const none = await provider.identifyKey(world.madeUp, { openedAt: createdAt });
      expect(none).toMatchObject(none.kind === "unknown" ? { kind: "unknown" } : { kind: "refused", fault: "none" });
    });

    // Last: where no keys are made, it ends the one that was there.
    test("ends a key for good, and says of one that it does not know that nothing was ended", async () => {
      const { provider } = world;
      const { id, value } = await expendable("kt.acme.production.contract.default.0a1b2c3d.4-1");
      await becomes(async () => expect(provesKey(await verdictOf(value))).toBe(true));
      await provider.revokeKey(id);
      await becomes(async () => {
        const state = (await provider.findKey(id))?.state ?? "gone";
        expect(state).toMatch(/^(?:gone|revoked)$/);
        // Again is success where the provider still shows the key, and no made-up success where it does not.
        if (state === "revoked") await provider.revokeKey(id);
        else await expect(provider.revokeKey(id)).rejects.toMatchObject({ type: "KeyUnknown", retried: false });
        expect(await verdictOf(value)).toBe("key refused");
      });
      await expect(provider.revokeKey("kt-no-such-key")).rejects.toMatchObject({ type: "KeyUnknown", retried: false });
      if (canSwitch(provider)) {
        await expect(provider.disableKey("kt-no-such-key")).rejects.toMatchObject({ type: "KeyUnknown" });
      }
    });
  });
}
