/** One verb for many jobs. */
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useRef } from "react";
import { api, idempotencyKey, take } from "@/lib/api";
import type { BulkResult, BulkVerb } from "@/lib/wire";

export interface Bulk {
  verb: BulkVerb;
  ids: readonly string[];
}

export type BulkDone = Pick<BulkResult, "changed" | "refused">;

export function useBulk() {
  const client = useQueryClient();
  // The same wish, sent twice because an answer was lost, retries each job once.
  const sent = useRef({ wish: "", key: "" });
  return useMutation({
    mutationFn: async ({ verb, ids }: Bulk): Promise<BulkDone> => {
      const wish = JSON.stringify([verb, ids]);
      if (sent.current.wish !== wish) sent.current = { wish, key: idempotencyKey() };
      const done: BulkDone = { changed: [], refused: [] };
      let after: string | null = null;
      do {
        const part: BulkResult = await take(
          api.POST("/v1/jobs/bulk", {
            params: { header: { "Idempotency-Key": sent.current.key } },
            body: { verb, filter: { ids: [...ids] }, after },
          }),
        );
        done.changed.push(...part.changed);
        done.refused.push(...part.refused);
        after = part.has_more ? (part.next_cursor ?? null) : null;
      } while (after !== null);
      return done;
    },
    onSuccess: () => {
      sent.current = { wish: "", key: "" };
    },
    onSettled: async (_done, _error, { verb, ids }) => {
      if (verb === "delete") for (const id of ids) client.removeQueries({ queryKey: ["job", id] });
      else for (const id of ids) void client.invalidateQueries({ queryKey: ["job", id] });
      await client.invalidateQueries({ queryKey: ["jobs"] });
    },
  });
}
