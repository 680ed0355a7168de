import {
  type Environment,
  howSlotsAreWritten,
  type Inventory,
  type InventorySlot,
  nearestName,
  slotOf,
} from "../config.ts";
import { RotationFailure } from "../domain/failure.ts";
import { parseSlot } from "../domain/slot.ts";

/**
 * The slot an operator typed. `openai` and `openai:batch` are completed with the environment that `--env` names, else
 * `NODE_ENV` where it is one of the inventory's, else the inventory's default. Fails with `InvalidInput`.
 */
export function readSlot(
  text: string,
  { inventory, env, chosen }: { inventory: Inventory; env: Environment; chosen: string | undefined },
): InventorySlot {
  const environments = Object.keys(inventory.environments);
  if (chosen !== undefined && !environments.includes(chosen)) {
    const nearest = nearestName(chosen, environments);
    throw invalid(
      `no environment ${chosen} in ${inventory.path}${nearest === undefined ? "" : `: did you mean ${nearest}?`} (environments: ${environments.join(", ")})`,
    );
  }
  refuseHalfASlot(text, inventory);
  const slash = text.indexOf("/");
  if (slash >= 0) {
    const named = text.slice(0, slash);
    if (chosen !== undefined && named !== chosen) {
      throw invalid(`${text} is in ${named}, and --env says ${chosen}: leave one of them out`);
    }
    return slotOf(inventory, text);
  }
  const environment = chosen ?? environmentOf(env, environments) ?? inventory.defaultEnvironment;
  if (environment === undefined) {
    throw invalid(
      `which environment's ${text}? Write one of ${environments.map((name) => `${name}/${text}`).join(", ")}, or give --env`,
    );
  }
  return slotOf(inventory, `${environment}/${text}`);
}

/** Nothing, or an environment alone, would be completed to a name that nobody typed. */
function refuseHalfASlot(text: string, { environments, slots }: Inventory): void {
  const names = Object.keys(slots);
  if (text.trim() === "") throw invalid(`the slot is empty: ${howSlotsAreWritten} (slots: ${names.join(", ")})`);
  // An environment may have a provider's name; then it is read as the provider.
  if (environments[text] === undefined || parseSlot(`any/${text}`) !== undefined) return;
  const inside = names.filter((name) => name.startsWith(`${text}/`));
  throw invalid(
    `${text} is an environment, not a slot: ${howSlotsAreWritten} (slots of ${text}: ${inside.join(", ") || "none"})`,
  );
}

function environmentOf(env: Environment, environments: string[]): string | undefined {
  const name = env["NODE_ENV"];
  return name !== undefined && environments.includes(name) ? name : undefined;
}

function invalid(message: string): RotationFailure {
  return new RotationFailure("InvalidInput", message);
}
