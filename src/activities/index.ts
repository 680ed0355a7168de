import type { Dependencies } from "./dependencies.ts";
import { emergencyActivities } from "./emergency.ts";
import { gatewayActivities } from "./gateway.ts";
import { heldKeyActivities } from "./held-key.ts";
import { keyActivities } from "./keys.ts";
import { orphanActivities } from "./orphans.ts";
import { revocationActivities } from "./revocation.ts";
import { runActivities } from "./runs.ts";
import { slotActivities } from "./slots.ts";
import { usageActivities } from "./usage.ts";
import { whichKeyActivities } from "./which-key.ts";

/**
 * All activities, by the names they have in workflows and in the Temporal UI. `endings` goes through one door:
 * nothing but revocation.ts ends, switches off or switches on a key.
 */
export const createActivities = (deps: Dependencies, endings: Parameters<typeof revocationActivities>[1]) => ({
  ...slotActivities(deps),
  ...keyActivities(deps),
  ...heldKeyActivities(deps),
  ...gatewayActivities(deps),
  ...emergencyActivities(deps),
  ...whichKeyActivities(deps),
  ...usageActivities(deps),
  ...runActivities(deps),
  ...orphanActivities(deps),
  ...revocationActivities(deps, endings),
});

export type RotationActivities = ReturnType<typeof createActivities>;
