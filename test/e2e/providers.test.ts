import type { WorkflowHandle } from "@temporalio/client";
import { Runtime } from "@temporalio/worker";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { RotationResult } from "../../src/domain/rotation.ts";
import { Redacted } from "../../src/redacted.ts";
import { createSealer } from "../../src/sealing.ts";
import type { DevServer } from "../../src/temporal/dev-server.ts";
import {
  allSlots,
  handInWhereWanted,
  liveKeys,
  makeAnthropicKey,
  progressOf,
  subjects,
  type Typist,
  typist,
  untilKeyIsWanted,
  wantedName,
} from "../support/providers.ts";
import { foundIn, keepingLogger, logged, readableHistory } from "../support/secrecy.ts";
import { quick, startTemporal, startWorld, type World } from "../support/world.ts";
import type { Traffic } from "../support/traffic.ts";
import type { Ran } from "../cli/run.ts";

let temporal: DevServer;
beforeAll(async () => {
  Runtime.install({ logger: keepingLogger });
  temporal = await startTemporal();
});
afterAll(() => temporal.stop());

describe("rotations of all three providers at once, under live traffic", () => {
  const timeScale = 120;
  interface Rotated {
    result: RotationResult;
    history: string;
    traffic: Traffic;
    handedIn: Ran | undefined;
  }
  const rotated = new Map<string, Rotated>();
  let world: World;
  beforeAll(async () => {
    world = await startWorld({ temporal, timeScale, slots: allSlots });
    const type = await typist(world, temporal);
    await Promise.all(
      subjects.map(async (subject) => {
        const traffic = world.traffic(30, subject.provider);
        const handle = await world.start({ slot: subject.slot, ...subject.told });
        const handedIn = await handInWhereWanted(world, subject, type);
        const result = (await handle.result()) as RotationResult;
        await world.later(60_000);
        await traffic.stop();
        rotated.set(subject.slot, { result, history: await readableHistory(handle), traffic, handedIn });
      }),
    );
    await type.leave();
  }, 240_000);
  afterAll(() => world.stop());

  describe.each(subjects)("$slot", (subject) => {
    const of = (): Rotated => rotated.get(subject.slot) as Rotated;

    test("loses no request", () => {
      expect(of().traffic.failures).toEqual([]);
      expect(of().traffic.served).toBeGreaterThan(500);
    });

    test("ends with exactly one live key, the new one, in the slot", async () => {
      const { result } = of();
      expect(result).toMatchObject({ outcome: "rotated", oldKey: { id: subject.heldKey }, leftOver: [] });
      expect(await liveKeys(world, subject)).toEqual([result.newKey?.id]);
      expect(await world.servedKeys(subject.provider)).toEqual([result.newKey?.id]);
    });

    test("revokes the old key after its last use, and sees it dead", async () => {
      const { times, unknown } = of().result;
      const { keys } = await world.record();
      const old = keys.find(({ id }) => id === subject.heldKey);
      expect(Date.parse(old?.lastUsedAt ?? "")).toBeLessThanOrEqual(Date.parse(old?.revokedAt ?? ""));
      expect(Date.parse(times.revoked ?? "")).toBeLessThanOrEqual(Date.parse(times.confirmedDead ?? ""));
      expect(unknown).not.toContain("confirmedDead");
    });

    test("shows no key in the clear: not in the history, not in the logs", async () => {
      const values = await world.values();
      expect(values.length).toBeGreaterThanOrEqual(9);
      expect(foundIn(of().history, values)).toEqual([]);
      expect(foundIn(logged.join("\n"), values)).toEqual([]);
    });
  });

  test("no request failed by the sandbox's own record", async () => {
    const { failed, failures } = (await world.record()).traffic;
    expect(failures).toEqual([]);
    expect(failed).toBe(0);
  });

  test("the key that a person made was handed in by the command line, which does not show it", async () => {
    const { handedIn, result } = rotated.get("production/anthropic") as Rotated;
    expect(handedIn?.code).toBe(0);
    expect(JSON.parse(handedIn?.stdout ?? "")).toMatchObject({ accepted: true, keyId: result.newKey?.id });
    expect(foundIn(`${handedIn?.stdout}${handedIn?.stderr}`, await world.values())).toEqual([]);
  });
});

describe("a key that only a person can make", () => {
  const slot = "production/anthropic";
  let world: World;
  let type: Typist;
  beforeAll(async () => {
    const batch = { "production/anthropic:batch": allSlots["production/anthropic"] };
    world = await startWorld({ temporal, ...quick, slots: { ...allSlots, ...batch } });
    type = await typist(world, temporal);
  });
  afterAll(async () => {
    await type.leave();
    await world.stop();
  });

  test("is refused with the reason, and the wait goes on, until one comes that fits", async () => {
    const early = await type(["submit-key", slot], "sk-ant-api03-nothing-waits-for-this-made-up-value-0000");
    expect(early).toMatchObject({ code: 2, stderr: expect.stringContaining("no rotation of production/anthropic") });

    const handle = await world.start({ slot });
    const wanted = await untilKeyIsWanted(world, slot);
    const { id, value: dead } = await makeAnthropicKey(world, { name: "dead" });
    await world.ask(`/keys/${id}/expire`, {});
    const { values } = (await world.ask("/values")) as { values: { id: string; value: string }[] };
    const held = values.find((key) => key.id === "apikey_prod_1")?.value;
    const elsewhere = await makeAnthropicKey(world, { name: "elsewhere", workspaceId: "wrkspc_2" });
    const unscoped = await makeAnthropicKey(world, { name: "unscoped", unscoped: true });
    const shortLived = await makeAnthropicKey(world, { name: "short-lived", expiresInSeconds: 30 * 86_400 });
    const refusals: [string, string | undefined, string][] = [
      ["short-lived", shortLived.value, "must live 91d or longer"],
      ["a stranger's", `sk-ant-api03-${"Zz9".repeat(30)}AA`, "the provider shows no key with this value"],
      ["of another workspace", elsewhere.value, "belongs to another workspace"],
      ["of no workspace", unscoped.value, "scoped to no workspace"],
      ["dead", dead, "switched off, revoked or expired"],
      ["the one the slot holds", held, "older than the request for it"],
      ["empty", "\n", "is empty"],
      ["more than a key", "ANTHROPIC_API_KEY = sk-ant", "not one key"],
    ];
    const answers: [string, number | null, string][] = [];
    for (const [what, value, reason] of refusals) {
      const { code, stdout, stderr } = await type(["submit-key", slot], value);
      answers.push([what, code, stderr.includes(reason) ? reason : stderr]);
      expect(foundIn(`${stdout}${stderr}`, value === undefined || value.trim() === "" ? [] : [value])).toEqual([]);
    }
    expect(answers).toEqual(refusals.map(([what, , reason]) => [what, 2, reason]));

    const status = await type(["status", slot, "--json"]);
    expect(status.code).toBe(3);
    expect(JSON.parse(status.stdout)).toMatchObject({
      action: expect.stringMatching(
        /^make .+ wrkspc_1 at https:.+, to live 91d or longer, then keyturn submit-key production\/anthropic$/,
      ),
    });

    const good = await makeAnthropicKey(world, { name: wantedName(wanted) });
    const taken = await type(["submit-key", slot, "--json"], `${good.value}\r\n`);
    expect(taken.code).toBe(0);
    expect(JSON.parse(taken.stdout)).toMatchObject({ slot, accepted: true, keyId: good.id });
    const result = (await handle.result()) as RotationResult;
    expect(result).toMatchObject({ outcome: "rotated", newKey: { id: good.id } });
  }, 90_000);

  test("that another slot holds is refused, and named", async () => {
    const { id, value } = await makeAnthropicKey(world, { name: "shared" });
    await world.cloudflare("POST", "/ai-gateway/gateways/github-ai-agent-prod/provider_configs", {
      alias: "batch",
      provider_slug: "anthropic",
      default_config: false,
      secret: value,
    });
    await world.until(async () => (await world.secrets()).some(({ name }) => name.endsWith("_anthropic_batch")));
    const handle = await world.start({ slot });
    await untilKeyIsWanted(world, slot);
    const refused = await type(["submit-key", slot], value);
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining(`does not take ${id}`) });
    expect(refused.stderr).toContain("production/anthropic:batch holds it already");
    await stop(handle);
  });

  test("sealed for another rotation is not opened", async () => {
    const handle = await world.start({ slot });
    await untilKeyIsWanted(world, slot);
    const { sealing } = JSON.parse(world.inventoryText) as { sealing: Parameters<typeof createSealer>[0] };
    const { value } = await makeAnthropicKey(world, { name: "replayed" });
    const sealed = await createSealer(sealing).seal(new Redacted(value), { slot, rotationId: "another" });
    await expect(handle.executeUpdate("submitKey", { args: [{ sealed }] })).rejects.toMatchObject({
      cause: { cause: { type: "SealUnreadable" } },
    });
    await stop(handle);
  });

  /** The wait goes on, until somebody aborts; nothing was changed. */
  async function stop(handle: WorkflowHandle): Promise<void> {
    expect((await progressOf(world, slot)).waiting?.asks?.kind).toBe("key");
    await handle.signal("abortSignal", { by: "ada" });
    expect(await handle.result()).toMatchObject({ outcome: "aborted", newKey: null });
  }
});
