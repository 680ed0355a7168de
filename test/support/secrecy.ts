import type { WorkflowHandle } from "@temporalio/client";
import { DefaultLogger, type LogEntry } from "@temporalio/worker";

/** Everything a worker of this process logged, for searching. */
export const logged: string[] = [];

/** A logger that keeps what it is told instead of printing it. */
export const keepingLogger = new DefaultLogger("DEBUG", (entry: LogEntry) => {
  logged.push(JSON.stringify([entry.message, entry.meta], printable));
});

function printable(_: string, value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  return value instanceof Error ? { ...value, name: value.name, message: value.message, stack: value.stack } : value;
}

/** A run's whole history as text, its payloads decoded. */
export async function readableHistory(handle: WorkflowHandle): Promise<string> {
  const { events = [] } = await handle.fetchHistory();
  return JSON.stringify(events, (key, value: unknown) =>
    key === "data" && typeof value === "string" ? Buffer.from(value, "base64").toString("utf8") : value,
  );
}

/** The values that stand in the text, in the clear or in one of the forms bytes are written in. */
export function foundIn(text: string, values: string[]): string[] {
  return values.filter((value) => {
    const bytes = Buffer.from(value);
    return [value, bytes.toString("base64"), bytes.toString("hex"), encodeURIComponent(value)].some((form) =>
      text.includes(form),
    );
  });
}
