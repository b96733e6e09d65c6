/** The list of jobs. */
import { keepPreviousData, queryOptions } from "@tanstack/react-query";
import { api, take } from "@/lib/api";
import { isTerminal, type JobFilter, type JobStatus } from "@/lib/wire";

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
  /** Cursor of the page before, or nothing for the first. */
  after: string;
}

/** The conditions of a list, on all its pages; none for the list of all jobs. */
export function conditions({ group, search, tag }: Omit<Filter, "after">): Pick<JobFilter, "status" | "q" | "tag"> {
  const statuses: readonly JobStatus[] = GROUPS[group];
  return {
    ...(statuses.length > 0 && { status: [...statuses] }),
    ...(search !== "" && { q: search }),
    ...(tag !== "" && { tag: [tag] }),
  };
}

export function jobsQuery({ group, search, tag, after }: Filter) {
  return queryOptions({
    queryKey: ["jobs", group, search, tag, after],
    queryFn: ({ signal }) =>
      take(
        api.GET("/v1/jobs", {
          signal,
          params: {
            query: {
              limit: 50,
              ...conditions({ group, search, tag }),
              ...(after !== "" && { after }),
            },
          },
        }),
      ),
    placeholderData: keepPreviousData,
    // Often while something happens, else now and then: another person may submit.
    refetchInterval: ({ state }) => (state.data?.data.some((job) => !isTerminal(job.status)) ? 2_000 : 10_000),
  });
}
