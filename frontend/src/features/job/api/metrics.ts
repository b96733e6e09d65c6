/** A job's metrics, read incrementally while it runs. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef } from "react";
import { api, take } from "@/lib/api";
import { longest, merge, type MetricState } from "@/lib/series";

const MAX_POINTS = 2000;
const INTERVAL = 1_200;

export function useMetrics(id: string, active: boolean) {
  const client = useQueryClient();
  const key = ["job", id, "metrics"];
  const query = useQuery({
    queryKey: key,
    queryFn: async ({ signal }): Promise<MetricState> => {
      const known = client.getQueryData<MetricState>(key);
      // The server thins out what it sends in all; what grew over that by appending is read anew.
      const resume = known && active && longest(known.series) < 2 * MAX_POINTS ? known : undefined;
      const fresh = await take(
        api.GET("/v1/jobs/{job_id}/metrics", {
          signal,
          params: {
            path: { job_id: id },
            query: { max_points: MAX_POINTS, ...(resume && { after_step: resume.resumeFrom }) },
          },
        }),
      );
      return merge(resume, fresh);
    },
    refetchInterval: active ? INTERVAL : false,
    structuralSharing: false,
  });

  // Once more and in full when the job has ended.
  const { refetch } = query;
  const wasActive = useRef(active);
  useEffect(() => {
    if (wasActive.current && !active) void refetch();
    wasActive.current = active;
  }, [active, refetch]);
  return query;
}
