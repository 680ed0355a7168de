import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";

import { type DevServer, startDevServer } from "../../src/temporal/dev-server.ts";
import { everything, mulberry, seed } from "../support/sample.ts";
import { pointsOf } from "./clean-runs.ts";
import { type Fault, faultAt, faults, isOfService, mayMeet } from "./fault-list.ts";
import { Ground } from "./ground.ts";
import { tell } from "./lanes.ts";
import { describePoint, type Point } from "./points.ts";
import { expectRightEnd } from "./right-end.ts";
import { plain } from "./subjects.ts";

/**
 * Promises 1, 4, 5 and 6 over a long time: one rotation of a slot after the other under live traffic, each meeting what
 * chance has for it: up to three faults at requests of a clean run, and sometimes the death of the worker. The seed and
 * the points of the clean run make the schedule: KEYTURN_FAULTS_SEED has the same one again.
 */

const rotations = everything ? 200 : 3;
const patienceMs = everything ? 4 * 3_600_000 : 240_000;

type ServiceFault = Fault & { fault: Record<string, unknown> };
const ofService: ServiceFault[] = faults.filter(isOfService);

interface Trouble {
  faults: { point: Point; fault: ServiceFault }[];
  kill: Point | undefined;
}

/** What each rotation meets. */
function scheduleOf(points: Point[]): Trouble[] {
  const random = mulberry(seed);
  const oneOf = <Item>(items: Item[]): Item => items[Math.floor(random() * items.length)] as Item;
  const meeting = (): { point: Point; fault: ServiceFault } => {
    const point = oneOf(points);
    return { point, fault: oneOf(ofService.filter((fault) => mayMeet(plain, point, fault))) };
  };
  return Array.from({ length: rotations }, () => ({
    faults: Array.from({ length: Math.floor(random() * 4) }, meeting),
    kill: random() < 0.25 ? oneOf(points) : undefined,
  }));
}

function isRefused({ faults: met }: Trouble): boolean {
  return met.some(({ fault }) => fault.refusal === true);
}

function describeTrouble({ faults: met, kill }: Trouble, nth: number): string {
  const words = met.map(({ point, fault: { name } }) => `${describePoint(point)}: ${name}`);
  if (kill !== undefined) words.push(`${describePoint(kill)}: the worker is killed`);
  return `rotation ${nth} (${words.join("; ") || "undisturbed"})`;
}

async function rotateIn(ground: Ground, trouble: Trouble, what: string): Promise<string> {
  await ground.faults(trouble.faults.map(({ point, fault: { fault } }) => faultAt(point, fault)));
  if (trouble.kill !== undefined) {
    const spring = async (): Promise<void> => {
      await ground.killWorker();
      ground.revived = ground.startWorker();
    };
    ground.trap = { point: trouble.kill, phase: "executed", spring };
  }
  const ended = await ground.endOf(await ground.start());
  ground.trap = undefined;
  await ground.revived;
  await ground.clearFaults();
  await expectRightEnd(ground, ended, { what, refusal: isRefused(trouble) });
  return ended.result?.outcome ?? "failed";
}

let temporal: DevServer;
let ground: Ground;
beforeAll(async () => {
  temporal = await startDevServer({ headless: true });
  ground = await Ground.prepare({ temporal, namespace: randomUUID(), subjects: [plain], httpTimeout: "4s" });
});
afterAll(async () => {
  await ground.close();
  await temporal.stop();
});

test(
  `${rotations} rotations in a row under random faults lose no request, leave no orphan and show no key`,
  async () => {
    const points = (await pointsOf([ground], [plain])).get(plain) ?? [];
    const outcomes: Record<string, number> = {};
    const schedule = scheduleOf(points);
    for (const [index, trouble] of schedule.entries()) {
      const what = describeTrouble(trouble, index + 1);
      if (everything) tell(`${new Date().toISOString()} ${what}`);
      const outcome = await rotateIn(ground, trouble, what);
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    }
    const { served, failed } = ground.traffic;
    tell(`soak: ${JSON.stringify(outcomes)}, ${served} requests served, ${failed} failed (seed ${seed})`);
    // A refusal may stop a rotation; of a few, chance may give one to each.
    const unrefused = schedule.filter((trouble) => !isRefused(trouble)).length;
    expect(outcomes["rotated"] ?? 0).toBeGreaterThanOrEqual(everything ? rotations / 2 : unrefused);
    expect(failed).toBe(0);
  },
  patienceMs,
);
