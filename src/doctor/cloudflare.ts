import { classifyAnswer } from "../domain/answer.ts";
import { RotationFailure } from "../domain/failure.ts";
import { gatewaySlugs, secretName } from "../domain/slot.ts";
import { type Found, ofFailure, ofMissing, ok, orMissing, problem, unknown, warning } from "./finding.ts";
import type { Ground, SlotGround } from "./ground.ts";

/** What can be asked of Cloudflare without writing. */

const untold = (about: string, what: string): Found =>
  unknown(about, `the dialect guide does not tell ${what}`, "look at the proxy's own settings");

/** Reading stores is what only Secrets Store Read or Write allows. */
export async function secretsStoreRead({ accounts }: Ground): Promise<Found[]> {
  return each(accounts, async (account) => {
    const about = `account ${account.id}`;
    await account.stores();
    return ok(about, "the Cloudflare API token reads the secrets store");
  });
}

/** A gateway that is not there is still an answer to a token that may read. */
export async function gatewayRead({ accounts }: Ground): Promise<Found[]> {
  return each(accounts, async (account) => {
    const about = `account ${account.id}`;
    try {
      await account.gateway(account.gateways[0] ?? "default");
    } catch (error) {
      if (!(error instanceof RotationFailure) || error.type !== "SlotMissing") throw error;
    }
    return ok(about, "the Cloudflare API token reads gateways");
  });
}

/** No call tells a token's rights to the token itself. */
export async function cloudflareWrite({ accounts }: Ground): Promise<Found[]> {
  return accounts.map(({ id }) =>
    unknown(
      `account ${id}`,
      "whether the Cloudflare API token may write secrets and provider configs only a write shows, and none is made here",
    ),
  );
}

/** Asks each gateway for an alias that is not there: a token that may run gets the gateway's word on that, at no cost. */
export async function gatewayRun({ slots }: Ground): Promise<Found[]> {
  const byGateway = new Map(slots.map((slot) => [`${slot.slot.account} ${slot.slot.gateway}`, slot]));
  const found: Found[] = [];
  for (const slot of byGateway.values()) found.push(await runsOn(slot));
  return found;
}

async function runsOn({ access, tells, gateway }: SlotGround): Promise<Found> {
  const about = `gateway ${access.place.gateway}`;
  try {
    if (tells && (await orMissing(gateway))?.authentication === false) {
      return unknown(about, "whether the gateway token is good is unknown: the gateway answers anybody");
    }
    const answer = await access.probe({
      ...access.place,
      alias: "kt-doctor",
      path: "native",
      model: access.probeModel,
      rotationId: "doctor",
    });
    const verdict = classifyAnswer(access.place.provider, answer);
    switch (verdict) {
      case "gateway token refused":
        return problem(about, "the gateway refuses our token");
      case "alias unknown":
      case "no key sent":
      case "not the stored key":
        return ok(about, "the gateway takes our token (AI Gateway Run)");
      case "cached":
      case "key refused":
      case "rate limited":
      case "unavailable":
      case "unclear":
      case "works":
      case "works, no quota":
      case "works, not allowed":
        return unknown(about, `the gateway's answer to our token tells nothing: ${verdict} (status ${answer.status})`);
    }
  } catch (error) {
    return ofFailure(about, error);
  }
}

/** A rotation wants two secrets of its own beside the slot's. */
export async function quota({ accounts, slots }: Ground): Promise<Found[]> {
  const must = slots.some(({ slot }) => slot.policy.aliases === "always");
  return each(accounts, async (account) => {
    const about = `account ${account.id}`;
    const { quota: most, usage } = await account.quota();
    const left = most - usage;
    if (left >= 2) return ok(about, `the secrets store has room for ${left} more secrets, and a rotation needs 2`);
    const message = `the secrets store has room for ${Math.max(0, left)} more secrets, and a rotation needs 2 for its aliases`;
    return must ? problem(about, message) : warning(about, `${message}: it would write in place`);
  });
}

export async function gatewayExists({ name, access, tells, gateway }: SlotGround): Promise<Found> {
  if (!tells) return untold(name, "whether the gateway is there");
  await gateway();
  return ok(name, `gateway ${access.place.gateway} is there`);
}

export async function gatewayAuthenticated({ name, access, tells, gateway }: SlotGround): Promise<Found> {
  if (!tells) return untold(name, "whether the gateway asks for a token");
  const found = await orMissing(gateway);
  if (found === undefined) return ofMissing(name, "the gateway's authentication");
  return found.authentication
    ? ok(name, `gateway ${access.place.gateway} asks for a token`)
    : problem(name, `gateway ${access.place.gateway} answers anybody, on the keys it holds`);
}

export async function gatewayHasStore({ name, access, tells, gateway }: SlotGround): Promise<Found> {
  if (!tells) return untold(name, "the gateway's store");
  const found = await orMissing(gateway);
  if (found === undefined) return ofMissing(name, "the gateway's store");
  return found.storeId === undefined
    ? problem(name, `gateway ${access.place.gateway} has no secrets store, so it serves no stored key`)
    : ok(name, `gateway ${access.place.gateway} reads store ${found.storeId}`);
}

export async function byokOnly({ name, access, tells, gateway }: SlotGround): Promise<Found> {
  if (!tells) return untold(name, "whether the gateway falls back to keys of Cloudflare's");
  const found = await orMissing(gateway);
  if (found === undefined) return ofMissing(name, "the gateway's byok_only");
  return found.byokOnly
    ? ok(name, `gateway ${access.place.gateway} serves stored keys only`)
    : warning(
        name,
        `gateway ${access.place.gateway} may answer with keys that Cloudflare bills, where the stored one fails`,
      );
}

export async function secretThere({ name, access, tells, gateway, secret }: SlotGround): Promise<Found> {
  if (!tells) return untold(name, "whether the secret is there");
  const { gateway: id, provider, alias } = access.place;
  const wanted = secretName(id, provider, alias);
  if ((await orMissing(gateway))?.storeId === undefined) return ofMissing(name, `secret ${wanted}`);
  const found = await secret();
  if (found === undefined) return problem(name, `secret ${wanted} is not in the store`);
  return found.status === "active"
    ? ok(name, `secret ${wanted} is there and active`)
    : warning(name, `secret ${wanted} is ${found.status}, not active`, "look again in a minute, then in the dashboard");
}

export async function configThere({ name, access, tells, gateway, config }: SlotGround): Promise<Found> {
  if (!tells) return untold(name, "whether the alias is there");
  if ((await orMissing(gateway)) === undefined) return ofMissing(name, `the provider config of ${name}`);
  const { alias } = access.place;
  return (await config()) === undefined
    ? problem(name, `gateway ${access.place.gateway} has no provider config for alias ${alias}`)
    : ok(name, `the provider config for alias ${alias} is there`);
}

/** The gateway itself never falls back; a client can, where another provider is stored beside the slot's. */
export async function fallback({ slots, everySlot }: Ground): Promise<Found[]> {
  return Promise.all(
    slots.map((slot) => fallbackOf(slot, everySlot).catch((error: unknown) => ofFailure(slot.name, error))),
  );
}

async function fallbackOf(
  { name, slot, access, tells, gateway, configs }: SlotGround,
  everySlot: SlotGround[],
): Promise<Found> {
  const { provider } = access.place;
  const there = new Set<string>();
  for (const other of everySlot) {
    if (other.slot.account === slot.account && other.slot.gateway === slot.gateway)
      there.add(other.access.place.provider);
  }
  if (tells) {
    if ((await orMissing(gateway)) === undefined) return ofMissing(name, "what clients can fall back to");
    // What is stored counts, not what the inventory says.
    there.clear();
    for (const { providerSlug } of await configs()) there.add(providerSlug);
  }
  const others = [...there].filter((one) => one !== (tells ? gatewaySlugs[provider] : provider));
  if (others.length > 0) return ok(name, `clients can fall back to ${others.join(", ")} in gateway ${slot.gateway}`);
  return tells
    ? warning(
        name,
        `gateway ${slot.gateway} stores no other provider than ${provider}: when its key fails, nothing is left to ask`,
      )
    : unknown(
        name,
        `the inventory has no other provider in gateway ${slot.gateway}, and the dialect guide does not tell`,
      );
}

async function each<Subject extends { id: string }>(
  subjects: Subject[],
  look: (subject: Subject) => Promise<Found>,
): Promise<Found[]> {
  const found: Found[] = [];
  for (const subject of subjects) {
    found.push(await look(subject).catch((error: unknown) => ofFailure(`account ${subject.id}`, error)));
  }
  return found;
}
