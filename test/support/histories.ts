import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { History } from "@temporalio/common/lib/proto-utils.js";

/** The recorded histories, as `temporal workflow show --output json` writes them. */

/** Where they are kept, from the top of the checkout. */
export const historiesDirectory = "test/histories";

export interface RecordedHistory {
  name: string;
  workflowId: string;
  history: History;
}

interface HistoryJson {
  events: Record<string, unknown>[];
}

/**
 * Proto JSON by the very copy of protobufjs that Temporal's types are made with. The SDK's own `historyToJSON` and
 * `historyFromJSON` take whichever copy npm puts beside them, and refuse the types of another one: seen with 1.24, where
 * a second version of protobufjs is installed (2026-11).
 */
const requireInCommon = createRequire(createRequire(import.meta.url).resolve("@temporalio/common"));
const requireInProto = createRequire(requireInCommon.resolve("@temporalio/proto"));
const { fromJson, toJson } = requireInProto("protobufjs/ext/protojson") as {
  fromJson(type: unknown, json: unknown, options: object): History;
  toJson(type: unknown, message: unknown): HistoryJson;
};
const { patchProtobufRoot } = requireInCommon("@temporalio/proto/lib/patch-protobuf-root") as {
  patchProtobufRoot(root: unknown): { lookupType(name: string): unknown };
};
const historyType = patchProtobufRoot(requireInCommon("@temporalio/proto")).lookupType(
  "temporal.api.history.v1.History",
);

/** Reads them all; each file also says under which workflow id it ran, which decides whether a start follows another. */
export function readHistories(directory = historiesDirectory): RecordedHistory[] {
  return readdirSync(directory)
    .filter((file) => file.endsWith(".json"))
    .toSorted()
    .map((file) => {
      const json = JSON.parse(readFileSync(join(directory, file), "utf8")) as HistoryJson;
      const history = fromJson(historyType, json, { ignoreUnknownFields: true });
      return { name: file.replace(/\.json$/, ""), workflowId: workflowIdOf(json), history };
    });
}

const started = "workflowExecutionStartedEventAttributes";

function workflowIdOf({ events: [first] }: HistoryJson): string {
  const { workflowId } = (first?.[started] ?? {}) as { workflowId?: string };
  if (workflowId === undefined) throw new Error("a history does not say its workflow id");
  return workflowId;
}

/** What says where a history was recorded, or is of no use to a replay. */
const leftOut = new Set(["identity", "stackTrace", "taskId", "binaryChecksum", "requestId", "workerVersion", "stack"]);

/**
 * The history without the names of machine, process and folders, an event a line. Says its workflow id as a real server
 * does; the one that skips time leaves it out.
 */
export function writeHistory(workflowId: string, history: History): string {
  const { events } = toJson(historyType, history);
  Object.assign(events[0]?.[started] ?? {}, { workflowId });
  const lines = events.map((event) =>
    JSON.stringify(event, (key, value: unknown) => (leftOut.has(key) ? undefined : value)),
  );
  return `{"events":[\n${lines.join(",\n")}\n]}\n`;
}
