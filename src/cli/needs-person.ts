import type { Wait } from "../domain/rotation.ts";

/** Whether a wait ends by what a person does, as against one that a person may only shorten. */
export function needsPerson(waiting: Wait | null): boolean {
  return waiting?.person === true;
}
