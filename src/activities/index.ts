import type { Dependencies } from "./dependencies.ts";
import { emergencyActivities } from "./emergency.ts";
import { gatewayActivities } from "./gateway.ts";
import { keyActivities } from "./keys.ts";
import { orphanActivities } from "./orphans.ts";
import { runActivities } from "./runs.ts";
import { slotActivities } from "./slots.ts";
import { usageActivities } from "./usage.ts";

/** All activities, by the names they have in workflows and in the Temporal UI. */
export const createActivities = (deps: Dependencies) => ({
  ...slotActivities(deps),
  ...keyActivities(deps),
  ...gatewayActivities(deps),
  ...emergencyActivities(deps),
  ...usageActivities(deps),
  ...runActivities(deps),
  ...orphanActivities(deps),
});

export type RotationActivities = ReturnType<typeof createActivities>;
