import {
  type Client,
  isGrpcServiceError,
  ServiceError,
  type WorkflowExecutionDescription,
  WorkflowFailedError,
  WorkflowNotFoundError,
  WorkflowUpdateFailedError,
} from "@temporalio/client";
import { ActivityFailure, ApplicationFailure } from "@temporalio/common";

import type { ClosedRun, OpenRotation, Runs, WhichRun } from "../activities/dependencies.ts";
import { type FailureType, failureTypes, RotationFailure } from "../domain/failure.ts";
import { type Progress, type RotationResult, slotWorkflowId } from "../domain/rotation.ts";
import { progressQuery } from "../workflows/messages.ts";

/** Other runs on a Temporal server, as activities and commands ask for them. */

const answerWithinMs = 10_000;

/** Other runs on the server this client talks to. */
export function runsOf(client: Client): Runs {
  const lastClosed = (slot: string, which: WhichRun = {}): Promise<ClosedRun | undefined> =>
    asked(`how the last rotation of ${slot} ended`, () => newestClosed(client, slot, which));
  return {
    async find(workflowId) {
      try {
        const { runId, status } = await client.workflow.getHandle(workflowId).describe();
        if (status.name !== "RUNNING") return { workflowId, runId };
        const progress = await client.connection
          .withDeadline(Date.now() + answerWithinMs, () =>
            client.workflow.getHandle(workflowId, runId).query(progressQuery),
          )
          .catch(() => undefined);
        return { workflowId, runId, ...(progress === undefined ? {} : { progress }) };
      } catch (error) {
        if (!(error instanceof WorkflowNotFoundError)) throw error;
        throw new RotationFailure("SlotMissing", `no run of ${workflowId}: it may have just ended`);
      }
    },
    lastClosed,
    async lastInstalledKey(slot, which) {
      const result = (await lastClosed(slot, which))?.result;
      if (result?.outcome === "rotated") return result.newKey?.id;
      return result?.outcome === "kept" ? result.oldKey?.id : undefined;
    },
    async openRotations(slots) {
      const open: OpenRotation[] = [];
      for (const slot of slots) {
        const rotation = await openRotationOf(client, slot);
        if (rotation !== undefined) open.push(rotation);
      }
      return open;
    },
    async update({ workflowId, runId, update, arg }, updateId) {
      const handle = client.workflow.getHandle(workflowId, runId);
      try {
        return await handle.executeUpdate<unknown, [unknown]>(update, { args: [arg], updateId });
      } catch (error) {
        if (error instanceof WorkflowUpdateFailedError) throw refusalOf(error);
        if (!(error instanceof WorkflowNotFoundError)) throw error;
        const run =
          runId === undefined ? `no run of ${workflowId} is open` : `the run ${runId} of ${workflowId} has ended`;
        throw new RotationFailure("SlotMissing", `${run}: nothing was told to it`);
      }
    },
  };
}

/** The refusal in its own words and with its own type, where that is one of ours. */
function refusalOf({ cause: said, message }: WorkflowUpdateFailedError): RotationFailure {
  // Where an activity refused it, its own failure is within.
  const cause = said instanceof ActivityFailure ? said.cause : said;
  const type = cause instanceof ApplicationFailure ? cause.type : undefined;
  return new RotationFailure(isOurs(type) ? type : "InvalidInput", cause?.message ?? message, {
    retried: false,
    details: cause instanceof ApplicationFailure ? (cause.details ?? []) : [],
  });
}

function isOurs(type: string | null | undefined): type is FailureType {
  return type !== undefined && type !== null && Object.hasOwn(failureTypes, type);
}

/** Fails with `Unavailable` where the server does not answer in time, or not at all. */
async function asked<Result>(what: string, question: () => Promise<Result>): Promise<Result> {
  try {
    return await question();
  } catch (error) {
    const cause = error instanceof ServiceError ? error.cause : error;
    if (!isGrpcServiceError(cause)) throw error;
    const why = cause.details || cause.message;
    throw new RotationFailure("Unavailable", `${what} cannot be told, Temporal does not answer: ${why}`);
  }
}

/**
 * By `describe` where that tells, not by a search: the search index is late. Only while a run of the slot is open, and
 * nobody said which one was before it, is the index all there is; and for runs before one that named nothing of theirs.
 */
async function newestClosed(client: Client, slot: string, { hint, except }: WhichRun): Promise<ClosedRun | undefined> {
  const workflowId = slotWorkflowId(slot);
  const within = <Result>(call: () => Promise<Result>): Promise<Result> =>
    client.connection.withDeadline(Date.now() + answerWithinMs, call);
  const describe = async (runId?: string): Promise<WorkflowExecutionDescription | undefined> =>
    within(() => client.workflow.getHandle(workflowId, runId).describe()).catch((error: unknown) => {
      if (error instanceof WorkflowNotFoundError) return undefined;
      throw error;
    });
  const latest = await describe();
  if (latest === undefined) return undefined;
  const hinted = hint === undefined || hint === except || hint === latest.runId ? undefined : await describe(hint);
  const described = [latest, hinted].find((run) => run !== undefined && hasClosed(run) && run.runId !== except);
  let closed = described === undefined ? undefined : await howItClosed(client, described);
  if (closed !== undefined && hasTakenOver(closed)) return closed;
  const query = `WorkflowId = "${workflowId}" AND ExecutionStatus != "Running"`;
  return within(async () => {
    for await (const run of client.workflow.list({ query })) {
      const isNewer = described !== undefined && run.startTime.getTime() >= described.startTime.getTime();
      if (!hasClosed(run) || run.runId === except || isNewer) continue;
      const former = await howItClosed(client, run);
      closed = withFormer(closed, former);
      if (hasTakenOver(former)) return closed;
    }
    return closed;
  });
}

/** Whether the run looked at its slot, and so names again what runs before it named. What told nothing hides nothing. */
function hasTakenOver({ result }: ClosedRun): boolean {
  return result === undefined || result.steps.some(({ step, outcome }) => step === "inspectSlot" && outcome === "done");
}

/** A run that ended before it had looked at its slot, with what the run before it named: nobody else names it again. */
function withFormer(closed: ClosedRun | undefined, former: ClosedRun): ClosedRun {
  if (closed?.result === undefined) return former;
  if (former.result === undefined) return closed.result.keys.length === 0 ? former : closed;
  const { keys, leftOver } = closed.result;
  const isNew = ({ id }: { id: string }): boolean => keys.every((key) => key.id !== id);
  const result = {
    ...closed.result,
    keys: [...keys, ...former.result.keys.filter((key) => key.fate !== "held" && isNew(key))],
    leftOver: [...leftOver, ...former.result.leftOver.filter(isNew)],
  };
  return { ...closed, result };
}

type Described = Pick<WorkflowExecutionDescription, "workflowId" | "runId" | "status">;

/** A run that went on as another one has not ended: what it answers for went with it. */
function hasClosed({ status: { name } }: Described): boolean {
  return name !== "RUNNING" && name !== "CONTINUED_AS_NEW" && name !== "PAUSED";
}

/** A closed run that told nothing is asked for its last progress: a worker can still answer for it. */
async function howItClosed(client: Client, { workflowId, runId, status }: Described): Promise<ClosedRun> {
  const handle = client.workflow.getHandle(workflowId, runId, { followRuns: false });
  const within = <Result>(call: () => Promise<Result>): Promise<Result> =>
    client.connection.withDeadline(Date.now() + answerWithinMs, call);
  const of = { runId, status: status.name };
  try {
    const result: unknown = await within(() => handle.result());
    if (isResult(result)) return { ...of, result };
  } catch (error) {
    if (!(error instanceof WorkflowFailedError)) throw error;
    const [details] = error.cause instanceof ApplicationFailure ? (error.cause.details ?? []) : [];
    if (isResult(details)) return { ...of, result: details };
  }
  const progress = await within(() => handle.query(progressQuery)).catch(() => undefined);
  return progress === undefined ? of : { ...of, result: resultOf(progress, status.name) };
}

/** Nobody settled the keys that were open when the run was ended from outside: they are named. */
function resultOf(progress: Progress, status: string): RotationResult {
  const how = status.toLowerCase().replaceAll("_", " ");
  const why = `its rotation was ended from outside (${how}) before it could say where the key is`;
  const keys = (progress.keys ?? []).map((key) =>
    key.fate === "open" ? { ...key, fate: "named" as const, why } : key,
  );
  const { slot, kind, rotationId, oldKey, newKey, times, steps } = progress;
  return {
    slot,
    kind,
    outcome: "aborted",
    reason: `ended from outside: ${how}`,
    rotationId,
    oldKey,
    newKey,
    times,
    keys,
    unknown: [],
    leftOver: keys.flatMap((key) => (key.fate === "named" ? [{ id: key.id, why: key.why ?? why }] : [])),
    warnings: [],
    steps,
  };
}

function isResult(value: unknown): value is RotationResult {
  return typeof value === "object" && value !== null && "outcome" in value && "steps" in value;
}

/** By the slot's own workflow id, not by a search: the search index is late. */
async function openRotationOf(client: Client, slot: string): Promise<OpenRotation | undefined> {
  const workflowId = slotWorkflowId(slot);
  const within = async <Result>(call: () => Promise<Result>): Promise<Result> =>
    client.connection.withDeadline(Date.now() + answerWithinMs, call);
  try {
    const { runId, status } = await within(() => client.workflow.getHandle(workflowId).describe());
    if (status.name !== "RUNNING") return undefined;
    const { rotationId, oldKey, newKey, keys } = await within(() =>
      client.workflow.getHandle(workflowId, runId).query(progressQuery),
    );
    const ids = [oldKey, newKey, ...keys].flatMap((key) => (key === null ? [] : [key.id]));
    return { slot, workflowId, rotationId, keyIds: [...new Set(ids)] };
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return undefined;
    const why = error instanceof Error ? error.message : String(error);
    throw new RotationFailure("Unavailable", `whether a rotation of ${slot} is open cannot be told: ${why}`);
  }
}
