import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { sandboxSlots } from "../../src/cli/dev-inventory.ts";
import { managed } from "../../src/activities/managed.ts";
import { parseInventory, readCredentials } from "../../src/config.ts";
import { canIssue } from "../../src/providers/provider.ts";
import { createSealer } from "../../src/sealing.ts";
import { type Parts, plugEndings, plugTogether } from "../../src/worker.ts";
import { type Progress, slotWorkflowId } from "../../src/domain/rotation.ts";
import type { ProviderName } from "../../src/domain/slot.ts";
import { keyturn, type Ran } from "../cli/run.ts";
import type { WithEnd } from "./providers-at.ts";
import type { World } from "./world.ts";

/** What tests that run over all three providers have to know of each. */

/** The inventory's slots of all three providers, as the sandbox serves them. */
export const allSlots = sandboxSlots;

export interface Subject {
  provider: ProviderName;
  slot: string;
  /** The key that production's slot holds at the start. */
  heldKey: string;
  /** What a start has to say beside the slot: Google shows nothing of a value, so a first rotation is told the held key. */
  told: { heldKeyId?: string };
  /** Whether a key of the record is of production's project or workspace. */
  owns(key: { projectId: string; workspaceId?: string }): boolean;
  /** Whether a person makes its keys, and hands them in. */
  madeByHand: boolean;
  /** Statuses with which it refuses a key. */
  refusals: number[];
  /** Whether the provider's usage data tells models. */
  tellsModels: boolean;
  /** A request straight to the provider. */
  direct(env: Record<string, string>, value: string): { url: string; headers: Record<string, string>; body: unknown };
}

/** A model no client of the tests asks for. */
export const thiefModels: Record<ProviderName, string> = {
  openai: "gpt-5",
  gemini: "gemini-2.5-pro",
  anthropic: "claude-opus-4-6",
};

const hello = [{ role: "user", content: "mine now" }];

export const subjects: Subject[] = [
  {
    provider: "openai",
    slot: "production/openai",
    heldKey: "key_prod_1",
    told: {},
    tellsModels: true,
    owns: ({ projectId }) => projectId === "proj_abc",
    madeByHand: false,
    refusals: [401],
    direct: (env, value) => ({
      url: `${env["OPENAI_BASE_URL"]}/chat/completions`,
      headers: { authorization: `Bearer ${value}` },
      body: { model: thiefModels.openai, messages: hello },
    }),
  },
  {
    provider: "gemini",
    slot: "production/gemini",
    heldKey: "gemini-prod-1",
    told: { heldKeyId: "gemini-prod-1" },
    tellsModels: false,
    owns: ({ projectId }) => projectId === "my-project",
    madeByHand: false,
    refusals: [400, 401, 403],
    direct: (env, value) => ({
      url: `${env["GEMINI_BASE_URL"]}/v1beta/models/${thiefModels.gemini}:generateContent`,
      headers: { "x-goog-api-key": value },
      body: { contents: [{ role: "user", parts: [{ text: "mine now" }] }] },
    }),
  },
  {
    provider: "anthropic",
    slot: "production/anthropic",
    heldKey: "apikey_prod_1",
    told: {},
    tellsModels: true,
    owns: ({ workspaceId }) => workspaceId === "wrkspc_1",
    madeByHand: true,
    refusals: [401],
    direct: (env, value) => ({
      url: `${env["ANTHROPIC_BASE_URL"]}/v1/messages`,
      headers: { "x-api-key": value, "anthropic-version": "2023-06-01" },
      body: { model: thiefModels.anthropic, max_tokens: 16, messages: hello },
    }),
  },
];

/** The ids of the provider's live keys in production. */
export async function liveKeys(world: World, { owns }: Subject): Promise<string[]> {
  const { keys } = await world.record();
  return keys.filter((key) => owns(key) && (key.state === "active" || key.state === "disabled")).map(({ id }) => id);
}

export async function valueOf(world: World, id: string): Promise<string> {
  const { values } = (await world.ask("/values")) as { values: { id: string; value: string }[] };
  return values.find((key) => key.id === id)?.value ?? "";
}

/** Somebody who has a key and does not come through the gateway; returns how many of the requests were served. */
export async function steal(world: World, { direct }: Subject, value: string, times: number): Promise<number> {
  const { url, headers, body } = direct(world.env, value);
  const statuses = await Promise.all(
    Array.from({ length: times }, async () => {
      const answer = await fetch(url, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body: JSON.stringify(body),
      });
      await answer.text();
      return answer.status;
    }),
  );
  return statuses.filter((status) => status === 200).length;
}

/** A person makes a key in Anthropic's Console. */
export async function makeAnthropicKey(
  world: Pick<World, "ask">,
  given: { name: string; workspaceId?: string; unscoped?: true; expiresInSeconds?: number },
): Promise<{ id: string; value: string }> {
  return (await world.ask("/anthropic/keys", given)) as { id: string; value: string };
}

/** The provider as a person with the admin credential has it, who makes and revokes keys by hand. */
export async function handsOf(world: World, { slot }: Subject): Promise<WithEnd> {
  const inventory = parseInventory(world.inventoryText, "keyturn.yaml", world.env);
  const none = (): never => {
    throw new Error("hands ask no run");
  };
  const parts: Parts = {
    inventory,
    credentials: readCredentials(world.env),
    sealing: { ...createSealer(inventory.sealing), open: none },
    runs: { find: none, update: none, lastClosed: none, lastInstalledKey: none, openRotations: none },
  };
  const ending = plugEndings(parts)(slot);
  if (ending === undefined) throw new Error(`nobody ends keys of ${slot}`);
  return { ...managed(plugTogether(parts).slotAccess(slot)), ...ending };
}

/** A key that a person made in the provider's console. */
export async function makeByHand(world: World, subject: Subject, name: string): Promise<{ id: string; value: string }> {
  if (subject.provider === "anthropic") return makeAnthropicKey(world, { name });
  const hands = await handsOf(world, subject);
  if (!canIssue(hands)) throw new Error(`${subject.provider} makes no keys`);
  const { key, value } = await hands.issueKey({ name, lifeMs: 30 * 86_400_000 });
  return { id: key.id, value: value.reveal() };
}

export async function progressOf(world: World, slot: string): Promise<Progress> {
  return world.client.workflow.getHandle(slotWorkflowId(slot)).query<Progress>("progress");
}

/** Waits until the slot's rotation asks for a key. */
export async function untilKeyIsWanted(world: World, slot: string): Promise<Progress> {
  await world.until(async () => (await progressOf(world, slot)).waiting?.asks?.kind === "key");
  return progressOf(world, slot);
}

/** The name of the key that the rotation's instructions ask for. */
export function wantedName({ waiting }: Progress): string {
  return waiting?.asks?.kind === "key" ? waiting.asks.name : "";
}

/** Types commands of the command line for a world, with what is given on standard input. */
export interface Typist {
  (args: string[], input?: string): Promise<Ran>;
  /** Removes what it typed in. */
  leave(): Promise<void>;
}

export async function typist(world: World, temporal: { address: string; namespace: string }): Promise<Typist> {
  const directory = await mkdtemp(join(tmpdir(), "keyturn-typist-"));
  const config = join(directory, "keyturn.yaml");
  await writeFile(config, world.inventoryText);
  const env = {
    ...world.env,
    KEYTURN_CONFIG: config,
    TEMPORAL_ADDRESS: temporal.address,
    TEMPORAL_NAMESPACE: temporal.namespace,
  };
  const type = async (args: string[], input?: string): Promise<Ran> => keyturn(args, env, directory, input);
  return Object.assign(type, { leave: async () => rm(directory, { recursive: true, force: true }) });
}

/** Where somebody must hand a key in, hands one in by `keyturn submit-key`; else does nothing. */
export async function handInWhereWanted(
  world: World,
  { madeByHand, slot }: Subject,
  type: Typist,
): Promise<Ran | undefined> {
  if (!madeByHand) return undefined;
  const { value } = await makeAnthropicKey(world, { name: wantedName(await untilKeyIsWanted(world, slot)) });
  return type(["submit-key", slot, "--json"], value);
}
