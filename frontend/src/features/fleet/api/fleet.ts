/** Workers, and draining them; queues. Read anew every few seconds, and sooner while a worker empties itself. */
import { queryOptions, useMutation, useQueryClient } from "@tanstack/react-query";
import { api, take } from "@/lib/api";
import type { Worker } from "@/lib/wire";

export const workersQuery = queryOptions({
  queryKey: ["workers"],
  refetchInterval: ({ state }) =>
    state.data?.some((one) => one.alive && one.draining && one.current_jobs.length > 0) ? 1_000 : 4_000,
  queryFn: async () => (await take(api.GET("/v1/workers"))).data,
});

export const queuesQuery = queryOptions({
  queryKey: ["queues"],
  refetchInterval: 4_000,
  queryFn: async () => (await take(api.GET("/v1/queues"))).data,
});

/** Have a worker take no more jobs and put back those that it has, or take jobs again. */
export function useDrain() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: ({ id, draining }: { id: string; draining: boolean }): Promise<Worker> => {
      const params = { path: { worker_id: id } };
      return take(
        draining
          ? api.POST("/v1/workers/{worker_id}/drain", { params })
          : api.POST("/v1/workers/{worker_id}/undrain", { params }),
      );
    },
    onSuccess: (worker) =>
      client.setQueryData(workersQuery.queryKey, (before) =>
        before?.map((one) => (one.id === worker.id ? worker : one)),
      ),
    onSettled: () =>
      Promise.all([
        client.invalidateQueries({ queryKey: workersQuery.queryKey }),
        client.invalidateQueries({ queryKey: queuesQuery.queryKey }),
      ]),
  });
}
