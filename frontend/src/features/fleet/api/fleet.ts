/** Workers and queues, read anew every few seconds. */
import { queryOptions } from "@tanstack/react-query";
import { api, take } from "@/lib/api";

export const workersQuery = queryOptions({
  queryKey: ["workers"],
  refetchInterval: 4_000,
  queryFn: async () => (await take(api.GET("/v1/workers"))).data,
});

export const queuesQuery = queryOptions({
  queryKey: ["queues"],
  refetchInterval: 4_000,
  queryFn: async () => (await take(api.GET("/v1/queues"))).data,
});
