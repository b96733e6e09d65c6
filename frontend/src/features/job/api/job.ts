/** One job: what it is, and what can be done to it. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, take } from "@/lib/api";
import { jobQuery } from "@/lib/queries";
import { isTerminal, type Job, type LogLine } from "@/lib/wire";

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

/** The last lines that the job's runner printed. */
export function useLogs(id: string, active: boolean) {
  return useQuery({
    queryKey: ["job", id, "logs"],
    queryFn: async (): Promise<LogLine[]> => {
      const page = await take(
        api.GET("/v1/jobs/{job_id}/logs", { params: { path: { job_id: id }, query: { tail: true, limit: 1000 } } }),
      );
      // Text is what a stream gives, and only those who ask for one get it.
      return typeof page === "object" ? page.data : [];
    },
    refetchInterval: active ? 2_000 : false,
  });
}
