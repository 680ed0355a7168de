import type { Ground } from "./ground.ts";
import { overLanes } from "./lanes.ts";
import { inBoth, type Point } from "./points.ts";
import { expectClientsServed, expectRotated } from "./right-end.ts";
import type { Subject } from "./subjects.ts";

/**
 * Rotates each subject undisturbed, as often as there are lanes for it, and returns the points that all of its runs have.
 * A subject that does not get through undisturbed is a failure.
 */
export async function pointsOf(lanes: Ground[], subjects: Subject[]): Promise<Map<Subject, Point[]>> {
  const times = Math.max(1, Math.floor(lanes.length / subjects.length));
  const points = new Map<Subject, Point[]>();
  const runs = Array.from({ length: times }, () => subjects).flat();
  const failures = await overLanes(lanes, runs, async (lane, subject) => {
    const what = `${subject.name}, undisturbed`;
    await lane.turnTo(subject);
    await expectRotated(lane, await lane.endOf(await lane.start()), what);
    await expectClientsServed(lane, what);
    const seen = lane.numbering.points();
    points.set(subject, inBoth(points.get(subject) ?? seen, seen));
  });
  if (failures.length > 0) throw new Error(failures.join("\n"));
  return points;
}
