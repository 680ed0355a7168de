import { WorkflowFailedError } from "@temporalio/client";
import { ApplicationFailure } from "@temporalio/common";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { Orphans } from "../../src/activities/orphans.ts";
import { taskQueue } from "../../src/domain/rotation.ts";
import { type SweepItem, type SweepResult, sweepWorkflowId } from "../../src/domain/sweep.ts";
import { failing, play, type Played, type Skipping, startSkipping } from "../support/time-skipping.ts";

let skipping: Skipping;
beforeAll(async () => {
  skipping = await startSkipping();
});
afterAll(() => skipping.stop());

const now = (): Promise<number> => skipping.env.currentTimeMs();
const key = (id: string): SweepItem => ({
  kind: "key",
  id,
  name: `kt.acme.${id}`,
  slot: "production/openai",
  why: "orphan",
});
const alias: SweepItem = {
  kind: "alias",
  id: "kt-0badcafe-new",
  name: "gw",
  slot: "production/openai",
  why: "its rotation has ended",
};
const seen = (more: Partial<Orphans> = {}): (() => Promise<Orphans>) => {
  const orphans = [key("key_a"), key("key_b"), alias];
  return () => Promise.resolve({ installation: "acme", orphans, spared: [], blocked: [], unknown: [], ...more });
};
const sweep = (played: Played, ...args: unknown[]): Promise<SweepResult> =>
  skipping.withWorker(
    played,
    async () =>
      (await skipping.client.workflow.execute("sweepOrphans", {
        taskQueue,
        workflowId: sweepWorkflowId,
        args,
      })) as SweepResult,
  );
const ended = (played: Played): unknown[] =>
  played.calls.flatMap(({ name, order }) => (/^re(?:voke|move)Orphan/.test(name) ? [order["id"]] : []));

test("without revoke only looks, with the minimum age of a day", async () => {
  const played = play(now, { findOrphans: seen() });
  const result = await sweep(played);
  expect(played.calls.map(({ name, order }) => [name, order])).toEqual([
    ["findOrphans", { select: {}, minimumAge: "24h" }],
  ]);
  expect(result).toMatchObject({ revoke: false, cap: 10, minimumAge: "24h", revoked: [], spared: [], failed: [] });
  expect(result.found.map(({ id }) => id)).toEqual(["key_a", "key_b", alias.id]);
});

describe("with revoke", () => {
  test("ends what was found by its id, a key and an alias each in its way", async () => {
    const played = play(now, { findOrphans: seen() });
    const select = { environment: "production" };
    const { revoked } = await sweep(played, { revoke: true, minimumAge: "1h", select });
    expect(played.calls).toMatchObject([
      { name: "findOrphans", order: { select, minimumAge: "1h" } },
      { name: "revokeOrphan", order: { slot: "production/openai", id: "key_a", minimumAge: "1h" } },
      { name: "revokeOrphan", order: { id: "key_b" } },
      { name: "removeOrphanAlias", order: { id: alias.id } },
    ]);
    expect(revoked.map(({ id }) => id)).toEqual(["key_a", "key_b", alias.id]);
  });

  test("ends no more than its cap, ten where none is given, and names the rest", async () => {
    const many = Array.from({ length: 12 }, (_, index) => key(`key_${index}`));
    const played = play(now, { findOrphans: seen({ orphans: many }) });
    const { spared } = await sweep(played, { revoke: true });
    expect(ended(played)).toHaveLength(10);
    expect(spared.map(({ id, why }) => [id, why])).toEqual([
      ["key_10", "the cap of 10 was reached: sweep again"],
      ["key_11", "the cap of 10 was reached: sweep again"],
    ]);
    const capped = play(now, { findOrphans: seen() });
    await sweep(capped, { revoke: true, cap: 1 });
    expect(ended(capped)).toEqual(["key_a"]);
  });

  test("says what the second look spared, and what could not be ended, and goes on", async () => {
    const played = play(now, {
      findOrphans: seen(),
      revokeOrphan: ({ id }) =>
        id === "key_a"
          ? Promise.resolve({ kind: "spared", why: "production/openai holds it" })
          : Promise.reject(failing("AdminCredentialRejected")),
    });
    const { revoked, spared, failed } = await sweep(played, { revoke: true });
    expect(revoked.map(({ id }) => id)).toEqual([alias.id]);
    expect(spared).toMatchObject([
      { id: "key_a", why: "production/openai holds it" },
      { id: "key_b", why: "it could not be ended: it failed: AdminCredentialRejected" },
    ]);
    expect(failed).toEqual(["key_b"]);
  });

  test("ends nothing when everything had to be spared", async () => {
    const spared = [{ ...key("key_a"), why: "everything is spared: Temporal" }];
    const played = play(now, { findOrphans: seen({ orphans: [], spared, blocked: ["Temporal"] }) });
    expect(await sweep(played, { revoke: true })).toMatchObject({ blocked: ["Temporal"], revoked: [], spared });
    expect(ended(played)).toEqual([]);
  });
});

test.each([
  [{ revok: true }, "unknown field revok"],
  [{ cap: 0 }, "cap"],
  [{ minimumAge: "a day" }, "minimumAge: a length of time with its unit"],
  [{ select: { provider: "opnai" } }, "select.provider"],
  ["all", "input"],
])("refuses %j at once, and changes nothing", async (input, said) => {
  const played = play(now, { findOrphans: seen() });
  const failure = await sweep(played, input).catch((error: unknown) => error);
  const cause = failure instanceof WorkflowFailedError ? failure.cause : undefined;
  expect(cause).toBeInstanceOf(ApplicationFailure);
  expect(cause).toMatchObject({ type: "InvalidInput", message: expect.stringContaining(said) });
  expect(played.calls).toEqual([]);
});
