import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";

import { type DevServer, startDevServer } from "../../src/temporal/dev-server.ts";
import { type Ended, Ground, until } from "./ground.ts";
import { expectNothingHalfDone, expectRotated } from "./right-end.ts";
import { plain } from "./subjects.ts";

/** What docs/failures.md says of a type, seen in a whole rotation: waited out, or stopped with nothing half-done. */

const ours = { "user-agent": "^keyturn/" };
let temporal: DevServer;
let grounds: Ground[] = [];
let free: Ground[] = [];
beforeAll(async () => {
  temporal = await startDevServer({ headless: true });
  const prepare = () => Ground.prepare({ temporal, namespace: randomUUID(), subjects: [plain] });
  grounds = await Promise.all([prepare(), prepare()]);
  free = [...grounds];
});
afterAll(async () => {
  await Promise.all(grounds.map((ground) => ground.close()));
  await temporal.stop();
});

/** Each in the next ground that is free: as many side by side as there are. */
function inTurn(name: string, play: (ground: Ground) => Promise<void>): void {
  test.concurrent(name, async () => onGround(play), 200_000);
}

async function onGround(play: (ground: Ground) => Promise<void>): Promise<void> {
  await until("a ground is free", async () => free.length > 0, 180_000);
  const ground = free.pop();
  if (ground === undefined) return onGround(play);
  try {
    await ground.clearFaults();
    await play(ground);
  } finally {
    free.push(ground);
  }
}

interface Row {
  at: string;
  service: string;
  method: string;
  path: string;
  status: number;
  userAgent: string | null;
}

async function requests(ground: Ground): Promise<Row[]> {
  const { requests: rows } = (await ground.control("/record")) as { requests: Row[] };
  return rows.filter(({ userAgent }) => userAgent?.startsWith("keyturn/"));
}

async function rotate(ground: Ground): Promise<Ended> {
  return ground.endOf(await ground.start());
}

/** The failures of attempts that were repeated: Temporal keeps the last one before each success. */
function expectRetried({ history }: Ended, type: string): void {
  expect(history).toContain(`"type":"${type}"`);
}

async function expectStopped(ground: Ground, ended: Ended, type: string): Promise<void> {
  expect(ended.failure).toMatchObject({ type });
  expect(ended.result).toMatchObject({ outcome: "aborted" });
  await expectNothingHalfDone(ground, ended, type);
  expect(ground.takeFailures()).toEqual([]);
  await ground.endOtherKeys();
}

inTurn("[RateLimited] is waited out as long as the service asks", async (ground) => {
  const path = "/v1/organization/projects/proj_abc/service_accounts/[^/]+/api_keys$";
  await ground.faults([
    { service: "openai", method: "POST", path, when: ours, mode: "status", status: 429, retryAfter: 3, times: 1 },
  ]);
  const ended = await rotate(ground);
  await expectRotated(ground, ended, "RateLimited");
  expectRetried(ended, "RateLimited");
  const [limited, again] = (await requests(ground))
    .filter((row) => row.method === "POST" && new RegExp(path).test(row.path))
    .map(({ at }) => Date.parse(at));
  expect((again ?? 0) - (limited ?? 0)).toBeGreaterThanOrEqual(3_000);
});

inTurn("[Unavailable] is tried again, and the rotation reaches its end", async (ground) => {
  await ground.faults([{ service: "openai", method: "*", when: ours, mode: "status", status: 503, times: 3 }]);
  const ended = await rotate(ground);
  await expectRotated(ground, ended, "Unavailable");
  expectRetried(ended, "Unavailable");
});

inTurn("[NotYetPropagated] is waited out inside the budget", async (ground) => {
  await ground.control("/options", { activationMs: 2_000_000 });
  const ended = await rotate(ground);
  await ground.control("/options", { activationMs: 3_000 });
  await expectRotated(ground, ended, "NotYetPropagated");
  expectRetried(ended, "NotYetPropagated");
});

inTurn("[AdminCredentialRejected] stops before anything is changed", async (ground) => {
  const { writes } = (await ground.control("/record")) as { writes: number };
  await ground.faults([
    { service: "openai", method: "*", path: "^/v1/organization/", when: ours, mode: "status", status: 401 },
  ]);
  await expectStopped(ground, await rotate(ground), "AdminCredentialRejected");
  expect(((await ground.control("/record")) as { writes: number }).writes).toBe(writes);
});

inTurn("[SlotChanged] keeps what somebody wrote meanwhile", async (ground) => {
  const secret = await ground.slotSecret();
  const held = await ground.heldKey();
  ground.trap = {
    point: { service: "openai", method: "GET", route: "/v1/models", nth: 1 },
    phase: "executed",
    spring: () => ground.editSecret(secret.id, { comment: "mine" }),
  };
  const ended = await rotate(ground);
  ground.trap = undefined;
  await expectStopped(ground, ended, "SlotChanged");
  expect(await ground.heldKey()).toBe(held);
  expect((await ground.slotSecret()).comment).toBe("mine");

  // The mark is overwritten, and the gateway's preview is older than the edit: neither tells.
  await expectStopped(ground, await rotate(ground), "InvalidInput");
  await expectRotated(ground, await ground.endOf(await ground.start({ heldKeyId: held })), "told the held key");
});

/** Each write of the new key's alias fails so, and goes on failing. */
async function rotateUnder(ground: Ground, fault: Record<string, unknown>): Promise<Ended> {
  await ground.faults([{ service: "cloudflare", method: "POST", path: "/secrets$", when: ours, ...fault }]);
  return rotate(ground);
}

inTurn("[RequestInvalid] stops with nothing half-done", async (ground) => {
  await expectStopped(ground, await rotateUnder(ground, { mode: "status", status: 400 }), "RequestInvalid");
});

inTurn("[ResponseUnexpected] stops with nothing half-done", async (ground) => {
  const ended = await rotateUnder(ground, { mode: "status", status: 200, body: { success: true, result: {} } });
  await expectStopped(ground, ended, "ResponseUnexpected");
});

// Last, and alone: it leaves a ground as nothing else does.
test("a permanent refusal of everything leaves both keys alive and named", async () => {
  await onGround(async (ground) => {
    ground.trap = {
      point: {
        service: "gateway",
        method: "POST",
        route: "/v1/*/github-ai-agent-prod/openai/chat/completions",
        nth: 2,
      },
      phase: "answered",
      spring: () => ground.faults([{ service: "cloudflare", method: "*", when: ours, mode: "status", status: 403 }]),
    };
    const ended = await rotate(ground);
    ground.trap = undefined;
    await ground.clearFaults();
    expect(ended.failure).toMatchObject({ type: "AdminCredentialRejected" });
    const alive = (await ground.keys()).filter(({ state }) => state === "active").map(({ id }) => id);
    expect(new Set(ended.result?.leftOver.map(({ id }) => id))).toEqual(new Set(alive));
    expect(alive).toHaveLength(2);
    expect(ended.result?.warnings.join()).toContain("aliases of this rotation could not be removed");
    await until("all edges serve a live key", async () => {
      const served = await ground.served();
      return served.every((id) => alive.includes(id));
    });
    expect(ground.takeFailures()).toEqual([]);
  });
}, 90_000);
