import { type Subject as OfProvider, subjects as providers } from "../support/providers.ts";

/** What the fault suites rotate: each kind of rotation of each provider. A new one inherits them by a line here. */
export interface Subject {
  name: string;
  of: OfProvider;
  workflow: "normalRotation" | "emergencyRotation";
  /** What the start says beside the slot. */
  says: Record<string, unknown>;
  /** The start names the slot's key as the compromised one, and it is dead before another is made: clients are refused. */
  cutsFirst: boolean;
  /** Another slot that serves the same key when a run begins. */
  sharedWith?: string;
}

const names = { openai: "OpenAI", gemini: "Gemini", anthropic: "Anthropic" };

const kinds: Omit<Subject, "of">[] = [
  { name: "a normal rotation", workflow: "normalRotation", says: {}, cutsFirst: false },
  {
    name: "a swap-first emergency",
    workflow: "emergencyRotation",
    says: { strategy: "swap-first" },
    cutsFirst: false,
  },
  { name: "a cut-first emergency", workflow: "emergencyRotation", says: { strategy: "cut-first" }, cutsFirst: true },
];

const [openai] = providers;
/** One key that two slots serve: the other is moved off it before it is cut. */
const shared: Subject[] =
  openai === undefined
    ? []
    : [
        {
          name: "a swap-first emergency of OpenAI, in two slots",
          of: openai,
          workflow: "emergencyRotation",
          says: { strategy: "swap-first" },
          cutsFirst: false,
          sharedWith: `${openai.slot}:batch`,
        },
      ];

/** All of them, or those whose name fits KEYTURN_FAULTS_SUBJECTS, a regular expression. */
export const subjects: Subject[] = kinds
  .flatMap((kind) => providers.map((of): Subject => ({ ...kind, of, name: `${kind.name} of ${names[of.provider]}` })))
  .concat(shared)
  .filter(({ name }) => new RegExp(process.env["KEYTURN_FAULTS_SUBJECTS"] ?? "", "i").test(name));

/** Rotates without any trouble of its own: what a test takes that is about something else. */
export const plain = { ...kinds[0], of: providers[0], name: "a normal rotation of OpenAI" } as Subject;
