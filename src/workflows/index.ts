/** The workflows a worker offers, by the names that starts use. */
export { normalRotation } from "./normal-rotation.ts";
export { sweepOrphans } from "./sweep-orphans.ts";
