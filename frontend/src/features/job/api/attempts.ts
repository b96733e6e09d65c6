/** How a job was run, and what it can go on from. */
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { api, take } from "@/lib/api";
import { isTerminal, type Job } from "@/lib/wire";

const LIMIT = 1000;

/** Read anew with the job's status and attempt, and now and then while it runs. */
function upkeep(job: Job) {
  return {
    placeholderData: keepPreviousData,
    refetchInterval: isTerminal(job.status) ? (false as const) : 5_000,
  };
}

export function useAttempts(job: Job) {
  return useQuery({
    ...upkeep(job),
    queryKey: ["job", job.id, "attempts", job.attempt, job.status],
    queryFn: async () =>
      (
        await take(
          api.GET("/v1/jobs/{job_id}/attempts", { params: { path: { job_id: job.id }, query: { limit: LIMIT } } }),
        )
      ).data,
  });
}

export function useCheckpoints(job: Job) {
  return useQuery({
    ...upkeep(job),
    queryKey: ["job", job.id, "checkpoints", job.checkpoint_step, job.status],
    queryFn: async () =>
      (await take(api.GET("/v1/jobs/{job_id}/checkpoints", { params: { path: { job_id: job.id } } }))).data,
  });
}

export function checkpointHref(id: string, step: number): string {
  return `/v1/jobs/${encodeURIComponent(id)}/checkpoints/${step}`;
}
