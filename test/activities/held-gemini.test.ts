import { describe, expect, test } from "vitest";

import { formatMark } from "../../src/domain/mark.ts";
import { Redacted } from "../../src/redacted.ts";
import { type Stage, startStage, type StageOptions } from "../support/activities.ts";

/** Google shows a key's value again, so that which key a Gemini slot holds is known without anybody saying it. */

const gemini = "production/gemini";
const own = "gw@my-project.iam.gserviceaccount.com";
const slots = { [gemini]: { google: { project: "my-project", serviceAccount: own } } };
const withGemini = (options: StageOptions = {}): Promise<Stage> => startStage({ slots, ...options });
const inspect = (stage: Stage, heldKeyId?: string) =>
  stage.repeat("inspectSlot", { slot: gemini, ...(heldKeyId === undefined ? {} : { heldKeyId }) });

async function google(stage: Stage, method: string, path: string, body?: unknown): Promise<Record<string, unknown>> {
  const response = await fetch(`${stage.env["GOOGLE_APIKEYS_BASE_URL"]}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${stage.env["GOOGLE_OAUTH_ACCESS_TOKEN"]}`,
      "content-type": "application/json",
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  return (await response.json()) as Record<string, unknown>;
}

const keysPath = "/v2/projects/my-project/locations/global/keys";

/** A key somebody made in the console: of the slot's account, of another one, or of none. */
async function keyOf(stage: Stage, id: string, account?: string): Promise<string> {
  await google(stage, "POST", `${keysPath}?keyId=${id}`, {
    displayName: "made by hand",
    restrictions: { apiTargets: [{ service: "generativelanguage.googleapis.com" }] },
    ...(account === undefined ? {} : { serviceAccountEmail: account }),
  });
  await expect
    .poll(() =>
      google(stage, "GET", `${keysPath}/${id}`).then(
        () => true,
        () => false,
      ),
    )
    .toBe(true);
  return String((await google(stage, "GET", `${keysPath}/${id}/keyString`))["keyString"]);
}

async function edit(stage: Stage, change: { value?: string; comment?: string }): Promise<void> {
  const path = `/secrets_store/stores/${stage.seed["storeId"]}/secrets`;
  const { result } = (await stage.cloudflare("GET", `${path}?per_page=100`)) as {
    result: { id: string; name: string }[];
  };
  const secret = result.find(({ name }) => name === "github-ai-agent-prod_google-ai-studio_default");
  await stage.cloudflare("PATCH", `${path}/${secret?.id}`, change);
}

test("an emergency says how the key ends that it means, which no list of Google's shows", async () => {
  const stage = await withGemini();
  const ending = (await stage.valueOf("gemini-prod-1")).slice(-4);
  const plan = await stage.run("planEmergency", { slot: gemini });
  expect(plan.keys).toMatchObject([{ id: "gemini-prod-1", ending }]);
  const found = await stage.run("findCompromised", { slot: gemini, keyIds: ["gemini-prod-1"] });
  expect(found).toMatchObject([{ id: "gemini-prod-1", ending }]);
});

describe("inspectSlot knows which key a Gemini slot holds", () => {
  test("by the value that fits the gateway's preview, among keys of many accounts", async () => {
    const stage = await withGemini();
    await keyOf(stage, "aaa-standard");
    await keyOf(stage, "zzz-own", own);
    expect((await inspect(stage)).held).toMatchObject({ id: "gemini-prod-1", how: "value" });
  });

  test("by the value also after somebody's edit, mark or no mark", async () => {
    const stage = await withGemini();
    const value = await keyOf(stage, "by-hand", own);
    await edit(stage, { value, comment: "pasted by hand" });
    expect((await inspect(stage)).held).toMatchObject({ id: "by-hand", how: "value" });
  });

  test("by the value although a mark was left in place, a moment after it was written", async () => {
    const stage = await withGemini();
    const mark = { keyId: "gemini-prod-1", rotationId: "r", fingerprint: "0123456789abcdef", at: new Date() };
    const value = await keyOf(stage, "by-hand", own);
    await edit(stage, { value, comment: formatMark(mark) });
    const { held, warnings } = await inspect(stage);
    expect(held).toMatchObject({ id: "by-hand", how: "value" });
    expect(warnings).toContainEqual(expect.stringContaining("the mark is not believed"));
  });

  test("by its mark after an edit of something else, where the value and a preview since the mark agree with it", async () => {
    const stage = await withGemini();
    const value = await keyOf(stage, "ours", own);
    const fingerprint = new Redacted(value).fingerprint();
    // The mark is older than what two clocks may differ by: somebody edited the secret since, and not its value.
    const at = new Date(Date.now() - 3_600_000);
    await edit(stage, { value });
    await stage.options({ patchRefreshesPreview: false });
    await edit(stage, { comment: formatMark({ keyId: "ours", rotationId: "r", fingerprint, at }) });
    expect((await inspect(stage)).held).toMatchObject({ id: "ours", how: "value" });
  });

  test("not by a preview from before the value: then it asks, and names the slot's own keys first", async () => {
    const stage = await withGemini({ sandbox: { patchRefreshesPreview: false } });
    for (const id of ["aaa-standard", "bbb-standard"]) await keyOf(stage, id);
    const value = await keyOf(stage, "zzz-own", own);
    await edit(stage, { value, comment: "pasted by hand" });
    await expect(inspect(stage)).rejects.toMatchObject({
      type: "InvalidInput",
      message: expect.stringMatching(
        /start with --held-key and one of: (gemini-prod-1|zzz-own) .*(gemini-prod-1|zzz-own) .*aaa-standard .*bbb-standard/,
      ) as string,
    });
    expect((await inspect(stage, "zzz-own")).held).toMatchObject({ id: "zzz-own", how: "operator" });
  });

  test("and where the credential may not read values, from the operator", async () => {
    const stage = await withGemini();
    await stage.fault({ service: "apikeys", method: "GET", path: "/keyString", mode: "status", status: 403 });
    await expect(inspect(stage)).rejects.toMatchObject({ type: "InvalidInput" });
    expect((await inspect(stage, "gemini-prod-1")).held).toMatchObject({ id: "gemini-prod-1", how: "operator" });
  });
});

describe("a key of another service account", () => {
  const other = "other@my-project.iam.gserviceaccount.com";

  test("is refused, whoever says it, and what to correct is said", async () => {
    const stage = await withGemini({
      slots: { [gemini]: { google: { project: "my-project", serviceAccount: other } } },
    });
    for (const said of [undefined, "gemini-prod-1"]) {
      await expect(inspect(stage, said)).rejects.toMatchObject({
        type: "InvalidInput",
        message: expect.stringMatching(/belongs to gw@my-project.*correct the slot's service account/) as string,
      });
    }
  });
});

test("who holds a Gemini key is known by its value", async () => {
  const stage = await withGemini();
  await keyOf(stage, "unused", own);
  const answers = await stage.run("lookAtHolders", { slot: gemini, keyIds: ["gemini-prod-1", "unused"] });
  expect(answers).toEqual([
    { keyId: "gemini-prod-1", yes: [gemini], unknown: [] },
    { keyId: "unused", yes: [], unknown: [] },
  ]);
  expect(JSON.stringify(answers)).not.toContain("AQ.");
});
