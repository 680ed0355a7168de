import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { type DevServer, startDevServer } from "../../src/temporal/dev-server.ts";
import { Ground } from "./ground.ts";
import { chosen, everything, overLanes, seed, tell } from "./lanes.ts";
import { describePoint, inBoth, type Phase, phases, type Point } from "./points.ts";
import { expectRotated } from "./right-end.ts";
import { type Subject, subjects } from "./subjects.ts";

/**
 * Promise 5: kill anything at any time. Each request of a clean run is a point at which the worker, or the Temporal
 * server, dies: before the request is executed, after, and after it is answered. Started again, the rotation reaches the
 * same end, and clients see nothing.
 */

const lanesOf = everything ? { worker: 8, server: 5 } : { worker: 5, server: 2 };
const patienceMs = everything ? 4 * 3_600_000 : 150_000;

interface Kill {
  point: Point;
  phase: Phase;
}

function describeKill({ point, phase }: Kill): string {
  return `${describePoint(point)}, ${phase === "received" ? "before it is executed" : phase}`;
}

/** Rotates once in each lane, undisturbed, and returns the points that all of these runs have. */
async function pointsOf(lanes: Ground[]): Promise<Point[]> {
  const clean = await Promise.all(
    lanes.map(async (lane) => {
      await expectRotated(lane, await lane.endOf(await lane.start()), "undisturbed");
      return lane.numbering.points();
    }),
  );
  return clean.reduce(inBoth);
}

/** Rotates; at the kill's moment `strike` happens. A point that this run did not come to is tried once more. */
async function rotateThrough(lane: Ground, kill: Kill, strike: (kill: Kill) => Promise<void>): Promise<void> {
  const what = describeKill(kill);
  for (let attempt = 1; ; attempt++) {
    lane.trap = { ...kill, spring: () => strike(kill) };
    const ended = await lane.endOf(await lane.start());
    lane.trap = undefined;
    await lane.revived;
    await expectRotated(lane, ended, what);
    expect(lane.traffic?.failures, `${what}: requests of clients`).toEqual([]);
    if (lane.sprung) return;
    if (attempt === 3) throw new Error(`${what}: this point was never reached`);
  }
}

function killsOf(points: Point[], count: number): Kill[] {
  const all = points.flatMap((point) => phases.map((phase) => ({ point, phase })));
  return chosen(all, describeKill, count);
}

describe.for(Object.values(subjects) as Subject[])("$name", (subject) => {
  describe("with the worker killed", () => {
    let temporal: DevServer;
    let lanes: Ground[] = [];
    beforeAll(async () => {
      temporal = await startDevServer({ headless: true });
      lanes = await Promise.all(
        Array.from({ length: lanesOf.worker }, async () =>
          Ground.prepare({ temporal, namespace: randomUUID(), subject }),
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
        const points = await pointsOf(lanes);
        const kills = killsOf(points, lanesOf.worker);
        tell(
          `kill points of ${subject.name}: ${points.length}, worker killed at ${kills.length} moments (seed ${seed})`,
        );
        const failures = await overLanes(lanes, kills, (lane, kill) =>
          rotateThrough(lane, kill, async ({ phase }) => {
            await lane.killWorker();
            lane.revived = lane.startWorker();
            // A request of a dead client that the service has not taken yet is never executed.
            if (phase === "received") throw new Error("killed");
          }),
        );
        expect(points.length).toBeGreaterThan(50);
        expect(failures).toEqual([]);
      },
      patienceMs,
    );
  });

  describe("with the Temporal server killed", () => {
    const directories: string[] = [];
    let lanes: { ground: Ground; server: DevServer; restart: () => Promise<void> }[] = [];
    beforeAll(async () => {
      lanes = await Promise.all(Array.from({ length: lanesOf.server }, async () => laneOnFile(subject, directories)));
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
        const points = await pointsOf(lanes.map(({ ground }) => ground));
        const kills = killsOf(points, 2 * lanesOf.server);
        tell(
          `kill points of ${subject.name}: ${points.length}, server killed at ${kills.length} moments (seed ${seed})`,
        );
        const failures = await overLanes(lanes, kills, (lane, kill) =>
          rotateThrough(lane.ground, kill, async () => {
            const { pid } = lane.server;
            process.kill(pid, "SIGKILL");
            await goneOf(pid);
            lane.ground.revived = lane.restart();
          }),
        );
        expect(points.length).toBeGreaterThan(50);
        expect(failures).toEqual([]);
      },
      patienceMs,
    );
  });
});

/** A lane with a Temporal server of its own that keeps everything in a file. */
async function laneOnFile(subject: Subject, directories: string[]) {
  const directory = await mkdtemp(join(tmpdir(), "keyturn-fault-"));
  directories.push(directory);
  const dbFile = join(directory, "temporal.db");
  const server = await startDevServer({ headless: true, dbFile });
  const port = Number(server.address.split(":")[1]);
  const ground = await Ground.prepare({ temporal: server, namespace: randomUUID(), subject });
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
