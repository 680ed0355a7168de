import { type Duration, inMs } from "../domain/duration.ts";
import { policyDefaults } from "../domain/policy.ts";
import type { SealingPublicKey } from "../config.ts";

/** The slots that the sandbox serves at its start: all three providers in both environments. */
export const sandboxSlots: Record<string, Record<string, unknown>> = {
  "production/openai": { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } },
  "production/gemini": { google: { project: "my-project", serviceAccount: "gw@my-project.iam.gserviceaccount.com" } },
  "production/anthropic": { anthropic: { workspace: "wrkspc_1" } },
  "staging/openai": { openai: { project: "proj_stg", serviceAccount: "svc_acct_2" } },
  "staging/gemini": {
    google: { project: "my-project-staging", serviceAccount: "gw@my-project-staging.iam.gserviceaccount.com" },
  },
  "staging/anthropic": { anthropic: { workspace: "wrkspc_2" } },
};

/** The inventory `keyturn dev` writes for what its sandbox holds at the start. */
export function devInventory(sealing: SealingPublicKey[], timeScale: number): Record<string, unknown> {
  return {
    installation: "dev",
    account: "${CLOUDFLARE_ACCOUNT_ID}",
    defaultEnvironment: "production",
    environments: {
      production: { gateway: "github-ai-agent-prod" },
      staging: { gateway: "github-ai-agent-staging" },
    },
    slots: sandboxSlots,
    sealing,
    policy: scaledPolicy(timeScale),
  };
}

/**
 * The default policy with its waits divided by the time scale. Bounds of waits keep a floor, since a busy machine is
 * not faster by the scale; `every` and `keyLife` stay, since the sandbox lets keys live in real time.
 */
export function scaledPolicy(timeScale: number): Record<string, unknown> {
  const scaled = (text: string, atLeastMs = 1): string =>
    durationText(Math.max(atLeastMs, Math.round(inMs(text as Duration) / timeScale)));
  const each = (values: Record<string, string>, atLeastMs = 1): Record<string, string> =>
    Object.fromEntries(Object.entries(values).map(([provider, text]) => [provider, scaled(text, atLeastMs)]));
  const rows = (rules: Record<string, string>): Record<string, string> =>
    Object.fromEntries(
      Object.entries(rules).map(([kind, rule]) => {
        const [answers = "", span = ""] = rule.split(" over ");
        return [kind, `${answers} over ${scaled(span)}`];
      }),
    );
  const { settleBudget, alive, usageLag, dead, graceCeiling, emergency } = policyDefaults;
  return {
    settleBudget: each(settleBudget, 15_000),
    alive: rows(alive),
    propagationWait: scaled(policyDefaults.propagationWait),
    propagationBudget: scaled(policyDefaults.propagationBudget, 15_000),
    cacheInvalidationWait: scaled(policyDefaults.cacheInvalidationWait),
    quietPeriod: scaled(policyDefaults.quietPeriod),
    usageLag: each(usageLag),
    graceCeiling: { after: scaled(graceCeiling.after, 60_000) },
    soak: scaled(policyDefaults.soak),
    longestRequest: scaled(policyDefaults.longestRequest),
    personDeadline: scaled(policyDefaults.personDeadline, 600_000),
    revokeAlertAfter: scaled(policyDefaults.revokeAlertAfter, 15_000),
    dead: rows(dead),
    emergency: {
      installWithin: scaled(emergency.installWithin, 30_000),
      revokeWithin: scaled(emergency.revokeWithin, 60_000),
    },
  };
}

/** As people write it: the largest unit that leaves a whole number. */
function durationText(ms: number): string {
  for (const [unit, unitMs] of [
    ["h", 3_600_000],
    ["m", 60_000],
    ["s", 1_000],
  ] as const) {
    if (ms >= unitMs && ms % unitMs === 0) return `${ms / unitMs}${unit}`;
  }
  return `${ms}ms`;
}
