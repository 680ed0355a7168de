/** The workflows a worker offers, by the names that starts use. */
export { emergencyRotation } from "./emergency-rotation.ts";
export { normalRotation } from "./normal-rotation.ts";
export { sweepOrphans } from "./sweep-orphans.ts";
export { listSlotKeys, planEmergency } from "./plan-emergency.ts";
