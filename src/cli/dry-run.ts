import type { Inspection } from "../activities/contract.ts";
import type { Credentials, Environment, Inventory, InventorySlot } from "../config.ts";
import { RotationFailure } from "../domain/failure.ts";
import { deadBudgetMs, type Policy } from "../domain/policy.ts";
import { readableMs } from "../domain/duration.ts";
import { defined } from "../domain/defined.ts";
import { type Temporal, withTemporal } from "../temporal/client.ts";
import type { NormalRotationStart } from "../workflows/messages.ts";
import { activitiesHere } from "./from-here.ts";
import { type Output, table } from "./output.ts";
import { runningRotation } from "./running-rotation.ts";

export interface DryRun {
  slot: InventorySlot;
  inventory: Inventory;
  credentials: Credentials;
  start: NormalRotationStart;
  env: Environment;
  output: Output;
}

/** Makes the checks of the first step from here, and prints what a rotation would do. Writes nothing anywhere. */
export async function dryRun({ slot, inventory, credentials, start, env, output }: DryRun): Promise<void> {
  const running = await whatRuns(slot.name, env);
  const found = await inspectFromHere({ slot, inventory, credentials, start, env });
  const waits = waitsOf(found);
  output.result({ slot: slot.name, dryRun: true, ...found, waits, running }, describe(slot, found, waits, running));
}

/** The first step of a rotation. Where Temporal does not answer, what the last run left behind stays unknown. */
async function inspectFromHere({
  slot,
  inventory,
  credentials,
  start: { heldKeyId, onlyIfDue },
  env,
}: Omit<DryRun, "output">): Promise<Inspection> {
  const order = { slot: slot.name, rotationId: "dry-run", ...defined({ heldKeyId, onlyIfDue }) };
  const inspect = (temporal?: Temporal): Promise<Inspection> =>
    activitiesHere({ inventory, credentials, temporal }).inspectSlot(order);
  try {
    return await withTemporal(env, inspect);
  } catch (error) {
    if (!(error instanceof RotationFailure) || error.type !== "Unavailable") throw error;
    const found = await inspect();
    return { ...found, unknown: [...found.unknown, `what the last run left behind: ${error.message}`] };
  }
}

/** The rotation of the slot that runs now, nothing, or that Temporal could not be asked. */
type Running = { workflowId: string; runId: string } | null | "unknown";

async function whatRuns(slot: string, env: Environment): Promise<Running> {
  try {
    return await withTemporal(env, async (temporal) => {
      const { workflowId } = await runningRotation(temporal, slot);
      const { runId } = await temporal.client.workflow.getHandle(workflowId).describe();
      return { workflowId, runId };
    });
  } catch (error) {
    return error instanceof RotationFailure && error.type === "InvalidInput" ? null : "unknown";
  }
}

function describe(
  { name, gateway, slot }: InventorySlot,
  found: Inspection,
  waits: PlannedWait[],
  running: Running,
): string {
  const { held, due, staged, canIssue, byHand, sharedWith, warnings, earlier } = found;
  const how = {
    mark: "by the mark",
    preview: "by the gateway's preview",
    "last result": "by the last rotation's result",
    operator: "as you say",
    value: "by its value, which its provider shows again",
  }[held.how];
  const rows: [string, string | undefined][] = [
    ["running", runningRow(name, running)],
    ["gateway", `${gateway}, alias ${slot.alias}`],
    ["held key", `${held.id} (known ${how}${held.since === undefined ? "" : `, since ${held.since}`})`],
    ["new key", canIssue ? "made at the provider" : "handed in by a person"],
    ["proven", staged ? "on two aliases of the rotation's own, then in the slot" : "in place: in the slot only"],
    [
      "old key",
      sharedWith.length === 0
        ? `revoked at the end${byHand === undefined ? "" : " by a person"}`
        : `kept: ${sharedWith.join(", ")} holds it too`,
    ],
    ...waits.map(({ for: what, takes, atMost }): [string, string] => [
      "wait",
      `${what}: ${takes === undefined ? "" : `${takes}, `}at most ${atMost}`,
    ]),
    ["unknown", byHand === undefined ? undefined : `${byHand.unknown.join("; ")}: ${byHand.missing}`],
    ...found.unknown.map((what): [string, string] => ["unknown", what]),
    ...earlier
      .filter(({ state }) => state !== "dead")
      .map(({ id, why, state }): [string, string] => ["left over", `${id} (${state}): ${why}`]),
    ...warnings.map((warning): [string, string] => ["warning", warning]),
  ];
  const headline = due.due ? `would be rotated (${due.reason})` : `would not be rotated: ${due.reason}`;
  return `${name}: ${headline}; nothing was changed\n${table(rows)}`;
}

function runningRow(slot: string, running: Running): string | undefined {
  if (running === null) return undefined;
  return running === "unknown"
    ? "unknown: Temporal could not be asked whether a rotation runs"
    : `a rotation of this slot is running (${running.workflowId}, run ${running.runId}): keyturn status ${slot}`;
}

interface PlannedWait {
  for: string;
  takes?: string;
  atMost: string;
}

/** The waits of a rotation by this policy, in their order, each with its bound. */
function waitsOf({ policy, canIssue, byHand }: Inspection): PlannedWait[] {
  const person = (what: string): PlannedWait => ({ for: what, atMost: policy.personDeadline });
  const approval = (point: Policy["approval"]): PlannedWait[] =>
    policy.approval === point ? [person(`an approval ${point.replace("-", " ")}`)] : [];
  return [
    canIssue
      ? { for: "the new key to work at the provider", atMost: policy.settleBudget }
      : person("a person to hand in the new key"),
    ...approval("before-install"),
    {
      for: "the new value to reach the edges",
      takes: policy.propagationWait,
      atMost: policy.propagationBudget,
    },
    {
      for: "caches to drop the old key",
      takes: policy.cacheInvalidationWait,
      atMost: policy.cacheInvalidationWait,
    },
    { for: "the old key to be idle", takes: policy.quietPeriod, atMost: policy.graceCeiling.after },
    ...approval("before-revoke"),
    ...(byHand === undefined ? [] : [person("a person to revoke the old key")]),
    {
      for: "the old key to be refused everywhere",
      takes: policy.dead.span,
      atMost: readableMs(deadBudgetMs(policy)),
    },
  ];
}
