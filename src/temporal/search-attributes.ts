import type { Connection } from "@temporalio/client";

import { RotationFailure } from "../domain/failure.ts";
import { searchAttributes } from "../workflows/search-attributes.ts";

/** The names of our search attributes, all of type Keyword. */
export const searchAttributeNames: string[] = Object.values(searchAttributes).map(({ name }) => name);

/** `IndexedValueType.KEYWORD` of Temporal's API, github.com/temporalio/api enums/v1/common.proto, 2026-11. */
const keyword = 2;

/**
 * Sees to it that the server knows our search attributes: a workflow that sets an unknown one fails its tasks for ever.
 * Registers what is missing where it may; else fails with `InvalidInput` and the command that does.
 */
export async function ensureSearchAttributes(
  connection: Pick<Connection, "operatorService">,
  namespace: string,
): Promise<void> {
  const { customAttributes } = await connection.operatorService.listSearchAttributes({ namespace });
  const missing = searchAttributeNames.filter((name) => customAttributes?.[name] == null);
  if (missing.length === 0) return;
  try {
    await addSearchAttributes(connection, namespace, missing);
  } catch (error) {
    const flags = missing.map((name) => `--name ${name} --type Keyword`).join(" ");
    throw new RotationFailure(
      "InvalidInput",
      `the Temporal server does not know ${missing.join(", ")}, and we may not add them (${error instanceof Error ? error.message : "refused"}): run temporal operator search-attribute create --namespace ${namespace} ${flags}`,
    );
  }
}

/** Registers search attributes of type Keyword. Fails where the server already has them or we may not. */
export async function addSearchAttributes(
  connection: Pick<Connection, "operatorService">,
  namespace: string,
  names: string[],
): Promise<void> {
  await connection.operatorService.addSearchAttributes({
    namespace,
    searchAttributes: Object.fromEntries(names.map((name) => [name, keyword])),
  });
}
