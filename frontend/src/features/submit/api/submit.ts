/** Planning and submitting a job. */
import { keepPreviousData, queryOptions, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useRef } from "react";
import { api, idempotencyKey, take } from "@/lib/api";
import { useSettled } from "@/lib/hooks";
import { mergePatch } from "@/lib/mergePatch";
import { ProblemError } from "@/lib/problem";
import type { Job, JsonObject, Plan } from "@/lib/wire";

/** The optimizer's plug-ins with their JSON schemas. */
export const modulesQuery = queryOptions({
  queryKey: ["optimizer-modules"],
  staleTime: Infinity,
  queryFn: async () => (await take(api.GET("/v1/optimizer_modules"))).data,
});

const SETTLE = 350;
type Body = NonNullable<Parameters<typeof api.POST<"/v1/jobs", { body: never }>>[1]>["body"];

/** The draft is JSON that the api itself judges; nothing is checked twice here. */
function body(draft: JsonObject): Body {
  return draft as unknown as Body;
}

export interface PlanState {
  plan: Plan | undefined;
  /** What is wrong with the draft, or why there is no plan. */
  error: unknown;
  /** The plan belongs to an earlier draft, or is still being computed. */
  stale: boolean;
  slow: boolean;
}

/** The plan of a draft, once the draft has been left alone for a moment. */
export function usePlan(draft: JsonObject | null): PlanState {
  const settled = useSettled(JSON.stringify(draft), SETTLE);
  const query = useQuery({
    queryKey: ["plan", settled],
    enabled: draft !== null,
    retry: false,
    staleTime: 60_000,
    gcTime: 60_000,
    placeholderData: keepPreviousData,
    queryFn: ({ signal }) =>
      take(api.POST("/v1/jobs/validate", { signal, body: body(JSON.parse(settled) as JsonObject) })),
    // Calibrating the noise can take longer than a request may: ask again when the api says so.
    refetchInterval: ({ state }) =>
      state.data?.object === "pending_plan" ? Math.max(1, state.data.retry_after) * 1000 : false,
  });
  const changed = settled !== JSON.stringify(draft);
  const pending = query.data?.object === "pending_plan";
  return {
    plan: query.data?.object === "plan" ? query.data : undefined,
    error: changed || query.isFetching ? null : query.error,
    stale: changed || query.isFetching || query.isPlaceholderData || pending,
    slow: pending,
  };
}

/** Submit a draft: a new job or, with a `parent`, a clone of that one, which keeps the link to it. */
export function useSubmit(parent: Job | undefined) {
  const client = useQueryClient();
  // The same draft, sent twice because an answer was lost, is one job.
  const sent = useRef({ draft: "", key: "" });
  return useMutation({
    mutationFn: (draft: JsonObject): Promise<Job> => {
      const text = JSON.stringify(draft);
      if (sent.current.draft !== text) sent.current = { draft: text, key: idempotencyKey() };
      const header = { "Idempotency-Key": sent.current.key };
      if (!parent) return take(api.POST("/v1/jobs", { params: { header }, body: body(draft) }));
      const changes = mergePatch(parent.spec as unknown as JsonObject, draft);
      return take(
        api.POST("/v1/jobs/{job_id}/clone", {
          params: { path: { job_id: parent.id }, header },
          body: { changes },
        }),
      );
    },
    onSuccess: (job) => {
      sent.current = { draft: "", key: "" };
      client.setQueryData(["job", job.id], job);
      return client.invalidateQueries({ queryKey: ["jobs"] });
    },
  });
}

/** The sentence about each wrong field, by JSON pointer. */
export function problemsByPointer(error: unknown): ReadonlyMap<string, string> {
  if (!(error instanceof ProblemError)) return new Map();
  return new Map(error.fields.map((field) => [field.pointer, field.detail]));
}
