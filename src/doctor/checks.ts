import * as cloudflare from "./cloudflare.ts";
import * as files from "./files.ts";
import { variablesSet } from "./environment.ts";
import { type Found, ofFailure } from "./finding.ts";
import type { Ground, SlotGround } from "./ground.ts";
import * as keys from "./keys.ts";
import { sealingKeys } from "./sealing.ts";
import * as temporal from "./temporal.ts";

/** One thing the doctor looks at. The same table stands in docs/doctor.md; a test keeps the two in step. */
export interface Check {
  name: string;
  /** What it looks at, as the documentation says it. */
  looks: string;
  /** What to do where a finding says nothing else. */
  remedy: string;
  run(ground: Ground): Promise<Found[]>;
}

/** A check that is made for each slot. What its question fails with is its finding. */
const perSlot =
  (look: (slot: SlotGround) => Promise<Found>): Check["run"] =>
  async ({ slots }) => {
    const found: Found[] = [];
    for (const slot of slots) found.push(await look(slot).catch((error: unknown) => ofFailure(slot.name, error)));
    return found;
  };

export const checks: Check[] = [
  {
    name: "environment",
    looks: "every variable that the inventory and the credentials need is set",
    remedy: "put it into the environment or .dev.vars",
    run: variablesSet,
  },
  {
    name: "temporal",
    looks: "a Temporal server answers, at the address it names",
    remedy: "start one (keyturn dev, docker compose up), or set TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE",
    run: temporal.temporalReachable,
  },
  {
    name: "search-attributes",
    looks: "the server knows our four search attributes, as keywords",
    remedy: "start a worker, which registers them where it may, or have an administrator do it",
    run: temporal.searchAttributesKnown,
  },
  {
    name: "retention",
    looks: "the namespace keeps closed runs for at least twice `every`: the last result names what stayed behind",
    remedy: "raise the namespace's retention (temporal operator namespace update --retention)",
    run: temporal.resultsKept,
  },
  {
    name: "worker",
    looks: "a worker polls the task queue",
    remedy: "start keyturn worker",
    run: temporal.workerPolls,
  },
  {
    name: "sealing",
    looks: "the inventory's sealing keys, and whether the private halves are here and fit",
    remedy:
      "give the workers the file of keyturn seal-key in KEYTURN_SEALING_KEY_FILE, with every key of the inventory",
    run: sealingKeys,
  },
  {
    name: "cloudflare-secrets-read",
    looks: "the Cloudflare API token reads the secrets store",
    remedy: "give the token Secrets Store Read (Write includes it) on the account",
    run: cloudflare.secretsStoreRead,
  },
  {
    name: "cloudflare-gateway-read",
    looks: "the Cloudflare API token reads gateways",
    remedy: "give the token AI Gateway Read (Write includes it) on the account",
    run: cloudflare.gatewayRead,
  },
  {
    name: "cloudflare-write",
    looks: "the token's right to write, which is unknown without a write",
    remedy: "compare the token in the dashboard: it needs Secrets Store Write and AI Gateway Write",
    run: cloudflare.cloudflareWrite,
  },
  {
    name: "gateway-token",
    looks: "each gateway takes the gateway token (AI Gateway Run), asked for an alias that is not there",
    remedy: "give CLOUDFLARE_GATEWAY_TOKEN a token with AI Gateway Run",
    run: cloudflare.gatewayRun,
  },
  {
    name: "quota",
    looks: "the secrets store has room for the two aliases of a rotation",
    remedy: "run keyturn sweep, or delete secrets nobody needs; else rotations write in place",
    run: cloudflare.quota,
  },
  {
    name: "gateway",
    looks: "the slot's gateway is there",
    remedy: "correct the environment's gateway in the inventory, or make it in the dashboard",
    run: perSlot(cloudflare.gatewayExists),
  },
  {
    name: "gateway-authentication",
    looks: "the gateway asks its callers for a token",
    remedy: "switch on the gateway's authentication, and give its clients a token first",
    run: perSlot(cloudflare.gatewayAuthenticated),
  },
  {
    name: "gateway-store",
    looks: "the gateway has a secrets store",
    remedy: "choose the account's store in the gateway's settings",
    run: perSlot(cloudflare.gatewayHasStore),
  },
  {
    name: "byok-only",
    looks: "the gateway refuses rather than answer with keys that Cloudflare bills",
    remedy: "switch on byok_only in the gateway's settings",
    run: perSlot(cloudflare.byokOnly),
  },
  {
    name: "secret",
    looks: "the slot's secret is in the store, and active",
    remedy: "store the key under this alias in the dashboard, or correct the inventory",
    run: perSlot(cloudflare.secretThere),
  },
  {
    name: "provider-config",
    looks: "the gateway has a provider config for the slot's alias",
    remedy: "add the alias in the gateway's provider keys, or correct the inventory",
    run: perSlot(cloudflare.configThere),
  },
  {
    name: "fallback",
    looks: "another provider's key is stored beside the slot's, for clients to fall back to",
    remedy: "store a key of another provider in the gateway, and have clients ask it themselves: the gateway does not",
    run: cloudflare.fallback,
  },
  {
    name: "admin-keys",
    looks: "the provider's admin credential reads the slot's keys",
    remedy: "renew the admin credential, or give it the right to read and manage this project's keys",
    run: perSlot(keys.adminReadsKeys),
  },
  {
    name: "admin-usage",
    looks: "the provider's admin credential reads the usage of keys",
    remedy:
      "give the admin credential the right to read usage: without it only the grace ceiling ends the wait for idle",
    run: perSlot(keys.adminReadsUsage),
  },
  {
    name: "admin-write",
    looks: "the admin credential's right to make and revoke keys, which is unknown without a write",
    remedy: "compare its permissions in the provider's console: it must manage this project's keys",
    run: perSlot(keys.adminWrites),
  },
  {
    name: "held-key",
    looks: "which key the slot holds is known, and how",
    remedy: "find its id in the provider's console, and start the first rotation with --held-key",
    run: perSlot(keys.heldKeyKnown),
  },
  {
    name: "held-key-alive",
    looks: "the held key is alive at its provider",
    remedy: "rotate the slot now (keyturn rotate), with --held-key where the key is gone",
    run: perSlot(keys.heldKeyAlive),
  },
  {
    name: "left-over",
    looks: "no key that the slot's last run named lives on",
    remedy: "look at it with keyturn keys, find who uses it, and revoke it at the provider once nobody does",
    run: keys.leftOver,
  },
  {
    name: "life-left",
    looks: "the held key lives on for at least half of `every`",
    remedy: "rotate the slot before the key ends (keyturn rotate)",
    run: perSlot(keys.lifeLeft),
  },
  {
    name: "key-life",
    looks: "`keyLife` is at least twice `every`",
    remedy: "raise keyLife or lower every in the inventory's policy",
    run: perSlot(keys.keyLifeFits),
  },
  {
    name: "key-life-limit",
    looks: "what the organisation lets keys live, as far as a key of ours shows it",
    remedy: "compare the organisation's key policy in the provider's console with keyLife and every",
    run: perSlot(keys.lifeLimit),
  },
  {
    name: "one-key-one-slot",
    looks: "no key is in two slots",
    remedy: "rotate both slots: the first rotation leaves the shared key alive, the second revokes it",
    run: keys.oneKeyOneSlot,
  },
  {
    name: "dev-vars-mode",
    looks: "nobody but its owner may read `.dev.vars`",
    remedy: "chmod 600 .dev.vars",
    run: files.devVarsMode,
  },
  {
    name: "dev-vars-ignored",
    looks: "git ignores `.dev.vars`",
    remedy: "add .dev.vars to .gitignore",
    run: files.devVarsIgnored,
  },
  {
    name: "dev-vars-committed",
    looks: "`.dev.vars` is not in git, now or in its history",
    remedy: "renew every credential that was in it, then remove it from git (git rm --cached) and its history",
    run: files.devVarsCommitted,
  },
  {
    name: "keys-in-files",
    looks: "no key of a slot lies in `.dev.vars` or in a file that git tracks",
    remedy: "remove it there and run keyturn emergency for its slot: whoever has the file has the key",
    run: files.keysInFiles,
  },
  {
    name: "credentials-apart",
    looks: "the Cloudflare API token is apart from provider keys, and the gateway has a token of its own",
    remedy: "remove provider keys from .dev.vars: they belong into the secrets store alone",
    run: files.credentialsApart,
  },
];
