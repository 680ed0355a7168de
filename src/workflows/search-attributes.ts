import { defineSearchAttributeKey, SearchAttributeType } from "@temporalio/common";

/** What rotations can be searched by in the Temporal UI. The worker checks at start that the server knows them. */
export const searchAttributes = {
  slot: defineSearchAttributeKey("KeyturnSlot", SearchAttributeType.KEYWORD),
  provider: defineSearchAttributeKey("KeyturnProvider", SearchAttributeType.KEYWORD),
  kind: defineSearchAttributeKey("KeyturnKind", SearchAttributeType.KEYWORD),
  phase: defineSearchAttributeKey("KeyturnPhase", SearchAttributeType.KEYWORD),
} as const;
