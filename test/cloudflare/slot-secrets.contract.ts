import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { canReadAll, type Place, type SlotSecrets } from "../../src/cloudflare/slot-secrets.ts";
import type { Redacted } from "../../src/redacted.ts";
import { failureOf } from "./support.ts";

export interface DialectWorld {
  secrets: SlotSecrets;
  /** A place that is there from the start. */
  place: Place;
  /** Two values that a key has. */
  values: [Redacted, Redacted];
  /** What the gateway's place holds, as an onlooker knows it. */
  valueIn(place: Place): Promise<string | undefined>;
  stop(): Promise<void>;
}

/** What each dialect of Cloudflare promises of the places keys are served from: the words of slot-secrets.ts. */
export function slotSecretsContract(name: string, start: () => Promise<DialectWorld>): void {
  describe(`the dialect ${name} keeps the promises of SlotSecrets`, () => {
    let world: DialectWorld;
    beforeEach(async () => {
      world = await start();
    });
    afterEach(async () => {
      await world.stop();
    });

    /** Places may show with a delay, and an alias may need more than one attempt. */
    const becomes = <T>(check: () => Promise<T>): Promise<T> => vi.waitFor(check, { timeout: 10_000, interval: 20 });
    const elsewhere = (): Place => ({ ...world.place, alias: "kt-0a1b2c3d-new" });
    const comment = "keyturn/1 made up";

    test("says how many more secrets fit", async () => {
      const { authenticated, secretsLeft } = await world.secrets.storeOf(world.place.gateway);
      expect(authenticated).toBe(true);
      expect(secretsLeft).toBeGreaterThanOrEqual(0);
    });

    test("writes a value, also twice, and keeps the comment where it keeps marks", async () => {
      const { secrets, place, values } = world;
      for (let times = 0; times < 2; times += 1) await secrets.write(place, { value: values[0], comment });
      await becomes(async () => {
        const held = await secrets.read(place);
        expect(held.status).toBe("active");
        expect(held.comment).toBe(secrets.keepsMarks ? comment : undefined);
        expect(JSON.stringify(held)).not.toContain(values[0].reveal());
        expect(await world.valueIn(place)).toBe(values[0].reveal());
      });
    });

    test("where it can read many places at once, tells of each what reading it alone tells", async ({ skip }) => {
      const { secrets, place, values } = world;
      if (!canReadAll(secrets)) return skip("reads places one by one");
      await secrets.write(place, { value: values[0], comment });
      const gone: Place = { ...place, gateway: "no-such-gateway" };
      await becomes(async () => {
        const all = await secrets.readAll([elsewhere(), place, gone, place]);
        const held = await secrets.read(place);
        expect(held.comment).toBe(comment);
        expect(all).toEqual([undefined, held, undefined, held]);
      });
    });

    test("looks at a place by its secret, and finds nothing where none is", async () => {
      const { secrets, place, values } = world;
      await secrets.write(place, { value: values[0], comment });
      await becomes(async () => {
        const held = await secrets.read(place);
        expect(held.comment).toBe(secrets.keepsMarks ? comment : undefined);
        expect(await secrets.look(place)).toEqual(held);
        expect(await secrets.look(place, held)).toEqual(held);
      });
      expect(await secrets.look(elsewhere())).toBeUndefined();
      expect(await secrets.look({ ...place, gateway: "no-such-gateway" })).toBeUndefined();
    });

    test("tells that a place is not there, and that it cannot be written", async () => {
      expect((await failureOf(world.secrets.read(elsewhere()))).type).toBe("SlotMissing");
      const write = world.secrets.write(elsewhere(), { value: world.values[0], comment });
      expect((await failureOf(write)).retried).toBe(false);
    });

    test("makes, copies and removes places, each also twice, or has no room for any", async () => {
      const { secrets, place, values } = world;
      const copy: Place = { ...place, alias: "kt-0a1b2c3d-prev" };
      const { secretsLeft } = await secrets.storeOf(place.gateway);
      await secrets.write(place, { value: values[0], comment });
      if (secretsLeft === 0) {
        expect((await failureOf(secrets.make(elsewhere(), { value: values[1], comment }))).retried).toBe(false);
        expect((await failureOf(secrets.makeCopy(copy, place, comment))).retried).toBe(false);
      } else {
        for (let times = 0; times < 2; times += 1) {
          await becomes(() => secrets.make(elsewhere(), { value: values[1], comment }));
          await becomes(() => secrets.makeCopy(copy, place, comment));
        }
        await becomes(async () => expect(await world.valueIn(elsewhere())).toBe(values[1].reveal()));
        await becomes(async () => expect(await world.valueIn(copy)).toBe(values[0].reveal()));
      }
      for (const made of [elsewhere(), copy]) {
        for (let times = 0; times < 2; times += 1) await secrets.remove(made);
        await becomes(async () => expect((await failureOf(secrets.read(made))).type).toBe("SlotMissing"));
      }
      expect(await world.valueIn(place)).toBe(values[0].reveal());
    });
  });
}
