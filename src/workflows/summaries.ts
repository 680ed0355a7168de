import type { ActivityInterfaceFor } from "@temporalio/workflow";

import type {
  CompromisedOrder,
  ConfirmOrder,
  CutOrder,
  HoldersOrder,
  IdleOrder,
  InstallOrder,
  IssueOrder,
  OfRotation,
  RevokeOrder,
  SavedOrder,
  SettleOrder,
  StageOrder,
  SwitchOn,
  VerifyAtProviderOrder,
  VerifyThroughGatewayOrder,
} from "../activities/contract.ts";
import type { RotationActivities } from "../activities/index.ts";
import type { EndOrphanOrder } from "../activities/orphans.ts";

/** What the Temporal UI shows beside an activity's name. One that is not here shows its slot. */
const summaries: Partial<Record<keyof RotationActivities, (order: never) => string>> = {
  issueKey: ({ slot, ordinal }: IssueOrder) => `key ${ordinal} for ${slot}`,
  verifyAtProvider: ({ key }: VerifyAtProviderOrder) => `new key ${key.id}`,
  stageAliases: ({ key }: StageOrder) => `new key ${key.id} on alias new, a copy of the old one on prev`,
  seePrevAnswer: () => "the copy of the old key, on alias prev",
  verifyThroughGateway: ({ alias, goodAnswers }: VerifyThroughGatewayOrder) =>
    `${alias === "real" ? "the slot itself" : `alias ${alias}`}, ${goodAnswers} good answer${goodAnswers === 1 ? "" : "s in a row"}`,
  installKey: ({ slot, key, again }: InstallOrder) =>
    `new key ${key.id} into ${slot}${again === true ? ", once more" : ""}`,
  checkSaved: ({ slot, installedKeyId }: SavedOrder) => `whether ${slot} holds ${installedKeyId}`,
  checkIdle: ({ oldKeyId }: IdleOrder) => `old key ${oldKeyId}`,
  disableKey: ({ keyId }: RevokeOrder) => `old key ${keyId}`,
  enableKey: ({ keyId }: SwitchOn) => `old key ${keyId}`,
  cutKey: ({ keyId }: CutOrder) => `compromised key ${keyId}`,
  endCompromisedKey: ({ keyId }: CutOrder) => `compromised key ${keyId}`,
  revokeKey: ({ keyId }: RevokeOrder) => `old key ${keyId}`,
  confirmRevoked: ({ keyId, throughPrev }: ConfirmOrder) =>
    `key ${keyId}${throughPrev ? ", seen through alias prev" : ""}`,
  revokeOrphan: ({ id, slot }: EndOrphanOrder) => `orphan ${id} of ${slot}`,
  removeOrphanAlias: ({ id, slot }: EndOrphanOrder) => `left-over alias ${id} beside ${slot}`,
  findCompromised: ({ keyIds }: CompromisedOrder) => (keyIds.length === 0 ? "by its value" : keyIds.join(", ")),
  lookAtHolders: ({ keyIds }: HoldersOrder) => `who holds ${keyIds.join(", ")}`,
  settleKeys: ({ slot, keys }: SettleOrder) =>
    keys.length === 0 ? `what rotations of ${slot} left` : keys.map(({ id, role }) => `${role} key ${id}`).join(", "),
};

/** The same activities, each call with a line in the Temporal UI that says what it is about. */
export function withSummaries(
  activities: ActivityInterfaceFor<RotationActivities>,
): ActivityInterfaceFor<RotationActivities> {
  return new Proxy(activities, {
    get(_, name: keyof RotationActivities) {
      const activity = activities[name];
      return async (order: never): Promise<unknown> =>
        activity.executeWithOptions({ summary: summaryOf(name, order) }, [order]);
    },
  });
}

function summaryOf(name: keyof RotationActivities, order: never): string {
  return summaries[name]?.(order) ?? (order as Partial<OfRotation>).slot ?? "";
}
