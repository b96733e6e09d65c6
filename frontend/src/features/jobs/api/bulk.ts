/** One verb for many jobs. */
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useRef } from "react";
import { api, idempotencyKey, take } from "@/lib/api";
import type { BulkResult, BulkVerb, JobFilter } from "@/lib/wire";
import { GROUPS } from "./jobs";

export interface Bulk {
  verb: BulkVerb;
  /** Which jobs: by id, or the conditions of a list; without any, every job that there is. */
  filter: JobFilter;
}

/** The service wants a condition; every job has a status. */
const EVERY_JOB: JobFilter = { status: Object.values(GROUPS).flat() };

export type BulkDone = Pick<BulkResult, "changed" | "refused">;

export function useBulk() {
  const client = useQueryClient();
  // The same wish, sent twice because an answer was lost, retries each job once.
  const sent = useRef({ wish: "", key: "" });
  return useMutation({
    mutationFn: async ({ verb, filter }: Bulk): Promise<BulkDone> => {
      const wish = JSON.stringify([verb, filter]);
      if (sent.current.wish !== wish) sent.current = { wish, key: idempotencyKey() };
      const done: BulkDone = { changed: [], refused: [] };
      let after: string | null = null;
      do {
        const part: BulkResult = await take(
          api.POST("/v1/jobs/bulk", {
            params: { header: { "Idempotency-Key": sent.current.key } },
            body: { verb, filter: Object.keys(filter).length > 0 ? filter : EVERY_JOB, after },
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
    onSettled: async (done, _error, { verb }) => {
      if (verb === "delete") for (const id of done?.changed ?? []) client.removeQueries({ queryKey: ["job", id] });
      void client.invalidateQueries({ queryKey: ["job"] });
      await client.invalidateQueries({ queryKey: ["jobs"] });
    },
  });
}
