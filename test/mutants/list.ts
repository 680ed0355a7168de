import type { PromiseMutants } from "./mutant.ts";

/**
 * The promises of keyturn, and for each of them some ways to break it. Texts to find are short and stay clear of what
 * changes often. A change that moves one of them corrects the mutant here: `npm test` says which.
 */

const workflows = {
  normal: "test/workflows/normal-rotation.test.ts",
  emergency: "test/workflows/emergency-rotation.test.ts",
};
const activities = {
  confirmRevoked: "test/activities/confirm-revoked.test.ts",
  end: "test/activities/end.test.ts",
  gateway: "test/activities/gateway.test.ts",
  keys: "test/activities/keys.test.ts",
  usage: "test/activities/usage.test.ts",
};
const contract = "test/providers/contract.test.ts";
const idle = "test/domain/idle.test.ts";
const liveTraffic = "a rotation under live traffic, with usage that comes later than the quiet period is long";

export const promises: PromiseMutants[] = [
  {
    promise: 1,
    words: "no request fails because of a rotation",
    mutants: [
      {
        name: "probes-before-the-edges-have-the-new-value",
        file: "src/workflows/rotation/steps.ts",
        find: `sleep(inMs(policy.propagationWait), { summary: "propagation" })`,
        replace: `sleep(1, { summary: "propagation" })`,
        caughtBy: {
          file: workflows.normal,
          test: "with the documented waits > waits 30 s for propagation and 10 min for caches, then revokes only when the provider shows the old key idle",
        },
      },
      {
        name: "cuts-in-an-emergency-what-caches-still-send",
        file: "src/workflows/rotation/steps.ts",
        find: `sleep(inMs(policy.cacheInvalidationWait)`,
        replace: `sleep(1`,
        caughtBy: {
          file: workflows.emergency,
          test: "swap-first, with the documented clocks > puts a new key in within 5 minutes and revokes the compromised one within the hour, without a quiet period",
        },
      },
      {
        name: "cuts-under-live-traffic-what-caches-still-send",
        file: "src/workflows/rotation/steps.ts",
        find: `sleep(inMs(policy.cacheInvalidationWait)`,
        replace: `sleep(1`,
        caughtBy: {
          file: "test/e2e/emergency.test.ts",
          test: "swap-first emergencies of all three providers at once, under live traffic > 'production/openai' > lose no request",
          build: true,
        },
      },
      {
        name: "leaves-a-value-that-does-not-answer-in-the-slot",
        file: "src/workflows/rotation/prove-in-slot.ts",
        find: `if (mayRestore) {`,
        replace: `if (!mayRestore) {`,
        caughtBy: {
          file: workflows.normal,
          test: "a slot that does not answer after the install > at last gets the old value back, and the rotation stops with both keys alive",
        },
      },
      {
        name: "revokes-although-requests-fail-without-the-key",
        file: "src/workflows/rotation/disable-and-soak.ts",
        find: `else if (seen.newErrors > 0) throw`,
        replace: `else if (seen.newErrors > 1_000) throw`,
        caughtBy: {
          file: workflows.emergency,
          test: "a key that can be switched off and on again > is switched on again when requests fail without it, and the rotation stops",
        },
      },
      {
        name: "never-switches-a-key-of-anthropic-on-again",
        file: "src/providers/anthropic.ts",
        find: `await setStatus(keyId, "active");`,
        replace: `await setStatus(keyId, "inactive");`,
        caughtBy: {
          file: contract,
          test: "anthropic keeps the promises of a provider > switches a key off and on, each also when it already is",
        },
      },
    ],
  },
  {
    promise: 2,
    words: "proof before revocation",
    mutants: [
      {
        name: "believes-one-lucky-answer-of-a-provider-that-settles",
        file: "src/activities/keys.ts",
        find: `if (isRow(row, rule, Date.now())) return`,
        replace: `if (row.length > 0) return`,
        caughtBy: {
          file: activities.keys,
          test: "verifyAtProvider (promise 2: proof before revocation) > does not believe a provider that is still settling and takes its new key now and then (promise 1)",
        },
      },
      {
        name: "takes-a-refusal-by-the-provider-for-proof",
        file: "src/activities/keys.ts",
        find: `if (!provesKey(verdict)) throw refused`,
        replace: `if (!provesKey(verdict) && verdict !== "key refused") throw refused`,
        caughtBy: {
          file: activities.keys,
          test: "verifyAtProvider (promise 2: proof before revocation) > tries a refused key again while the provider may still be settling, and then no more",
        },
      },
      {
        name: "installs-without-proof-through-the-gateway",
        file: "src/workflows/normal-rotation.ts",
        find: `await rotation.step("verifyThroughGateway(new)", () => proveOnOwnAlias(rotation, found), staged);`,
        replace: ``,
        caughtBy: {
          file: workflows.normal,
          test: "a new key that is not good > that fails through the gateway is never installed",
        },
      },
      {
        name: "is-content-with-one-good-answer",
        file: "src/activities/gateway.ts",
        find: `good < order.goodAnswers`,
        replace: `good < 1`,
        caughtBy: {
          file: activities.gateway,
          test: "verifyThroughGateway (promise 2: proof on the clients' own path) > passes after as many good answers in a row as policy wants, with the new key and no other",
        },
      },
      {
        name: "takes-a-cached-answer-for-proof",
        file: "src/domain/answer.ts",
        find: `if (answer.cached) return "cached";`,
        replace: ``,
        caughtBy: {
          file: activities.gateway,
          test: "verifyThroughGateway (promise 2: proof on the clients' own path) > does not pass when the answer came from a cache: tried again in time, then for good",
        },
      },
      {
        name: "lets-cloudflare-pay-for-the-proof",
        file: "src/cloudflare/data-plane.ts",
        find: `"cf-aig-no-wholesale": "true",`,
        replace: ``,
        caughtBy: {
          file: "test/cloudflare/data-plane.test.ts",
          test: "a probe > shuts every way to a good answer but the stored key",
        },
      },
      {
        name: "revokes-before-the-provider-reports-the-new-key",
        file: "src/domain/idle.ts",
        find: `const newest = newKeySeenUntil(facts);`,
        replace: `const newest = newKeySeenUntil(facts) ?? facts.refreshedAt;`,
        caughtBy: {
          file: idle,
          test: "the horizon: up to when late data counts (promise 3) > does not exist while the data shows no use of the new key, whatever the provider says of itself",
        },
      },
      {
        name: "revokes-the-last-key-that-works",
        file: "src/activities/revocation.ts",
        find: `return state === "active"
      ? undefined`,
        replace: `return state !== "expired"
      ? undefined`,
        caughtBy: {
          file: "test/e2e/hands.test.ts",
          test: "somebody who deletes > the new key just before the old key is revoked never has the old one revoked: it is the last that works",
        },
      },
    ],
  },
  {
    promise: 3,
    words: "revocation only of an idle key",
    mutants: [
      {
        name: "takes-no-rows-for-no-use",
        file: "src/workflows/rotation/await-idle.ts",
        find: `if (answer.kind !== "idle") return false;`,
        replace: `if (answer.kind === "used") return false;`,
        caughtBy: {
          file: "test/workflows/normal-rotation.test.ts",
          test: "with the documented waits > waits 30 s for propagation and 10 min for caches, then revokes only when the provider shows the old key idle",
        },
      },
      {
        name: "is-content-with-the-begin-of-a-quiet-period",
        file: "src/domain/idle.ts",
        find: `quietUntil <= horizon`,
        replace: `quietFrom <= horizon`,
        caughtBy: {
          file: idle,
          test: "idle > is reached exactly when the quiet period ends at the horizon, and not a millisecond before",
        },
      },
      {
        name: "believes-late-data-at-once",
        file: "src/domain/idle.ts",
        find: `facts.now - facts.usageLagMs) - facts.bucketMs`,
        replace: `facts.now) - facts.bucketMs`,
        caughtBy: {
          file: idle,
          test: "the horizon: up to when late data counts (promise 3) > is never later than now less the usage lag and a bucket, whose rows come only after its end",
        },
      },
      {
        name: "overlooks-the-last-use-a-key-shows",
        file: "src/activities/usage.ts",
        find: `{ oldKeyLastUsedAt: old.lastUsedAt.getTime() }`,
        replace: `{}`,
        caughtBy: { file: activities.usage, test: "checkIdle > finds it in use also by last_used_at alone" },
      },
      {
        name: "takes-a-row-without-a-count-for-no-use",
        file: "src/providers/openai.ts",
        find: `const requests = used || counts.length === 0 ?`,
        replace: `const requests = used ?`,
        caughtBy: {
          file: "test/providers/openai.test.ts",
          test: "reading usage > takes a row that names a key for use unless it says zero, in whatever field it counts",
        },
      },
      {
        name: "takes-use-without-a-name-for-none",
        file: "src/providers/anthropic.ts",
        find: `if ((row.requests ?? 0) === 0 && tokens === 0) return;`,
        replace: `if ((row.requests ?? 0) >= 0) return;`,
        caughtBy: {
          file: "test/providers/anthropic.test.ts",
          test: "reading usage > does not take use that no key is named for as no use",
        },
      },
      {
        name: "takes-an-incomplete-answer-of-google-for-a-whole-one",
        file: "src/providers/gemini.ts",
        find: `(answer.executionErrors ?? []).length > 0`,
        replace: `(answer.executionErrors ?? []).length > 1_000`,
        caughtBy: {
          file: "test/providers/gemini.test.ts",
          test: "reading usage > does not take an incomplete answer for a whole one, nor go round for ever",
        },
      },
      {
        name: "revokes-what-another-slot-holds",
        file: "src/activities/revocation.ts",
        find: `if (yes.length > 0) {`,
        replace: `if (yes.length > 1_000) {`,
        caughtBy: {
          file: "test/activities/revocation.test.ts",
          test: "revokeKey, when a proven key has replaced it > ends no key that another slot holds",
        },
      },
      {
        name: "revokes-after-an-edit-by-hand",
        file: "src/activities/held-key.ts",
        find: `if (second.why === undefined) return second.held;`,
        replace: `if (second.why === undefined || access.name !== "") return second.why === undefined ? second.held : undefined;`,
        caughtBy: {
          file: "test/activities/held-key.test.ts",
          test: "requireInstalled > fails with SlotChanged where two looks some seconds apart agree, and not before",
        },
      },
      {
        name: "switches-off-what-another-slot-holds",
        file: "src/activities/revocation.ts",
        find: `await requireNone(switchedOff, of);`,
        replace: `await requireNone([canBeUndone], of);`,
        caughtBy: {
          file: "test/activities/switching.test.ts",
          test: "disableKey (promise 3) > switches nothing off that a slot holds, its own or another",
        },
      },
      {
        name: "revokes-a-key-that-slots-share",
        file: "src/workflows/normal-rotation.ts",
        find: `return sharedWith.length === 0 ? undefined`,
        replace: `return sharedWith.length < 1_000 ? undefined`,
        caughtBy: {
          file: workflows.normal,
          test: "revoking > does not happen to a key that another slot holds: it is named instead",
        },
      },
      {
        name: "ends-at-its-end-a-key-that-clients-were-given",
        file: "src/activities/revocation.ts",
        find: `if (role !== "new" || given || (doubts`,
        replace: `if (role !== "new" || (doubts`,
        caughtBy: {
          file: "test/activities/revocation.test.ts",
          test: "settleKeys, at a run's end > never ends a key that clients were given, though another one is in by now",
        },
      },
      {
        name: "takes-an-unknown-holder-for-none",
        file: "src/activities/revocation.ts",
        find: `if (unknown.length === 0 || (key`,
        replace: `if (unknown.length >= 0 || (key`,
        caughtBy: {
          file: "test/activities/revocation.test.ts",
          test: "revokeKey, when a proven key has replaced it > leaves a key alone while it cannot be told whether a slot holds it, and names the slot: a secret without a provider config",
        },
      },
    ],
  },
  {
    promise: 4,
    words: "no key in the clear",
    mutants: [
      {
        name: "hands-the-key-on-unsealed",
        file: "src/activities/keys.ts",
        find: `const sealed = await deps.seal(value, { slot, rotationId });`,
        replace: `const sealed = value.reveal();`,
        caughtBy: {
          file: activities.keys,
          test: "issueKey (promises 4 and 6: no value in the clear, no orphans) > makes a key that bears its maker, slot, rotation and attempt, lives shortly, and returns it sealed",
        },
      },
      {
        name: "leaves-the-value-in-the-history",
        file: "src/activities/gateway.ts",
        find: `...installedAt(new Date(), final.expiresAt),`,
        replace: `...installedAt(new Date(), final.expiresAt),
    ...({ value: value.reveal() } as object),`,
        caughtBy: {
          file: "test/e2e/normal-rotation.test.ts",
          test: `${liveTraffic} > shows no key in the clear: not in the history, not in the logs`,
        },
      },
      {
        name: "tells-temporal-what-a-message-quotes",
        file: "src/activities/failures.ts",
        find: `message: maskSecrets(error.message),`,
        replace: `message: error.message,`,
        caughtBy: {
          file: "test/activities/failures.test.ts",
          test: "what Temporal keeps of a failure (promise 4) > never holds a key, where it is ours: not in message, stack or cause",
        },
      },
      {
        name: "shows-a-secret-to-a-log",
        file: "src/redacted.ts",
        find: `[inspect.custom](): string {
    return "[redacted]";`,
        replace: `[inspect.custom](): string {
    return this.#value;`,
        caughtBy: { file: "test/redacted.test.ts", test: "a secret (promise 4) > does not show itself to inspect" },
      },
      {
        name: "opens-a-seal-for-any-rotation",
        file: "src/sealing.ts",
        find: `header[field] !== expected[field]`,
        replace: `header[field] === ""`,
        caughtBy: {
          file: "test/sealing.test.ts",
          test: "a sealed key (promise 4) > does not open for another rotation",
        },
      },
    ],
  },
  {
    promise: 5,
    words: "kill anything at any time",
    mutants: [
      {
        name: "finds-no-key-by-the-name-it-was-given",
        file: "src/activities/revocation.ts",
        find: `|| !ordinals.includes(name.ordinal) ||`,
        replace: `|| ordinals.length > 0 ||`,
        caughtBy: {
          file: "test/activities/revocation.test.ts",
          test: "settleKeys, at a run's end > ends nothing while it finds what its run did not know: an answer that is lost would lose it for good",
        },
      },
      {
        name: "writes-again-what-is-written",
        file: "src/activities/gateway.ts",
        find: `if (written && !again) return`,
        replace: `if (written && again) return`,
        caughtBy: { file: activities.gateway, test: "installKey > installs once after a lost-answer of the write" },
      },
      {
        name: "forgets-the-key-that-a-lost-answer-left",
        file: "src/activities/keys.ts",
        find: `own?.ordinal === ordinal && own.attempt < before`,
        replace: `own?.ordinal === ordinal && own.attempt > before`,
        caughtBy: {
          file: activities.keys,
          test: "issueKey (promises 4 and 6: no value in the clear, no orphans) > names the key that a lost-answer left, and ends nothing",
        },
      },
      {
        name: "makes-a-key-of-google-under-another-id-each-time",
        file: "src/providers/gemini.ts",
        find: `createHash("sha256").update(name, "utf8")`,
        replace: `createHash("sha256").update(name + Math.random(), "utf8")`,
        caughtBy: {
          file: "test/providers/gemini.test.ts",
          test: "the id of a new key > fits Google's rule, says what it is, and is the same for the same name",
        },
      },
      {
        name: "takes-other-steps-than-open-runs-took",
        file: "src/workflows/rotation/await-idle.ts",
        find: `let answer = await ask();`,
        replace: `await ask();
  let answer = await ask();`,
        caughtBy: {
          file: "test/replay.test.ts",
          test: "the recorded histories (promise 5) > replay with the workflows of today",
        },
      },
    ],
  },
  {
    promise: 6,
    words: "no orphans",
    mutants: [
      {
        name: "names-what-a-stop-kept-from-being-ended",
        file: "src/workflows/rotation/settle.ts",
        find: `if (!rotation.handsOver && CancellationScope.current().consideredCancelled) throw error;`,
        replace: ``,
        caughtBy: {
          file: "test/workflows/findings/endings.test.ts",
          test: "an abort while a step is under way > an abort while a new key is refused ends that key, and names none that it can end",
        },
      },
      {
        name: "leaves-aliases-that-a-hand-over-which-was-called-off-kept",
        file: "src/workflows/rotation/settle.ts",
        find: `if (!rotation.handsOver && CancellationScope`,
        replace: `if (!rotation.passage.returnPassed && CancellationScope`,
        caughtBy: {
          file: "test/workflows/findings/odd-moments.test.ts",
          test: "a hand-over > that is called off leaves no alias that it had kept the run from removing",
        },
      },
      {
        name: "switches-on-what-it-never-switched-off",
        file: "src/workflows/rotation/disable-and-soak.ts",
        find: `let mayBeOff = false;`,
        replace: `let mayBeOff = true;`,
        caughtBy: {
          file: "test/workflows/emergency-rotation.test.ts",
          test: "a key that can be switched off and on again > is switched on again after an abort before anything could be told only where it may be off (false)",
        },
      },
      {
        name: "overlooks-at-the-end-what-was-made-without-an-answer",
        file: "src/activities/revocation.ts",
        find: `found.add(key.id);`,
        replace: `if (name.ordinal > 1_000) found.add(key.id);`,
        caughtBy: {
          file: "test/activities/revocation.test.ts",
          test: "settleKeys, at a run's end > finds by its exact name what an attempt made whose answer was lost, and nothing that only begins alike",
        },
      },
      {
        name: "does-not-name-the-key-that-stays",
        file: "src/activities/revocation.ts",
        find: `settled.keys.push({ id: one.id, role: one.role, fate });`,
        replace: `if (fate.fate !== "named") settled.keys.push({ id: one.id, role: one.role, fate });`,
        caughtBy: {
          file: "test/activities/revocation.test.ts",
          test: "settleKeys, at a run's end > names a live key that nobody holds by its role, and ends none but what the run made and gave nobody",
        },
      },
      {
        name: "leaves-the-new-key-of-a-stopped-rotation",
        file: "src/activities/revocation.ts",
        find: `if (!mayEnd) return named(`,
        replace: `if (mayEnd) return named(`,
        caughtBy: {
          file: "test/e2e/normal-rotation.test.ts",
          test: "stopping > a cancellation before the install revokes the new key and leaves the old one serving",
        },
      },
      {
        name: "stops-without-cleaning-up",
        file: "src/workflows/rotation/ending.ts",
        find: `    await cleanUp(rotation);
`,
        replace: `    if (!("error" in end)) await cleanUp(rotation);
    else for (const { id } of record.custody.open()) name(rotation, id, "not looked at");
`,
        caughtBy: {
          file: "test/workflows/findings/endings.test.ts",
          test: "an installation that stops before its write has left > leaves the new key to be ended, since nobody was given it",
        },
      },
      {
        name: "makes-keys-that-never-expire",
        file: "src/providers/openai.ts",
        find: `body: { name, expires_in_seconds: seconds(lifeMs) },`,
        replace: `body: { name },`,
        caughtBy: {
          file: activities.keys,
          test: "issueKey (promises 4 and 6: no value in the clear, no orphans) > makes a key that bears its maker, slot, rotation and attempt, lives shortly, and returns it sealed",
        },
      },
      {
        name: "ends-no-key-of-google",
        file: "src/providers/gemini.ts",
        find: `if (row?.key.state === "revoked") return;`,
        replace: `if (row?.key.state === "active") return;`,
        caughtBy: {
          file: contract,
          test: "gemini keeps the promises of a provider > ends a key for good, and says of one that it does not know that nothing was ended",
        },
      },
      {
        name: "sweeps-what-an-open-rotation-needs",
        file: "src/activities/orphans.ts",
        find: `() => ownedBy(sight.open, owner, key),`,
        replace: ``,
        caughtBy: {
          file: "test/activities/orphans.test.ts",
          test: "spares > what an open rotation owns of its slot",
        },
      },
      {
        name: "settles-by-the-begin-of-a-name",
        file: "src/activities/revocation.ts",
        find: `if (name === undefined || isKnown || !ordinals.includes(name.ordinal) || !isAlive(key)) continue;`,
        replace: `const begins = key.name.includes(rotationId.replaceAll("-", "").slice(0, 8));
      if ((name === undefined && !begins) || isKnown || !isAlive(key)) continue;`,
        caughtBy: {
          file: "test/activities/revocation.test.ts",
          test: "settleKeys, at a run's end > finds by its exact name what an attempt made whose answer was lost, and nothing that only begins alike",
        },
      },
      {
        name: "keeps-a-key-alive-whose-write-never-left",
        file: "src/workflows/rotation/steps.ts",
        find: `if (!wasSent(error) && !wasGiven) custody.neverGiven(key.id);`,
        replace: `if (wasSent(error) && !wasGiven) custody.neverGiven(key.id);`,
        caughtBy: {
          file: "test/workflows/findings/endings.test.ts",
          test: "an installation that stops before its write has left > leaves the new key to be ended, since nobody was given it",
        },
      },
      {
        name: "forgets-at-a-hand-over-what-was-to-be-said",
        file: "src/workflows/rotation/record.ts",
        find: `this.#warnings = new Set(carried?.warnings);`,
        replace: `this.#warnings = new Set();`,
        caughtBy: {
          file: "test/workflows/findings/hand-over.test.ts",
          test: "a new key that is called compromised after it was installed > takes along what the rotation would have said: keys, warnings, unknown checks, and its name",
        },
      },
      {
        name: "owns-no-key-that-is-handed-in-while-it-ends",
        file: "src/workflows/rotation/mailbox.ts",
        find: `record.custody.take(key.id, "handed-in");
        this.#handedIn`,
        replace: `if (!this.#rotation.passage.ending) record.custody.take(key.id, "handed-in");
        this.#handedIn`,
        caughtBy: {
          file: "test/workflows/findings/endings.test.ts",
          test: "an abort while a step is under way > names a handed-in key that was being looked at",
        },
      },
      {
        name: "leaves-by-a-second-exit-with-keys-open",
        file: "src/workflows/rotation/ending.ts",
        find: `    if (compromisedAndOpen(rotation).length > 0) continue;
`,
        replace: `    if ("error" in end) break;
    if (compromisedAndOpen(rotation).length > 0) continue;
`,
        caughtBy: {
          file: "test/workflows/findings/endings.test.ts",
          test: "an installation that stops before its write has left > leaves the new key to be ended, since nobody was given it",
        },
      },
    ],
  },
  {
    promise: 7,
    words: "one rotation of a slot at a time",
    mutants: [
      {
        name: "runs-under-any-id",
        file: "src/workflows/one-run-per-slot.ts",
        find: `workflowInfo().workflowId === workflowId ? work(named)`,
        replace: `workflowInfo().workflowId !== "" ? work(named)`,
        caughtBy: {
          file: workflows.normal,
          test: "a start > under another id while the slot is busy fails at once and names the running one",
        },
      },
      {
        name: "runs-beside-a-run-that-somebody-started",
        file: "src/workflows/one-run-per-slot.ts",
        find: `workflowInfo().workflowId === workflowId ? work(named)`,
        replace: `workflowInfo().workflowId !== "" ? work(named)`,
        caughtBy: {
          file: "test/e2e/one-at-a-time.test.ts",
          test: "while a rotation runs that was started by temporal with the slot's id > a second start by *temporal with its own id* never writes beside it",
          build: true,
        },
      },
      {
        name: "takes-two-slots-with-one-secret",
        file: "src/config.ts",
        find: `throw invalid(\`\${path}: slots \${twin} and`,
        replace: `if (twin === named) throw invalid(\`\${path}: slots \${twin} and`,
        caughtBy: {
          file: "test/config.test.ts",
          test: "what is refused at once, with what to do (promise 11) > two slots with one physical target (promise 7)",
        },
      },
    ],
  },
  {
    promise: 8,
    words: "two facts, two times",
    mutants: [
      {
        name: "calls-a-revoked-key-dead",
        file: "src/workflows/rotation/steps.ts",
        find: `  if (confirmation.deadAt === undefined) {
`,
        replace: `  if (confirmation.deadAt === undefined) {
    record.keyReached(keyId, "confirmedDead", record.now());
`,
        caughtBy: {
          file: workflows.normal,
          test: "a death that cannot be seen > is reported as unknown, never as seen",
        },
      },
      {
        name: "counts-refusals-that-are-not-in-a-row",
        file: "src/activities/gateway.ts",
        find: `row = verdict === "key refused" ? [...row, Date.now()] : [];`,
        replace: `row = verdict === "key refused" ? [...row, Date.now()] : row;`,
        caughtBy: {
          file: activities.confirmRevoked,
          test: "confirmRevoked > begins a new row after each answer that was no refusal",
        },
      },
      {
        name: "takes-the-gateways-own-401-for-a-death",
        file: "src/domain/answer.ts",
        find: `case 2009:
      return "gateway token refused";`,
        replace: `case 2009:
      return "key refused";`,
        caughtBy: {
          file: activities.confirmRevoked,
          test: "confirmRevoked > is not fooled by the gateway's own 401",
        },
      },
      {
        name: "takes-an-outage-for-the-death-of-a-leaked-key",
        file: "src/activities/gateway.ts",
        find: `row = verdict === "key refused" ?`,
        replace: `row = verdict !== "works" ?`,
        caughtBy: {
          file: activities.confirmRevoked,
          test: "confirmRevoked of a key whose value leaked > is not fooled by the provider's 500",
        },
      },
    ],
  },
  {
    promise: 9,
    words: "an emergency never waits for creation beyond its deadline",
    mutants: [
      {
        name: "waits-past-the-deadline-for-a-persons-key",
        file: "src/workflows/rotation/clock.ts",
        find: `if (this.atDeadlineOf(next) === "revoke") cuts`,
        replace: `if (this.atDeadlineOf(next) !== "revoke") cuts`,
        caughtBy: {
          file: workflows.emergency,
          test: "swap-first, with the documented clocks > cuts at the deadline while a person still has not handed in a key, and goes on when one comes",
        },
      },
      {
        name: "cuts-an-hour-late-when-no-key-can-be-made",
        file: "src/workflows/rotation/clock.ts",
        find: `Date.parse(told.at) + inMs(this.#policy.emergency.revokeWithin)`,
        replace: `Date.parse(told.at) + 2 * inMs(this.#policy.emergency.revokeWithin)`,
        caughtBy: {
          file: workflows.emergency,
          test: "swap-first, with the documented clocks > cuts the key at the deadline though no new key can be made",
        },
      },
      {
        name: "cuts-though-policy-says-hold",
        file: "src/workflows/rotation/ending.ts",
        find: `  if (rotation.clock.atDeadlineOf(id) === "hold") {
    name(`,
        replace: `  if (rotation.clock.atDeadlineOf(id) === "hold") await cutNow(rotation, id, { patiently: true });
  if (rotation.clock.atDeadlineOf(id) === "hold") {
    name(`,
        caughtBy: {
          file: workflows.emergency,
          test: "swap-first, with the documented clocks > with atDeadline hold, never cuts a key without a new one",
        },
      },
      {
        name: "looks-as-long-as-it-takes-before-it-cuts",
        file: "src/workflows/emergency-rotation.ts",
        find: `await cutFirst(`,
        replace: `await (await look(rotation, start).then(() => cutFirst))(`,
        caughtBy: {
          file: workflows.emergency,
          test: "cut-first > cuts although the slot cannot be looked at, and puts a new key in as soon as it can",
        },
      },
      {
        name: "takes-its-time-when-its-old-key-is-compromised",
        file: "src/workflows/rotation/rotation.ts",
        find: `if (held === undefined || !this.isCompromised(held)) return undefined;`,
        replace: `if (held === undefined || this.isCompromised(held)) return undefined;`,
        caughtBy: {
          file: workflows.emergency,
          test: "an emergency while a normal rotation runs > hurries it when its old key is compromised: no quiet period, no soak",
        },
      },
      {
        name: "hurries-without-a-deadline",
        file: "src/workflows/rotation/clock.ts",
        find: `this.#running ??= CancellationScope.nonCancellable(() => this.#run());`,
        replace: `if (this.#policy === undefined) this.#running ??= CancellationScope.nonCancellable(() => this.#run());`,
        caughtBy: {
          file: workflows.emergency,
          test: "an emergency while a normal rotation runs > cuts its compromised old key at the deadline while a person still has not handed in a new one",
        },
      },
      {
        name: "installs-a-key-that-is-compromised",
        file: "src/workflows/rotation/mailbox.ts",
        find: `if (facts.kind === "normal" && !facts.ending) rotation.passage.stop(said);`,
        replace: `if (facts.kind !== "normal" && !facts.ending) rotation.passage.stop(said);`,
        caughtBy: {
          file: workflows.emergency,
          test: "an emergency while a normal rotation runs > ends it as aborted when its new key is compromised and not installed yet",
        },
      },
      {
        name: "leaves-the-old-key-behind-when-the-new-one-is-compromised",
        file: "src/domain/custody.ts",
        find: `return { entries: this.all(), ordinals, issued: this.#issued };`,
        replace: `return { entries: this.all().filter(({ role }) => role !== "old"), ordinals, issued: this.#issued };`,
        caughtBy: {
          file: workflows.emergency,
          test: "an emergency while a normal rotation runs > is followed by the emergency of its new key when that is compromised and installed; the old key is named, since nobody called it compromised",
        },
      },
      {
        name: "stops-the-clock-when-the-run-fails",
        file: "src/workflows/rotation/ending.ts",
        find: `await settleOne(rotation, id, { given, why }).catch(`,
        replace: `await (given && "error" in end ? Promise.reject(end.error) : settleOne(rotation, id, { given, why })).catch(`,
        caughtBy: {
          file: "test/workflows/findings/deadline.test.ts",
          test: "a rotation that is told that its old key is compromised > cuts it by the deadline though no new key can be made",
        },
      },
      {
        name: "goes-on-bringing-a-compromised-key-back",
        file: "src/workflows/rotation/compromised.ts",
        find: `if (!isDone) scope.cancel();`,
        replace: ``,
        caughtBy: {
          file: "test/workflows/findings/deadline.test.ts",
          test: "a rotation that is told that its old key is compromised > stops switching it on again where the word comes meanwhile",
        },
      },
    ],
  },
  {
    promise: 10,
    words: "every wait is visible and bounded",
    mutants: [
      {
        name: "hides-what-it-waits-for",
        file: "src/workflows/rotation/record.ts",
        find: `this.#waits.push(wait);`,
        replace: `this.#waits.unshift();`,
        caughtBy: {
          file: workflows.normal,
          test: "with the documented waits > says while it waits what for, until when and what happens then",
        },
      },
      {
        name: "waits-past-the-grace-ceiling",
        file: "src/workflows/rotation/await-idle.ts",
        find: `const ceilingMs = sinceMs + inMs(found.policy.graceCeiling.after);`,
        replace: `const ceilingMs = sinceMs + inMs(found.policy.graceCeiling.after) * 2;`,
        caughtBy: {
          file: workflows.normal,
          test: "at the grace ceiling of 24 h > revokes a key whose use is unknown, and says so",
        },
      },
      {
        name: "waits-for-a-persons-key-twice-as-long-as-it-says",
        file: "src/workflows/rotation/mailbox.ts",
        find: `until: this.#rotation.deadline(wait.deadline),`,
        replace: `until: this.#rotation.deadlineIn(inMs(wait.deadline) * 2),`,
        caughtBy: {
          file: workflows.emergency,
          test: "a key that only a person can make > that does not come in 7 days stops the rotation with nothing changed",
        },
      },
      {
        name: "asks-no-person-while-revoking-fails",
        file: "src/workflows/rotation/revoke-for-good.ts",
        find: `: inMs(policy.revokeAlertAfter)`,
        replace: `: inMs(policy.revokeAlertAfter) * 24`,
        caughtBy: {
          file: workflows.normal,
          test: "revoking > shows after an hour of failing what a person can do, and an abort then ends it with the key named",
        },
      },
      {
        name: "starts-what-its-timeout-would-kill",
        file: "src/workflows/rotation/rotation.ts",
        find: `refuseShortTimeout(this, found);`,
        replace: `void refuseShortTimeout;`,
        caughtBy: {
          file: workflows.normal,
          test: "a start > whose execution timeout is shorter than its waits can be is refused",
        },
      },
      {
        name: "takes-an-approval-for-whatever-wait-is-open",
        file: "src/workflows/rotation/mailbox.ts",
        find: `if (id !== undefined && id !== open.id) {`,
        replace: `if (id === "") {`,
        caughtBy: {
          file: "test/workflows/findings/remedies.test.ts",
          test: "an approval of use > that was shown for one wait is refused by the next",
        },
      },
    ],
  },
  {
    promise: 11,
    words: "bad input is refused at once",
    mutants: [
      {
        name: "overlooks-fields-it-does-not-know",
        file: "src/workflows/messages.ts",
        find: `export const normalRotationInput = z.strictObject({`,
        replace: `export const normalRotationInput = z.object({`,
        caughtBy: {
          file: workflows.normal,
          test: `a start > with {"slot":"production/openai","heldKey":"x"} is refused at once`,
        },
      },
      {
        name: "repeats-bad-input",
        file: "src/domain/failure.ts",
        find: `InvalidInput: { retried: false },`,
        replace: `InvalidInput: { retried: true },`,
        caughtBy: { file: "test/domain/failure.test.ts", test: "the table of failures > decides about InvalidInput" },
      },
      {
        name: "takes-a-key-that-is-scoped-to-no-workspace",
        file: "src/providers/anthropic.ts",
        find: `if (row.workspace === null) return "unscoped";`,
        replace: ``,
        caughtBy: {
          file: "test/providers/anthropic.test.ts",
          test: "taking a key from a person > refuses it: unscoped (7)",
        },
      },
    ],
  },
  {
    promise: 12,
    words: "nothing is invented",
    mutants: [
      {
        name: "calls-use-under-other-names-no-use",
        file: "src/activities/usage.ts",
        find: `const unknown = !perKey && verdict.kind !== "used";`,
        replace: `const unknown = !perKey && verdict.kind.length === 0;`,
        caughtBy: {
          file: activities.usage,
          test: "checkIdle > calls use that bears no key's name unknown where last_used_at does not show it: unknown",
        },
      },
      {
        name: "does-not-say-that-the-old-keys-use-is-unknown",
        file: "src/workflows/rotation/await-idle.ts",
        find: `if (answer.kind !== "used") record.unknown("use of the old key");`,
        replace: ``,
        caughtBy: {
          file: workflows.normal,
          test: "at the grace ceiling of 24 h > revokes a key whose use is unknown, and says so",
        },
      },
      {
        name: "takes-its-own-probes-for-clients",
        file: "src/workflows/rotation/await-idle.ts",
        find: `rotation.swap.probes) record.unknown("clients' use of the new key");`,
        replace: `rotation.swap.probes) record.unknown();`,
        caughtBy: {
          file: workflows.normal,
          test: "with the documented waits > takes its own probe for proof of the new key only where no client had used the old one, and says so",
        },
      },
      {
        name: "takes-unread-logs-for-logs-without-errors",
        file: "src/workflows/rotation/disable-and-soak.ts",
        find: `if (seen.newErrors === undefined) rotation.record.unknown("errors at the gateway");
        else if (seen.newErrors > 0)`,
        replace: `if (seen.newErrors !== undefined && seen.newErrors > 0)`,
        caughtBy: {
          file: workflows.emergency,
          test: "a key that can be switched off and on again > is revoked after the soak also where the gateway's logs cannot be read, which is named as unknown",
        },
      },
      {
        name: "invents-the-end-of-an-outage",
        file: "src/workflows/rotation/measure-outage.ts",
        find: `record.unknown("end of the outage");`,
        replace: ``,
        caughtBy: {
          file: workflows.emergency,
          test: "cut-first > names the end of the outage as unknown where the logs cannot be read",
        },
      },
      {
        name: "takes-unread-use-of-a-compromised-key-for-none",
        file: "src/workflows/rotation/gather-evidence.ts",
        find: "rotation.record.unknown(`use of ${suspect()}`);",
        replace: ``,
        caughtBy: {
          file: workflows.emergency,
          test: "swap-first, with the documented clocks > names the compromised key's use as unknown where the provider cannot be read",
        },
      },
      {
        name: "looks-for-a-death-where-it-saw-no-life",
        file: "src/workflows/rotation/steps.ts",
        find: `throughPrev: rotation.swap.prevAnswered && keyId`,
        replace: `throughPrev: keyId`,
        caughtBy: {
          file: workflows.normal,
          test: "a death that cannot be seen > is not looked for through a copy that never answered",
        },
      },
      {
        name: "takes-unread-logs-for-no-requests",
        file: "src/activities/emergency.ts",
        find: `notes.push(\`the gateway's logs cannot be read, so strangers cannot be told from clients: \${error.message}\`);
    return undefined;`,
        replace: `notes.push(\`the gateway's logs cannot be read, so strangers cannot be told from clients: \${error.message}\`);
    return { rows: [] };`,
        caughtBy: {
          file: "test/activities/emergency.test.ts",
          test: "gatherEvidence (promise 12) > tells no stranger from a client where the gateway's logs cannot be read",
        },
      },
      {
        name: "ends-late-by-an-old-look",
        file: "src/activities/revocation.ts",
        find: `now - scheduledTimestampMs > lookCountsMs`,
        replace: `now - scheduledTimestampMs > 10_000 * lookCountsMs`,
        caughtBy: {
          file: "test/activities/revocation.test.ts",
          test: "a compromised key > that no slot held is not ended by an attempt that comes late, where a slot holds it by then and it is not due",
        },
      },
      {
        name: "believes-one-look-that-does-not-find-a-key",
        file: "src/activities/seen-keys.ts",
        find: `if (first.every(isSure)) return first;`,
        replace: `if (first.length >= 0) return first;`,
        caughtBy: {
          file: "test/activities/emergency.test.ts",
          test: "findCompromised > calls no key dead or unknown because one read, one list or one mark does not show it",
        },
      },
      {
        name: "believes-a-read-that-a-list-contradicts",
        file: "src/cloudflare/slot-secrets.ts",
        find: `return { ...listed, contradicted: true };`,
        replace: `return read;`,
        caughtBy: {
          file: "test/activities/revocation.test.ts",
          test: "revokeKey, when a proven key has replaced it > ends no key while lists and reads of a slot tell different things: a secret was made anew, or times run apart",
        },
      },
      {
        name: "ends-past-its-deadline-what-policy-holds",
        file: "src/workflows/rotation/compromised.ts",
        find: `if (rotation.compromised.cut.has(keyId) || isCutNow(rotation, keyId)) return;`,
        replace: `if (rotation.compromised.cut.has(keyId) || rotation.clock.isDue(keyId)) return;`,
        caughtBy: {
          file: "test/workflows/findings/odd-moments.test.ts",
          test: "a key that policy holds past its deadline > is not ended by a try that succeeds at last, where a slot took it meanwhile",
        },
      },
      {
        name: "leaves-to-the-exit-a-key-of-which-a-slot-cannot-tell",
        file: "src/workflows/rotation/end-when-moved.ts",
        find: `[...heldBy, ...unknown.map(({ slot }) => slot)]`,
        replace: `[...heldBy]`,
        caughtBy: {
          file: "test/workflows/findings/holders.test.ts",
          test: "a compromised key that another slot holds > is looked for again soon, where the look before its end could not tell of one slot",
        },
      },
      {
        name: "keeps-a-hand-over-waiting-for-evidence",
        file: "src/workflows/rotation/gather-evidence.ts",
        find: `rotation.handsOver || rotation.mailbox.abortedFor`,
        replace: `rotation.mailbox.abortedFor`,
        caughtBy: {
          file: "test/workflows/findings/hand-over.test.ts",
          test: "a serving key that is called compromised while its run waits in the exit > is replaced by its deadline, though the use of the key before is still being told",
        },
      },
      {
        name: "keeps-a-hand-over-waiting-for-a-proof",
        file: "src/workflows/rotation/ending.ts",
        find: `await unlessHandedOver(rotation, async () => {`,
        replace: `await (async (run: () => Promise<void>) => run())(async () => {`,
        caughtBy: {
          file: "test/workflows/findings/hand-over.test.ts",
          test: "a serving key that is called compromised while its run waits in the exit > is handed over at once, though the slot is asked for an answer that does not come",
        },
      },
      {
        name: "keeps-a-hand-over-waiting-for-another-run",
        file: "src/workflows/rotation/move-others.ts",
        find: `await unlessHandedOver(rotation, () => management.updateRun(order))`,
        replace: `await management.updateRun(order)`,
        caughtBy: {
          file: "test/workflows/findings/hand-over.test.ts",
          test: "a serving key that is called compromised while its run waits in the exit > is handed over at once, though the run of another slot does not answer what it is told",
        },
      },
      {
        name: "names-past-its-deadline-what-nobody-holds",
        file: "src/workflows/rotation/end-when-moved.ts",
        find: `if (!isPastLooking(rotation, keyId)) await lookAgain`,
        replace: `if (!clock.isDue(keyId) && !isPastLooking(rotation, keyId)) await lookAgain`,
        caughtBy: {
          file: "test/workflows/findings/odd-moments.test.ts",
          test: "a key that policy holds past its deadline > is ended at it, where another slot moved off it after the last look",
        },
      },
      {
        name: "hands-over-what-was-called-off",
        file: "src/workflows/rotation/passage.ts",
        find: `if (!this.#left) this.handOver = undefined;`,
        replace: `if (this.#left) this.handOver = undefined;`,
        caughtBy: {
          file: "test/workflows/findings/odd-moments.test.ts",
          test: "a hand-over > is called off by an abort that comes while what is under way ends",
        },
      },
      {
        name: "keeps-a-key-that-was-called-compromised",
        file: "src/workflows/normal-rotation.ts",
        find: `if (!found.due.due && !rotation.clock.has(found.held.id)) return keep`,
        replace: `if (!found.due.due) return keep`,
        caughtBy: {
          file: "test/workflows/findings/odd-moments.test.ts",
          test: "a rotation that is told of its held key while it looks whether it is due > replaces it, whatever its age",
        },
      },
      {
        name: "takes-a-key-that-nobody-sealed",
        file: "src/workflows/messages.ts",
        find: `text.split(".").length === 5 || !containsKey(text)`,
        replace: `text.split(".").length > 0 || !containsKey(text)`,
        caughtBy: {
          file: "test/workflows/messages.test.ts",
          test: "a key's value > in place of an id or among words is refused, and not repeated: a submission that nobody sealed",
        },
      },
      {
        name: "guesses-which-key-is-meant",
        file: "src/activities/which-key.ts",
        find: `if (why !== undefined || heldKey === undefined) {`,
        replace: `if (heldKey === undefined) {`,
        caughtBy: {
          file: "test/activities/which-key.test.ts",
          test: "planEmergency > does not guess where the held key is younger than the time since when it may be known",
        },
      },
    ],
  },
];
