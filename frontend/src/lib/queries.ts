/** Reads that several features share; what only one feature reads is in its own api folder. */
import { QueryCache, QueryClient, queryOptions } from "@tanstack/react-query";
import { api, setCsrfToken, take } from "@/lib/api";
import { hasStatus, OfflineError, ProblemError } from "@/lib/problem";
import type { Dataset, Session } from "@/lib/wire";

export function createQueryClient(): QueryClient {
  const client = new QueryClient({
    queryCache: new QueryCache({
      onError: (error, query) => {
        // A session that ended anywhere ends everywhere.
        if (hasStatus(error, 401) && query.queryKey[0] !== "session") client.setQueryData(["session"], null);
      },
    }),
    defaultOptions: {
      queries: {
        // The service is often on loopback, where being "offline" means nothing.
        networkMode: "always",
        staleTime: 1_000,
        retry: (failures, error) => failures < 2 && !isFinal(error),
        retryDelay: 800,
      },
      mutations: { networkMode: "always" },
    },
  });
  return client;
}

function isFinal(error: unknown): boolean {
  return error instanceof OfflineError || (error instanceof ProblemError && error.status < 500);
}

export const sessionQuery = queryOptions({
  queryKey: ["session"],
  staleTime: Infinity,
  queryFn: async (): Promise<Session | null> => {
    try {
      const session = await take(api.GET("/v1/session"));
      setCsrfToken(session.csrf_token);
      return session;
    } catch (error) {
      if (hasStatus(error, 401)) return null;
      throw error;
    }
  },
});

export const datasetsQuery = queryOptions({
  queryKey: ["datasets"],
  queryFn: async () => {
    const page = await take(api.GET("/v1/datasets", { params: { query: { limit: 100 } } }));
    // The client's types widen pairs of numbers to lists.
    return page.data as Dataset[];
  },
});

export const modelsQuery = queryOptions({
  queryKey: ["models"],
  queryFn: async () => (await take(api.GET("/v1/models"))).data,
});

export function jobQuery(id: string) {
  return queryOptions({
    queryKey: ["job", id],
    queryFn: () => take(api.GET("/v1/jobs/{job_id}", { params: { path: { job_id: id } } })),
  });
}
