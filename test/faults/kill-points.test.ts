import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { type DevServer, startDevServer } from "../../src/temporal/dev-server.ts";
import { Ground } from "./ground.ts";
import { atLength, chosen, groups, overLanes, tell } from "./lanes.ts";
import { describePoint, oneEarlier, type Phase, phases, type Point } from "./points.ts";
import { expectClientsServed, expectRotated } from "./right-end.ts";
import { seed } from "../support/sample.ts";
import { pointsOf } from "./clean-runs.ts";
import type { Subject } from "./subjects.ts";

/**
 * Promise 5: kill anything at any time. Each request of a clean run is a point at which the worker, or the Temporal
 * server, dies: before the request is executed, after, and after it is answered. Started again, the rotation reaches the
 * same end, and clients see nothing.
 */

const lanesOf = atLength ? { worker: 8, server: 5 } : { worker: 5, server: 2 };
const patienceMs = atLength ? 4 * 3_600_000 : 240_000;

interface Kill {
  subject: Subject;
  point: Point;
  phase: Phase;
}

function describeKill({ subject, point, phase }: Kill): string {
  return `${subject.name}: ${describePoint(point)}, ${phase === "received" ? "before it is executed" : phase}`;
}

/** Rotates; at the kill's moment `strike` happens. Where this run did not come to the point, one before it is tried. */
async function rotateThrough(lane: Ground, kill: Kill, strike: (kill: Kill) => Promise<void>): Promise<void> {
  await lane.turnTo(kill.subject);
  let { point } = kill;
  for (let attempt = 1; ; attempt++) {
    const tried = { ...kill, point };
    const what = describeKill(tried);
    lane.trap = { point, phase: kill.phase, spring: () => strike(tried) };
    const ended = await lane.endOf(await lane.start(), { what });
    lane.trap = undefined;
    await lane.revived;
    await expectRotated(lane, ended, what);
    await expectClientsServed(lane, what);
    if (lane.sprung) return;
    if (attempt === 3) throw new Error(`${what}: this point was never reached`);
    point = oneEarlier(point);
  }
}

function killsOf(points: Map<Subject, Point[]>, count: number): Kill[] {
  return [...points].flatMap(([subject, its], salt) => {
    const all = its.flatMap((point) => phases.map((phase) => ({ subject, point, phase })));
    return chosen(all, describeKill, { count, salt });
  });
}

function tellOf(points: Map<Subject, Point[]>, kills: Kill[], victim: string): void {
  for (const [subject, its] of points) {
    const count = kills.filter((kill) => kill.subject === subject).length;
    tell(`kill points of ${subject.name}: ${its.length}, ${victim} killed at ${count} moments (seed ${seed})`);
  }
}

function expectEnough(points: Map<Subject, Point[]>): void {
  for (const [subject, its] of points) expect(its.length, subject.name).toBeGreaterThan(40);
}

describe.for(groups({ first: 4, others: 1 }, 0))("$name", ({ subjects, moments }) => {
  describe("with the worker killed", () => {
    let temporal: DevServer;
    let lanes: Ground[] = [];
    beforeAll(async () => {
      temporal = await startDevServer({ headless: true });
      lanes = await Promise.all(
        Array.from({ length: lanesOf.worker }, async () =>
          Ground.prepare({ temporal, namespace: randomUUID(), subjects }),
        ),
      );
    });
    afterAll(async () => {
      await Promise.all(lanes.map((lane) => lane.close()));
      await temporal.stop();
    });

    test(
      "goes on to the same end from each request, before, after and answered",
      async () => {
        const points = await pointsOf(lanes, subjects);
        const kills = killsOf(points, moments);
        tellOf(points, kills, "worker");
        const failures = await overLanes(lanes, kills, (lane, kill) =>
          rotateThrough(lane, kill, async ({ phase }) => {
            await lane.killWorker();
            lane.revived = lane.startWorker();
            // A request of a dead client that the service has not taken yet is never executed.
            if (phase === "received") throw new Error("killed");
          }),
        );
        expectEnough(points);
        expect(failures).toEqual([]);
      },
      patienceMs,
    );
  });

  describe("with the Temporal server killed", () => {
    const directories: string[] = [];
    let lanes: { ground: Ground; server: DevServer; restart: () => Promise<void> }[] = [];
    beforeAll(async () => {
      lanes = await Promise.all(Array.from({ length: lanesOf.server }, async () => laneOnFile(subjects, directories)));
    });
    afterAll(async () => {
      await Promise.all(
        lanes.map(async (lane) => {
          await lane.ground.close();
          await lane.server.stop();
        }),
      );
      await Promise.all(directories.map((directory) => rm(directory, { recursive: true, force: true })));
    });

    test(
      "goes on to the same end from each request, before, after and answered",
      async () => {
        const grounds = lanes.map(({ ground }) => ground);
        const points = await pointsOf(grounds, subjects);
        const kills = killsOf(points, atLength ? moments : Math.min(moments, 2 * lanesOf.server));
        tellOf(points, kills, "server");
        const failures = await overLanes(lanes, kills, (lane, kill) =>
          rotateThrough(lane.ground, kill, async () => {
            const { pid } = lane.server;
            process.kill(pid, "SIGKILL");
            await goneOf(pid);
            lane.ground.revived = lane.restart();
          }),
        );
        expectEnough(points);
        expect(failures).toEqual([]);
      },
      patienceMs,
    );
  });
});

/** A lane with a Temporal server of its own that keeps everything in a file. */
async function laneOnFile(subjects: Subject[], directories: string[]) {
  const directory = await mkdtemp(join(tmpdir(), "keyturn-fault-"));
  directories.push(directory);
  const dbFile = join(directory, "temporal.db");
  const server = await startDevServer({ headless: true, dbFile });
  const port = Number(server.address.split(":")[1]);
  const ground = await Ground.prepare({ temporal: server, namespace: randomUUID(), subjects });
  const lane = {
    ground,
    server,
    restart: async () => {
      lane.server = await startDevServer({ headless: true, dbFile, port });
    },
  };
  return lane;
}

async function goneOf(pid: number): Promise<void> {
  for (;;) {
    try {
      process.kill(pid, 0);
    } catch {
      return;
    }
    await delay(5);
  }
}
