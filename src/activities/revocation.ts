import type { Endings } from "../providers/key-end.ts";
import type { Dependencies } from "./dependencies.ts";

export const revocationActivities = (_deps: Dependencies, _endings: Endings) => ({});
