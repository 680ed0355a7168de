import type { StoryMutant } from "./mutant.ts";

/**
 * Faults that keyturn had, brought back one at a time by the smallest change that does it. No test is named for them: the
 * stories have to find each by themselves.
 */

const emergency = "src/workflows/emergency-rotation.ts";
const ending = "src/workflows/rotation/ending.ts";
const ends = "src/workflows/rotation/end-when-moved.ts";
const moves = "src/workflows/rotation/move-others.ts";

/** Stories of whole runs, by the workflows that are built. */
const workflows = { stories: "workflows", seed: 5 } as const;
/** Stories of single activities against the sandbox. */
const activities = { stories: "activities", seed: 1 } as const;

export const storyMutants: StoryMutant[] = [
  {
    name: "leaves-behind-what-an-aborted-swap-has-under-way",
    file: "src/workflows/rotation/passage.ts",
    find: `return this.#scope.run(body);`,
    replace: `return Promise.race([this.#scope.run(body), this.#scope.cancelRequested]);`,
    foundBy: workflows,
  },
  {
    name: "names-what-a-stop-kept-from-being-ended-where-a-key-was-refused",
    file: "src/workflows/rotation/settle.ts",
    find: `if (!rotation.handsOver && CancellationScope.current().consideredCancelled) throw error;`,
    replace: ``,
    foundBy: workflows,
  },
  {
    name: "drops-the-deadline-of-a-rotation-that-hurried-and-failed",
    file: ending,
    find: `    const who = clock.calledOff(id);
    if (who !== undefined && given) {`,
    replace: `    const who = clock.calledOff(id);
    if (rotation.record.kind === "normal" && "error" in end) {
      rotation.record.custody.drop(id);
    } else if (who !== undefined && given) {`,
    foundBy: workflows,
  },
  {
    name: "forgets-the-deadline-of-a-key-that-other-slots-share",
    file: "src/workflows/normal-rotation.ts",
    find: `if (rotation.hurry !== undefined) await endHurried(rotation, found);`,
    replace: `const [other] = found.sharedWith;
      if (rotation.hurry !== undefined && other !== undefined) {
        rotation.record.custody.settle(held.id, { fate: "held", by: rotation.of.slot });
      } else if (rotation.hurry !== undefined) await endHurried(rotation, found);`,
    foundBy: workflows,
  },
  {
    name: "ends-a-compromised-key-before-the-slots-that-hold-it-have-moved",
    file: ends,
    find: `  await moveOthers(rotation, keyId);`,
    replace: `  if (rotation.record.kind === "emergency" && rotation.found?.held.id !== keyId) {
    void moveOthers(rotation, keyId);
    return endOrAsk(rotation, keyId);
  }
  await moveOthers(rotation, keyId);`,
    foundBy: workflows,
  },
  {
    name: "takes-another-projects-key-for-a-dead-one",
    file: "src/activities/revocation.ts",
    find: `const compromised: Check<Case>[] = [isAnId, hasCredential, isItsProviders, isNotElsewhere];`,
    replace: `const compromised: Check<Case>[] = [isAnId, hasCredential, isItsProviders];`,
    foundBy: activities,
  },
  {
    name: "believes-a-preview-that-is-older-than-the-value",
    file: "src/domain/held.ts",
    find: `return previewModified >= modified ? preview : undefined;`,
    replace: `return previewModified.getTime() >= modified.getTime() - markToleranceMs ? preview : undefined;`,
    foundBy: activities,
  },
  {
    name: "answers-for-inherited-keys-on-the-good-path-alone",
    file: ending,
    find: `  record.stage = outcome;
  return { result: record.result(outcome, reason) };`,
    replace: `  record.stage = outcome;
  if (record.kind === "emergency" && outcome !== "rotated") {
    for (const { id, role } of record.custody.all()) if (role === "old") record.custody.drop(id);
  }
  return { result: record.result(outcome, reason) };`,
    foundBy: workflows,
  },
  {
    name: "hands-over-without-the-key-whose-revocation-fails",
    file: "src/workflows/rotation/hand-over.ts",
    find: `  const { cut, cutUnsure, leak } = rotation.compromised;`,
    replace: `  const old = rotation.found?.held.id;
  if (rotation.passage.returnPassed && old !== undefined) record.custody.drop(old);
  const { cut, cutUnsure, leak } = rotation.compromised;`,
    foundBy: workflows,
  },
  {
    name: "takes-a-slot-whose-emergency-was-aborted-for-moved",
    file: moves,
    find: `if (outcome !== "rotated") return;`,
    replace: `if (outcome === "kept") return;
        const { seen } = rotation.compromised;
        const note = seen.set.bind(seen);
        seen.set = (id, told) => note(id, { ...told, heldBy: told.heldBy.filter((by) => id !== keyId || by !== slot) });`,
    foundBy: workflows,
  },
  {
    name: "starts-no-clock-before-it-could-look",
    file: emergency,
    find: `    startTheClocks(rotation, asked, reason, start);

    const cutsFirst`,
    replace: `    const cutsFirst`,
    foundBy: workflows,
  },
  {
    name: "starts-the-clock-of-a-hand-over-after-its-clean-up",
    file: ending,
    find: `    if (rotation.handsOver) {
      rotation.passage.leave();`,
    replace: `    if (rotation.handsOver) {
      for (const { keyId } of clock.all()) clock.forget(keyId);
      await cleanUp(rotation);
      rotation.passage.leave();`,
    foundBy: workflows,
  },
  {
    name: "ends-at-once-a-key-that-it-does-not-hold-itself",
    file: ends,
    find: `  const { record, clock } = rotation;
  if (rotation.compromised.cut.has(keyId)) return endCut(rotation, keyId);`,
    replace: `  const { record, clock } = rotation;
  if (rotation.compromised.cut.has(keyId)) return endCut(rotation, keyId);
  if (record.kind === "emergency" && rotation.found?.held.id !== keyId) return endOrAsk(rotation, keyId);`,
    foundBy: workflows,
  },
  {
    name: "takes-a-slot-for-moved-once-it-was-asked-to",
    file: moves,
    find: `saw(rotation, { ...seen, heldBy: yes, unknown, left });`,
    replace: `const heldBy = yes.filter((slot) => !rotation.compromised.started.has(slot));
    saw(rotation, { ...seen, heldBy, unknown, left });`,
    foundBy: workflows,
  },
  {
    name: "lets-an-attempt-write-beside-one-that-was-given-up-on",
    file: "src/activities/fence.ts",
    find: `formerAttemptEnded() ? beganAt : beganAt + requestMs;`,
    replace: `formerAttemptEnded() ? beganAt : beganAt + 0 * requestMs;`,
    foundBy: activities,
  },
  {
    name: "ends-what-has-a-name-like-ours",
    file: "src/activities/revocation.ts",
    find: `if (name === undefined || isKnown || !ordinals.includes(name.ordinal) || !isAlive(key)) continue;`,
    replace: `const like = key.name.includes(rotationId.replaceAll("-", "").slice(0, 8));
      if ((name === undefined && !like) || isKnown || !isAlive(key)) continue;`,
    foundBy: activities,
  },
  {
    name: "takes-what-a-list-does-not-show-for-not-held",
    file: "src/domain/held.ts",
    find: "return unknown(`${said}, and the gateway lists no provider config for it`);",
    replace: "return no(`${said}, and the gateway lists no provider config for it`);",
    foundBy: activities,
  },
  {
    name: "forgets-a-key-that-is-handed-in-while-it-ends",
    file: "src/workflows/rotation/mailbox.ts",
    find: `record.custody.take(key.id, "handed-in");
        this.#handedIn`,
    replace: `if (!this.#rotation.passage.ending) record.custody.take(key.id, "handed-in");
        this.#handedIn`,
    foundBy: workflows,
  },
];
