import { WorkflowNotFoundError } from "@temporalio/client";
import { describe, expect, test } from "vitest";

import type { TemporalGround } from "../../src/doctor/ground.ts";
import type { KeyEntry } from "../../src/domain/custody.ts";
import { generateSealingKey, type SealingPrivateKey } from "../../src/sealing.ts";
import type { Temporal } from "../../src/temporal/client.ts";
import { searchAttributeNames } from "../../src/temporal/search-attributes.ts";
import { prod, startStage } from "../support/activities.ts";
import { visit } from "../support/doctor.ts";

/** Temporal as the doctor asks it, played: the real one is asked in test/cli/sweep-and-doctor.test.ts. */
interface Played {
  namespaces?: string[];
  /** How long closed runs are kept, in days. */
  retention?: number;
  /** How the newest closed run of each slot ended. */
  last?: { status: string; result?: object };
  attributes?: Record<string, number>;
  pollers?: Record<number, number>;
}

const keyword = 2;
const known = Object.fromEntries(searchAttributeNames.map((name) => [name, keyword]));

function played({
  namespaces = ["default"],
  attributes = known,
  pollers = { 1: 1, 2: 1 },
  retention = 365,
  last,
}: Played): TemporalGround {
  const workflowService = {
    describeNamespace: async ({ namespace }: { namespace: string }) => {
      if (!namespaces.includes(namespace)) throw new Error(`no namespace ${namespace}`);
      return { config: { workflowExecutionRetentionTtl: { seconds: retention * 86_400 } } };
    },
    describeTaskQueue: async ({ taskQueueType }: { taskQueueType: number }) => ({
      pollers: Array.from({ length: pollers[taskQueueType] ?? 0 }),
    }),
  };
  const connection = {
    withDeadline: async <T>(_: number, call: () => Promise<T>): Promise<T> => call(),
    operatorService: { listSearchAttributes: async () => ({ customAttributes: attributes }) },
  };
  const handle = {
    describe: async () => {
      if (last === undefined) throw new WorkflowNotFoundError("not found", "w", undefined);
      return { workflowId: "w", runId: "run-1", status: { name: last.status } };
    },
    result: async () => last?.result,
    query: async () => Promise.reject(new Error("no worker answers")),
  };
  const client = { connection, workflowService, workflow: { getHandle: () => handle } };
  const at = { address: "temporal.example:7233", namespace: "default" };
  return { ...at, connected: { client, ...at } as unknown as Temporal };
}
const ask = async (temporal: TemporalGround) => visit(await startStage(), { temporal, only: [prod] });

describe("Temporal", () => {
  test("that answers, knows our attributes and has a worker is ok, its address named", async () => {
    const { said } = await ask(played({}));
    expect(said("temporal")).toEqual(["ok: a Temporal server answers at temporal.example:7233, namespace default"]);
    expect(said("search-attributes").join()).toMatch(/^ok/);
    expect(said("worker").join()).toMatch(/^ok/);
  });

  test("that does not answer is a problem, and the rest unknown", async () => {
    const { said } = await ask({ address: "a:1", namespace: "n", why: "no Temporal server answers at a:1" });
    expect(said("temporal")).toEqual(["problem: no Temporal server answers at a:1"]);
    expect([...said("search-attributes"), ...said("worker")].join()).toMatch(/^unknown: .*,unknown: /);
  });

  test("without our namespace is a problem", async () => {
    expect((await ask(played({ namespaces: [] }))).said("temporal").join()).toMatch(/^problem: .*namespace default/);
  });

  test("that misses an attribute is a problem, with the command", async () => {
    const { KeyturnSlot: _, ...rest } = known;
    const { of } = await ask(played({ attributes: rest }));
    expect(of("search-attributes")).toMatchObject([
      {
        level: "problem",
        message: expect.stringContaining("KeyturnSlot"),
        remedy: expect.stringContaining("--name KeyturnSlot --type Keyword"),
      },
    ]);
  });

  test("whose attribute has another type is a problem", async () => {
    const { said } = await ask(played({ attributes: { ...known, KeyturnKind: 1 } }));
    expect(said("search-attributes").join()).toMatch(/^problem: KeyturnKind .*another type/);
  });

  test.each([{ 1: 1, 2: 0 }, { 1: 0, 2: 0 }, {}])(
    "where nobody does the whole work is a problem: %j",
    async (pollers) => {
      expect((await ask(played({ pollers }))).said("worker").join()).toMatch(/^problem: no worker polls/);
    },
  );
});

describe("what runs left behind", () => {
  test("is forgotten too early where the namespace keeps closed runs for less than twice every: a problem", async () => {
    expect((await ask(played({}))).said("retention")).toEqual([
      "ok: namespace default keeps closed runs for 365d, at least twice every (90d)",
    ]);
    const { of } = await ask(played({ retention: 90 }));
    expect(of("retention")).toMatchObject([
      {
        level: "problem",
        message: expect.stringMatching(/keeps closed runs for 90d, under twice every \(90d, production\/openai\)/),
        remedy: "temporal operator namespace update --namespace default --retention 180d",
      },
    ]);
  });

  const looked = { step: "inspectSlot", outcome: "done" };
  const ended = (keys: KeyEntry[]) =>
    played({ last: { status: "COMPLETED", result: { outcome: "aborted", steps: [looked], keys } } });
  const named = (id: string): KeyEntry => ({ id, role: "old", fate: "named", why: "clients may still use it" });

  test("is named until it is seen dead", async () => {
    const stage = await startStage();
    const { id } = await stage.keyByHand("the former key");
    const look = async (keys: KeyEntry[]) =>
      (await visit(stage, { temporal: ended(keys), only: [prod] })).of("left-over");
    expect(await look([named(id)])).toMatchObject([
      {
        level: "warning",
        message: `the run run-1 left behind ${id}: clients may still use it`,
        remedy: expect.stringContaining("keyturn keys"),
      },
    ]);
    expect(await look([named(id), { ...named(id), role: "compromised" }])).toMatchObject([
      { level: "problem", remedy: `cut it: keyturn emergency ${prod} --key ${id}` },
    ]);
    // Neither a list nor a read that misses it is its death.
    for (const mode of ["missing", "not-found"]) {
      await stage.lie({ about: "openai-keys", mode, which: id, times: 1 });
      expect(await look([named(id)])).toMatchObject([{ level: "warning" }]);
    }
    await stage.openai("DELETE", `/organization/projects/proj_abc/api_keys/${id}`);
    expect(await look([named(id), named("key_long_gone")])).toMatchObject([{ level: "ok" }]);
  });

  test("is nothing where the slot holds it now, and unknown where nobody can tell", async () => {
    const stage = await startStage();
    const look = async (temporal: TemporalGround, env = {}) =>
      (await visit(stage, { temporal, only: [prod], env })).said("left-over");
    expect((await look(ended([named("key_prod_1")]))).join()).toMatch(/^ok/);
    expect((await look(played({ last: { status: "TERMINATED" } }))).join()).toMatch(
      /^unknown: what the run run-1 left behind/,
    );
    expect((await look({ address: "a:1", namespace: "n", why: "away" })).join()).toMatch(/^unknown/);
    expect((await look(ended([named("key_x")]), { OPENAI_ADMIN_KEY: "" })).join()).toMatch(
      /^warning: .*key_x, if it lives/,
    );
    expect((await look(played({}))).join()).toMatch(/^ok: no run of the slot is kept/);
  });
});

describe("sealing", () => {
  const sealed = async (kids: string[], here: (keys: SealingPrivateKey[]) => SealingPrivateKey[] | undefined) => {
    const pairs = await Promise.all(kids.map((kid) => generateSealingKey(kid)));
    const keys = here(pairs.map(({ privateKey }) => privateKey));
    const visited = await visit(await startStage(), {
      inventory: { sealing: pairs.map(({ publicKey }) => publicKey) },
      env: keys === undefined ? {} : { KEYTURN_SEALING_KEY: JSON.stringify({ keys }) },
      only: [prod],
    });
    for (const key of keys ?? []) expect(JSON.stringify(visited.findings)).not.toContain(key.d);
    return visited.said("sealing");
  };

  test("with every private half here is ok", async () => {
    expect(await sealed(["new", "old"], (keys) => keys)).toEqual([
      "ok: the private half of new is here and fits; it seals",
      "ok: the private half of old is here and fits",
    ]);
  });

  test("without a private half here is unknown: the workers may have it", async () => {
    expect((await sealed(["new"], () => undefined)).join()).toMatch(
      /^unknown: the inventory seals with new; no private/,
    );
  });

  test("without the private half of the first is a problem, of another unknown", async () => {
    expect(await sealed(["new", "old"], (keys) => keys.slice(1))).toEqual([
      expect.stringMatching(/^problem: the private half of new, which seals, is not here/),
      "ok: the private half of old is here and fits",
    ]);
    expect((await sealed(["new", "old"], (keys) => keys.slice(0, 1)))[1]).toMatch(/^unknown: the private half of old/);
  });

  test("with another key of the same name is a problem", async () => {
    const { privateKey } = await generateSealingKey("new");
    expect((await sealed(["new"], () => [privateKey])).join()).toMatch(/^problem: .* belongs to another public key/);
  });

  test("with two keys of one name is a problem", async () => {
    expect((await sealed(["new", "new"], (keys) => keys)).join()).toMatch(
      /^problem: .*more than one sealing key named new/,
    );
  });

  test("with something else in its place is a problem", async () => {
    const { said } = await visit(await startStage(), { env: { KEYTURN_SEALING_KEY: "made-up" }, only: [prod] });
    expect(said("sealing").join()).toMatch(/^problem: the sealing key is not a JWK Set/);
  });
});
