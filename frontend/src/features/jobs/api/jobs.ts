/** The list of jobs. */
import { infiniteQueryOptions } from "@tanstack/react-query";
import { api, take } from "@/lib/api";
import { isTerminal, type JobStatus } from "@/lib/wire";

/** What the list shows, by what a person looks for. */
export const GROUPS = {
  all: [],
  active: ["validating", "queued", "running", "pausing", "paused", "cancelling"],
  succeeded: ["succeeded"],
  failed: ["failed"],
  cancelled: ["cancelled"],
} as const satisfies Record<string, readonly JobStatus[]>;

export type Group = keyof typeof GROUPS;

export function isGroup(value: string): value is Group {
  return value in GROUPS;
}

export interface Filter {
  group: Group;
  search: string;
  /** `key:value`, or nothing. */
  tag: string;
}

export function jobsQuery({ group, search, tag }: Filter) {
  const statuses: readonly JobStatus[] = GROUPS[group];
  return infiniteQueryOptions({
    queryKey: ["jobs", group, search, tag],
    initialPageParam: "",
    queryFn: ({ pageParam, signal }) =>
      take(
        api.GET("/v1/jobs", {
          signal,
          params: {
            query: {
              limit: 50,
              ...(statuses.length > 0 && { status: [...statuses] }),
              ...(search !== "" && { q: search }),
              ...(tag !== "" && { tag: [tag] }),
              ...(pageParam !== "" && { after: pageParam }),
            },
          },
        }),
      ),
    getNextPageParam: (page) => page.next_cursor ?? undefined,
    placeholderData: (before) => before,
    // Often while something happens, else now and then: another person may submit.
    refetchInterval: (query) =>
      query.state.data?.pages.some((page) => page.data.some((job) => !isTerminal(job.status))) ? 2_000 : 10_000,
  });
}
