import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, test } from "vitest";

import { emergencyActivities } from "../../src/activities/emergency.ts";
import type { RotationResult } from "../../src/domain/rotation.ts";
import { Redacted } from "../../src/redacted.ts";
import type { Sealing } from "../../src/sealing.ts";
import { inFuture, prod, type Stage, staging, startStage } from "../support/activities.ts";

/** What is looked up in an emergency. Promise 12: what cannot be read is said, and never taken for nothing. */

const old = "key_prod_1";

/** The gateway's logs, which not every token may read. */
const refuseLogs = (stage: Stage): Promise<void> =>
  stage.fault({ service: "cloudflare", method: "GET", path: "/logs", mode: "status", status: 403 });
/** The provider refuses the next keys that clients send. */
const refuseClients = async (stage: Stage, times: number): Promise<void> => {
  await stage.fault({ service: "openai", path: "completions", mode: "status", status: 401, times });
  for (let sent = 0; sent < times; sent++) expect(await stage.chat()).toBe(401);
};

describe("findCompromised", () => {
  /** What an operator's command sends of a leaked value. */
  const leak = async (stage: Stage, value: string): Promise<{ keyIds: string[]; leaked: string }> => {
    const { seal }: Pick<Sealing, "seal"> = stage.dependencies;
    return { keyIds: [], leaked: await seal(new Redacted(value), { slot: prod, purpose: "leaked" }) };
  };

  test("finds keys by their ids, says whether they live, what they look like and who holds them", async () => {
    const stage = await startStage();
    const { id } = await stage.keyByHand("of a script");
    const ending = expect.stringMatching(/^[\w-]{4}$/);
    expect(await stage.run("findCompromised", { keyIds: [old, id] })).toMatchObject([
      { id: old, how: "id", state: "alive", through: prod, heldBy: [prod], unknown: [], ending },
      { id, how: "id", state: "alive", through: prod, name: "of a script", heldBy: [], unknown: [], ending },
    ]);
  });

  test("refuses an id that nobody knows: a cut is a statement about a key that was seen", async () => {
    const stage = await startStage();
    const keyIds = ["key_nobody_knows"];
    await expect(stage.run("findCompromised", { keyIds })).rejects.toMatchObject({
      type: "KeyUnknown",
      nonRetryable: true,
      details: [{ keyIds }],
    });
    await expect(stage.run("findCompromised", { keyIds, providerOnly: true })).rejects.toMatchObject({
      type: "KeyUnknown",
    });
  });

  test("finds another project's key, and says through which slot its provider knows it", async () => {
    const stage = await startStage();
    expect(await stage.run("findCompromised", { slot: staging, keyIds: [old] })).toMatchObject([
      { id: old, state: "alive", through: prod, heldBy: [prod] },
    ]);
  });

  test("refuses a key's value in place of its id, and does not repeat it", async () => {
    const stage = await startStage();
    const keyIds = ["sk-svcacct-MadeUpMadeUpMadeUpMadeUp1234"];
    await expect(stage.run("findCompromised", { keyIds })).rejects.toMatchObject({
      type: "InvalidInput",
      message: expect.not.stringContaining("MadeUp"),
    });
  });

  test("asks the providers only where a look at slots may not delay a cut", async () => {
    const stage = await startStage();
    await stage.fault({ service: "cloudflare", path: ".", mode: "status", status: 503 });
    expect(await stage.run("findCompromised", { keyIds: [old], providerOnly: true })).toMatchObject([
      { id: old, state: "alive", through: prod, heldBy: [], unknown: [] },
    ]);
  });

  test("knows a key that its provider lists no more, where a slot's mark names it, and that it is dead", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    await stage.openai("DELETE", `/organization/projects/proj_abc/api_keys/${key.id}`);
    expect(await stage.run("findCompromised", { keyIds: [key.id] })).toMatchObject([
      { id: key.id, state: "dead", through: prod, heldBy: [prod] },
    ]);
  });

  test("cannot tell of an id where no admin credential is configured, nor that the slot holds another key", async () => {
    const stage = await startStage({ env: { OPENAI_ADMIN_KEY: "" } });
    expect(await stage.run("findCompromised", { keyIds: [old] })).toMatchObject([
      {
        id: old,
        state: "unknown",
        through: prod,
        unknown: [expect.objectContaining({ slot: prod }), expect.anything()],
      },
    ]);
  });

  test("is asked again where another project that may know the id does not answer", async () => {
    const stage = await startStage();
    await stage.fault({ service: "openai", path: "proj_stg/api_keys", mode: "status", status: 503 });
    await expect(stage.run("findCompromised", { keyIds: ["key_of_whom"] })).rejects.toMatchObject({
      type: "Unavailable",
      nonRetryable: false,
    });
    expect(await stage.run("findCompromised", { keyIds: [old] })).toMatchObject([{ id: old, state: "alive" }]);
  });

  test("finds a leaked value by the fingerprint in a mark, else by what its provider shows of it", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    const marked = await leak(stage, await stage.valueOf(key.id));
    expect(await stage.run("findCompromised", marked)).toMatchObject([
      { id: key.id, how: "fingerprint", heldBy: [prod] },
    ]);
    const listed = await leak(stage, await stage.valueOf(old));
    expect(await stage.run("findCompromised", listed)).toMatchObject([{ id: old, how: "masked value" }]);
    expect(await stage.run("findCompromised", { ...listed, keyIds: [old] })).toHaveLength(1);
  });

  test("finds no key for a value that nobody shows", async () => {
    const stage = await startStage();
    const leaked = await leak(stage, "sk-svcacct-made-up-0123456789abcdef");
    await expect(stage.run("findCompromised", leaked)).rejects.toMatchObject({ type: "KeyUnknown" });
  });

  test("calls no key dead or unknown because one read, one list or one mark does not show it", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    const { id: unmarked } = await stage.keyByHand("of a script");
    const unseen = { about: "openai-keys", mode: "not-found", times: 1 };
    for (const id of [key.id, unmarked]) {
      await stage.lie({ ...unseen, which: id });
      expect(await stage.run("findCompromised", { keyIds: [id] })).toMatchObject([{ id, state: "alive" }]);
      await stage.lie({ ...unseen, which: id });
      expect(await stage.run("findCompromised", { keyIds: [id], providerOnly: true })).toMatchObject([
        { id, state: "alive" },
      ]);
    }
    const marked = await leak(stage, await stage.valueOf(key.id));
    await stage.lie({ ...unseen, which: key.id });
    expect(await stage.run("findCompromised", marked)).toMatchObject([{ id: key.id, state: "alive" }]);
    const listed = await leak(stage, await stage.valueOf(unmarked));
    await stage.lie({ about: "openai-keys", mode: "missing", which: unmarked, times: 1 });
    expect(await stage.run("findCompromised", listed)).toMatchObject([{ id: unmarked, state: "alive" }]);
  });

  test.each([503, 403])(
    "calls no key dead whose own project answers %i, though a slot's mark names it and no other project knows it",
    async (status) => {
      const stage = await startStage();
      const fp = new Redacted(await stage.valueOf("key_stg_1")).fingerprint();
      const comment = `keyturn/1 key=key_stg_1 rot=r fp=${fp} at=${new Date().toISOString()}`;
      await stage.edit("github-ai-agent-staging", { comment });
      await stage.fault({ service: "openai", method: "GET", path: "/proj_stg/api_keys", mode: "status", status });
      expect(await stage.run("findCompromised", { keyIds: ["key_stg_1"] })).toMatchObject([
        { id: "key_stg_1", state: "unknown", heldBy: [staging] },
      ]);
    },
  );

  test("knows a key that the slot's last run saw dead, so that it keeps no live one that is named beside it from its cut", async () => {
    const gone = { id: "key_gone", role: "old", fate: "ended", at: new Date().toISOString(), seen: true } as const;
    const unseen = { ...gone, id: "key_unseen", seen: false };
    const result = { keys: [gone, unseen] } as unknown as RotationResult;
    const lastClosed = () => Promise.resolve({ runId: "run-1", status: "COMPLETED", result });
    const stage = await startStage({ lastClosed });
    expect(await stage.run("findCompromised", { keyIds: [gone.id, old] })).toMatchObject([
      { id: gone.id, state: "dead" },
      { id: old, state: "alive" },
    ]);
    await expect(stage.run("findCompromised", { keyIds: [unseen.id] })).rejects.toMatchObject({ type: "KeyUnknown" });
  });

  test("finds the key that a mark alone knows, though a list misses the mark once", async () => {
    const stage = await startStage();
    const { key } = await stage.installed();
    const value = await stage.valueOf(key.id);
    const blind = await startStage({ env: { OPENAI_ADMIN_KEY: "" } });
    const mark = `keyturn/1 key=${key.id} rot=r fp=${new Redacted(value).fingerprint()} at=${new Date().toISOString()}`;
    await blind.edit("github-ai-agent-staging", { value, comment: mark });
    await blind.lie({ about: "secrets", mode: "missing", which: "agent-staging", times: 1 });
    expect(await blind.run("findCompromised", await leak(blind, value))).toMatchObject([
      { id: key.id, through: staging },
    ]);
  });

  test("names every slot that holds it", async () => {
    const stage = await startStage();
    await stage.edit("github-ai-agent-staging", { value: await stage.valueOf(old) });
    const [found] = await stage.run("findCompromised", { keyIds: [old] });
    expect(found?.heldBy.toSorted()).toEqual([prod, staging]);
  });
});

describe("gatherEvidence (promise 12)", () => {
  const thiefModel = "gpt-5";
  /** Two requests of clients, then five that came straight to the provider; asked until the provider shows them all. */
  async function robbed(stage: Stage) {
    const from = inFuture(-1_000);
    for (let sent = 0; sent < 2; sent++) expect(await stage.chat()).toBe(200);
    await pause(400); // some buckets: a stranger's request beside a client's could be the client's
    for (let sent = 0; sent < 5; sent++) {
      const answer = await fetch(`${stage.env["OPENAI_BASE_URL"]}/chat/completions`, {
        method: "POST",
        headers: { authorization: `Bearer ${await stage.valueOf(old)}`, "content-type": "application/json" },
        body: JSON.stringify({ model: thiefModel, messages: [{ role: "user", content: "hello" }] }),
      });
      expect(answer.status).toBe(200);
    }
    const gather = () => stage.run("gatherEvidence", { keyId: old, from, to: new Date().toISOString() });
    await expect.poll(async () => (await gather()).providerRequests, { timeout: 5_000 }).toBe(7);
    return gather();
  }

  test("tells what came straight to the provider from what the gateway sent, and the models it never asked for", async () => {
    const evidence = await robbed(await startStage());
    expect(evidence).toMatchObject({ providerRequests: 7, gatewayRequests: 2, strangeModels: [thiefModel] });
    expect(evidence.strangers.reduce((sum, { requests }) => sum + requests, 0)).toBe(5);
    expect(evidence.strangers.flatMap(({ models }) => models)).toContain(thiefModel);
  });

  test("tells no stranger from a client where the gateway's logs cannot be read", async () => {
    const stage = await startStage();
    await refuseLogs(stage);
    const evidence = await robbed(stage);
    expect(evidence).toMatchObject({ providerRequests: 7, strangers: [], strangeModels: [] });
    expect(evidence.gatewayRequests).toBeUndefined();
    expect(evidence.notes).toContainEqual(expect.stringContaining("strangers cannot be told from clients"));
  });

  test("says so where the provider does not report use by key, or not on every surface", async () => {
    const stage = await startStage();
    const access = stage.dependencies.slotAccess(prod);
    const provider = {
      ...access.provider,
      readUsage: () => Promise.resolve({ buckets: [], bucketMs: 100, unknownSurfaces: ["batches"], perKey: false }),
    };
    const { gatherEvidence } = emergencyActivities({
      ...stage.dependencies,
      slotAccess: () => ({ ...access, provider }),
    });
    const { notes } = await gatherEvidence({ ...stage.of, keyId: old, from: inFuture(-1_000), to: inFuture(0) });
    expect(notes).toEqual([
      "the provider does not report use by key: its use is unknown",
      "use of batches is not reported by key",
    ]);
  });
});

describe("lookForErrors", () => {
  const order = (since: string) => ({ installedKeyId: "key_new", since });

  test("counts the refused requests of clients that are more than before, and not our own probes", async () => {
    const stage = await startStage();
    await refuseClients(stage, 1);
    const since = inFuture(1);
    await pause(5);
    await refuseClients(stage, 3);
    await stage.fault({ service: "openai", path: "completions", mode: "status", status: 401, times: 1 });
    await expect(
      stage.run("verifyThroughGateway", { alias: "real", goodAnswers: 1, until: inFuture(0) }),
    ).rejects.toMatchObject({ type: "KeyRejected" });
    await expect
      .poll(() => stage.run("lookForErrors", order(since)), { timeout: 5_000 })
      .toEqual({ newErrors: 2, note: "3 refused requests since, 1 before" });
  });

  test("says that it could not look where the logs cannot be read (promise 12)", async () => {
    const stage = await startStage();
    await refuseLogs(stage);
    const seen = await stage.run("lookForErrors", order(inFuture(-1_000)));
    expect(seen).toEqual({ note: expect.stringContaining("logs cannot be read") });
  });
});

describe("findLastRefusal", () => {
  test("finds when a client was last refused, or that none was", async () => {
    const stage = await startStage();
    const from = inFuture(-1_000);
    expect(await stage.run("findLastRefusal", { from })).toEqual({});
    const before = Date.now();
    await refuseClients(stage, 2);
    await expect
      .poll(async () => Date.parse((await stage.run("findLastRefusal", { from })).lastRefused ?? ""))
      .toBeGreaterThanOrEqual(before - 1);
  });

  test("says that it could not look where the logs cannot be read (promise 12)", async () => {
    const stage = await startStage();
    await refuseLogs(stage);
    const seen = await stage.run("findLastRefusal", { from: inFuture(-1_000) });
    expect(seen).toEqual({ note: expect.stringContaining("logs cannot be read") });
  });
});
