/** What the fault suites rotate: a new provider or kind of rotation inherits them by a line here. */
export interface Subject {
  name: string;
  /** The workflow, and the slot it rotates. */
  workflow: string;
  slot: string;
  /** The slot's part of the inventory. */
  settings: Record<string, unknown>;
  /** The provider as the gateway calls it. */
  slug: string;
  /** Whether a key belongs to the slot's project. */
  owns(key: { provider: string; projectId: string }): boolean;
  /** What a client sends through the gateway. */
  clientRequest: { path: string; body: Record<string, unknown> };
}

export const subjects = {
  openai: {
    name: "a normal rotation of OpenAI",
    workflow: "normalRotation",
    slot: "production/openai",
    settings: { openai: { project: "proj_abc", serviceAccount: "svc_acct_1" } },
    slug: "openai",
    owns: ({ projectId }) => projectId === "proj_abc",
    clientRequest: {
      path: "/openai/chat/completions",
      body: { model: "gpt-5-mini", messages: [{ role: "user", content: "hello" }] },
    },
  },
} satisfies Record<string, Subject>;
