import { beforeAll, describe, expect, test } from "vitest";

import type { RotationResult } from "../src/domain/rotation.ts";
import { workflowIsolate } from "./stories/ground.ts";
import { judge, type Violation } from "./stories/judge.ts";
import { type Played, playStory } from "./stories/play.ts";
import { plainStory, type Story } from "./stories/story.ts";
import { tellStories } from "./stories/tell.ts";
import { workflowBundle } from "./support/workflow-bundle.ts";

let isolate: Awaited<ReturnType<typeof workflowIsolate>>;

beforeAll(async () => {
  const { workflowBundle: bundle } = await workflowBundle();
  isolate = await workflowIsolate(bundle.code);
});

describe("stories played against the real workflows", () => {
  const seed = 8;
  const share = 80;

  test.each([0, 1, 2, 3])("no story of part %i breaks a promise", async (part) => {
    const told = await tellStories(isolate, { seed, from: part * share, to: (part + 1) * share, shrink: 1 });
    const accounts = told.failed.map(({ path, account }) => `again: npm run stories -- --only ${path}\n${account}`);
    // An account is to be read, not to be compared line by line.
    if (accounts[0] !== undefined) throw new Error(`${accounts.length} of ${share} stories failed\n${accounts[0]}`);
    expect(told.passed).toBe(share);
  });
});

describe("the judge of stories", () => {
  const emergency: Story = { ...plainStory, start: { ...plainStory.start, kind: "emergency", keys: ["held"] } };

  /** What the judge says of the story when the end of the main run is changed like this. */
  async function when(
    story: Story,
    change: (result: RotationResult, played: Played) => void,
  ): Promise<Violation["rule"][]> {
    const played = await playStory(isolate, story);
    const [run] = played.ground.runs;
    change(run?.result as RotationResult, played);
    return [...new Set(judge(played).map(({ rule }) => rule))];
  }

  test("has nothing to say of a rotation in which all goes well", async () => {
    expect(await when(plainStory, () => undefined)).toEqual([]);
    expect(await when(emergency, () => undefined)).toEqual([]);
  });

  test("replays a story to the same commands", async () => {
    const { differences } = await playStory(isolate, emergency, { replay: true });
    expect(differences).toEqual([]);
  });

  test("misses a key that the result forgets", async () => {
    expect(await when(plainStory, (result) => void result.keys.shift())).toContain("owned");
  });

  test("misses a key that was being looked at when the run closed", async () => {
    const forget = (result: RotationResult, { ground }: Played): void => {
      for (const call of ground.calls.filter(({ name }) => name === "acceptKey")) {
        delete call.outcome;
        delete call.result;
      }
      result.keys = result.keys.filter(({ role }) => role !== "handed-in");
    };
    expect(await when({ ...plainStory, flavour: "hand-in" }, forget)).toEqual(["owned"]);
  });

  test("finds a key that is none of the run's", async () => {
    const stranger = { id: "key_4", role: "old", fate: "named", why: "so" } as const;
    const add = (result: RotationResult): void => {
      result.keys.push(stranger);
      result.leftOver.push({ id: stranger.id, why: stranger.why });
    };
    expect(await when(plainStory, add)).toEqual(["owned"]);
  });

  test("does not believe that a live key is ended", async () => {
    const revive = (_result: RotationResult, { world }: Played): void => {
      for (const event of world.keyEvents) if (event.what === "dead") event.what = "on";
    };
    expect(await when(plainStory, revive)).toContain("fate");
  });

  test("sees a compromised key that lives past its deadline", async () => {
    const revive = (result: RotationResult, { world }: Played): void => {
      world.keyEvents.splice(0, world.keyEvents.length, ...world.keyEvents.filter(({ what }) => what === "made"));
      for (const key of result.keys) if (key.role === "compromised") Object.assign(key, { fate: "named", why: "so" });
      result.leftOver = result.keys.flatMap(({ id, fate }) => (fate === "named" ? [{ id, why: "so" }] : []));
    };
    expect(await when(emergency, revive)).toContain("deadline");
  });

  test("sees a served key that is ended, and one that only edges still have", async () => {
    const serving = ["production/openai"];
    const ends = ({ world }: Played) => world.keyEvents.filter(({ what }) => what === "dead");
    const held = (_result: RotationResult, played: Played): void => {
      for (const event of ends(played)) Object.assign(event, { serving, holding: serving });
    };
    expect(await when(plainStory, held)).toEqual(["serving"]);
    const cached = (_result: RotationResult, played: Played): void => {
      for (const event of ends(played)) Object.assign(event, { serving });
    };
    expect(await when(plainStory, cached)).toEqual(["edges"]);
  });

  test("sees a person's edit that is written over", async () => {
    const edited = (_result: RotationResult, { world }: Played): void => {
      for (const write of world.writes) write.before = { keyId: "key_9", modified: 0, by: { person: "ada" } };
    };
    expect(await when(plainStory, edited)).toContain("edit");
  });

  test("asks for the call behind a step, and for the step behind a change", async () => {
    const invented = (result: RotationResult): void => {
      result.steps.push({
        step: "cutKey",
        started: result.times.started,
        ended: result.times.started,
        outcome: "done",
      });
    };
    expect(await when(plainStory, invented)).toEqual(["record"]);
    const unsaid = (result: RotationResult): void => {
      result.steps = result.steps.filter(({ step }) => step !== "revokeKey");
    };
    expect(await when(plainStory, unsaid)).toEqual(["record"]);
  });

  test("asks who aborted", async () => {
    expect(await when(plainStory, (result) => void (result.outcome = "aborted"))).toContain("outcome");
  });
});
