import { inMs, readableMs } from "../domain/duration.ts";
import { taskQueue } from "../domain/rotation.ts";
import { searchAttributeNames } from "../temporal/search-attributes.ts";
import { type Found, ofMissing, ok, problem, unknown } from "./finding.ts";
import type { Ground } from "./ground.ts";

/** Temporal, and what rotations need of it. */

const about = "Temporal";
const withinMs = 5_000;

export async function temporalReachable({ temporal }: Ground): Promise<Found[]> {
  const { connected, address, namespace, why = "no answer" } = temporal;
  if (connected === undefined) return [problem(about, why)];
  try {
    const { client } = connected;
    await client.connection.withDeadline(Date.now() + withinMs, () =>
      client.workflowService.describeNamespace({ namespace }),
    );
    return [ok(about, `a Temporal server answers at ${address}, namespace ${namespace}`)];
  } catch (error) {
    return [problem(about, `the Temporal server at ${address} does not serve namespace ${namespace}: ${said(error)}`)];
  }
}

/** `IndexedValueType.KEYWORD` of Temporal's API, github.com/temporalio/api enums/v1/common.proto, 2026-11. */
const keyword = 2;

export async function searchAttributesKnown({ temporal }: Ground): Promise<Found[]> {
  const { connected, namespace } = temporal;
  if (connected === undefined) return [ofMissing(about, "whether the search attributes are registered")];
  const { connection } = connected.client;
  try {
    const { customAttributes } = await connection.withDeadline(Date.now() + withinMs, () =>
      connected.client.connection.operatorService.listSearchAttributes({ namespace }),
    );
    const missing = searchAttributeNames.filter((name) => customAttributes?.[name] == null);
    const odd = searchAttributeNames.filter(
      (name) => ![keyword, "INDEXED_VALUE_TYPE_KEYWORD"].includes(customAttributes?.[name] ?? keyword),
    );
    if (odd.length > 0) {
      return [
        problem(
          about,
          `${odd.join(", ")} is registered with another type than Keyword`,
          "remove it, and let the worker register it",
        ),
      ];
    }
    if (missing.length === 0) return [ok(about, "the search attributes are registered")];
    const flags = missing.map((name) => `--name ${name} --type Keyword`).join(" ");
    return [
      problem(
        about,
        `${missing.join(", ")} is not registered as a search attribute`,
        `start a worker, which registers them where it may; else temporal operator search-attribute create --namespace ${namespace} ${flags}`,
      ),
    ];
  } catch (error) {
    return [unknown(about, `whether the search attributes are registered cannot be read: ${said(error)}`)];
  }
}

/** What stayed behind stands in the result of a slot's last run, and a quarterly slot has one in a quarter. */
export async function resultsKept({ temporal, slots }: Ground): Promise<Found[]> {
  const { connected, namespace } = temporal;
  if (connected === undefined) return [ofMissing(about, "how long the namespace keeps results")];
  const { client } = connected;
  const longest = slots.toSorted((a, b) => inMs(b.slot.policy.every) - inMs(a.slot.policy.every))[0];
  if (longest === undefined) return [];
  const { every } = longest.slot.policy;
  try {
    const { config } = await client.connection.withDeadline(Date.now() + withinMs, () =>
      client.workflowService.describeNamespace({ namespace }),
    );
    const seconds = config?.workflowExecutionRetentionTtl?.seconds;
    if (seconds === undefined || seconds === null) {
      return [unknown(about, `how long namespace ${namespace} keeps closed runs is not told`)];
    }
    const keptMs = Number(seconds) * 1_000;
    const kept = `namespace ${namespace} keeps closed runs for ${readableMs(keptMs)}`;
    if (keptMs >= 2 * inMs(every)) return [ok(about, `${kept}, at least twice every (${every})`)];
    const days = Math.ceil((2 * inMs(every)) / 86_400_000);
    return [
      problem(
        about,
        `${kept}, under twice every (${every}, ${longest.name}): the result that names left-over keys is gone when the next run looks for it`,
        `temporal operator namespace update --namespace ${namespace} --retention ${days}d`,
      ),
    ];
  } catch (error) {
    return [unknown(about, `how long namespace ${namespace} keeps closed runs cannot be read: ${said(error)}`)];
  }
}

export async function workerPolls({ temporal }: Ground): Promise<Found[]> {
  const { connected, namespace } = temporal;
  if (connected === undefined) return [ofMissing(about, "whether a worker works")];
  const { client } = connected;
  try {
    const [workflows = 0, activities = 0] = await Promise.all(
      ([1, 2] as const).map(async (taskQueueType) => {
        const { pollers } = await client.connection.withDeadline(Date.now() + withinMs, () =>
          client.workflowService.describeTaskQueue({ namespace, taskQueue: { name: taskQueue }, taskQueueType }),
        );
        return pollers.length;
      }),
    );
    return workflows > 0 && activities > 0
      ? [
          ok(
            about,
            `${Math.max(workflows, activities)} worker(s) polled task queue ${taskQueue} within the last five minutes`,
          ),
        ]
      : [problem(about, `no worker polls task queue ${taskQueue}: rotations would not begin`)];
  } catch (error) {
    return [unknown(about, `who polls task queue ${taskQueue} cannot be read: ${said(error)}`)];
  }
}

function said(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
