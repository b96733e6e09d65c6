/** One job: what it is, and what can be done to it. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useRef } from "react";
import { api, idempotencyKey, take } from "@/lib/api";
import { jobQuery } from "@/lib/queries";
import { isTerminal, type Job } from "@/lib/wire";

/** The job, read anew every two seconds while it is active; its events make that sooner. */
export function useJob(id: string) {
  return useQuery({
    ...jobQuery(id),
    refetchInterval: (query) => (query.state.data && isTerminal(query.state.data.status) ? false : 2_000),
  });
}

export function useCancel(id: string) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (): Promise<Job> => take(api.POST("/v1/jobs/{job_id}/cancel", { params: { path: { job_id: id } } })),
    onSuccess: (job) => client.setQueryData(["job", id], job),
    onSettled: () => client.invalidateQueries({ queryKey: ["job", id] }),
  });
}

export type Verb = "pause" | "resume" | "retry";

/** Pause, resume, or submit again; what comes back is the job, of a retry the new one. */
export function useVerb(id: string) {
  const client = useQueryClient();
  // A retry that is asked for again because its answer was lost makes no second job.
  const key = useRef("");
  return useMutation({
    mutationFn: (verb: Verb): Promise<Job> => {
      const path = { job_id: id };
      if (verb === "pause") return take(api.POST("/v1/jobs/{job_id}/pause", { params: { path } }));
      if (verb === "resume") return take(api.POST("/v1/jobs/{job_id}/resume", { params: { path } }));
      if (key.current === "") key.current = idempotencyKey();
      return take(
        api.POST("/v1/jobs/{job_id}/retry", { params: { path, header: { "Idempotency-Key": key.current } } }),
      );
    },
    onSuccess: (job) => {
      key.current = "";
      client.setQueryData(["job", job.id], job);
      return client.invalidateQueries({ queryKey: ["jobs"] });
    },
    onSettled: () => client.invalidateQueries({ queryKey: ["job", id] }),
  });
}

export function useDelete(id: string) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: () => take(api.DELETE("/v1/jobs/{job_id}", { params: { path: { job_id: id } } })),
    onSuccess: () => {
      client.removeQueries({ queryKey: ["job", id] });
      return client.invalidateQueries({ queryKey: ["jobs"] });
    },
  });
}

export function useArtifacts(id: string, finished: boolean) {
  return useQuery({
    queryKey: ["job", id, "artifacts", finished],
    queryFn: async () =>
      (await take(api.GET("/v1/jobs/{job_id}/artifacts", { params: { path: { job_id: id } } }))).data,
  });
}

export function artifactHref(id: string, name: string): string {
  return `/v1/jobs/${encodeURIComponent(id)}/artifacts/${encodeURIComponent(name)}`;
}
