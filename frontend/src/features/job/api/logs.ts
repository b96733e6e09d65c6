/** The last lines that a job's runner printed, as they come. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useCallback, useEffect, useRef, useState } from "react";
import { api, take } from "@/lib/api";
import type { LogLine } from "@/lib/wire";
import { append, KEPT } from "./lines";
import { livenessOf, useStream, type Connection } from "./stream";

/** Lines often come many at once; the page takes them together. */
const GATHER_MILLISECONDS = 100;

export function useLogs(id: string, active: boolean) {
  const client = useQueryClient();
  const [streaming, setStreaming] = useState(false);
  const list = useQuery({
    queryKey: ["job", id, "logs"],
    queryFn: async (): Promise<LogLine[]> => {
      const page = await take(
        api.GET("/v1/jobs/{job_id}/logs", { params: { path: { job_id: id }, query: { tail: true, limit: KEPT } } }),
      );
      // Text is what a stream gives, and only those who ask for one get it.
      const found = typeof page === "object" ? page.data : [];
      // The stream may have been faster than this answer.
      return append(found, client.getQueryData<LogLine[]>(["job", id, "logs"]) ?? []);
    },
    refetchInterval: active && !streaming ? 2_000 : false,
  });

  const connect = useCallback((): Connection => {
    const known = client.getQueryData<LogLine[]>(["job", id, "logs"]) ?? [];
    const source = new EventSource(`/v1/jobs/${encodeURIComponent(id)}/logs?after=${known.at(-1)?.id ?? 0}`);
    let fresh: LogLine[] = [];
    let timer: number | undefined;
    const flush = () => {
      const lines = fresh;
      fresh = [];
      timer = undefined;
      client.setQueryData<LogLine[]>(["job", id, "logs"], (before = []) => append(before, lines));
    };
    source.addEventListener("log", (message: MessageEvent<string>) => {
      fresh.push(JSON.parse(message.data) as LogLine);
      timer ??= window.setTimeout(flush, GATHER_MILLISECONDS);
    });
    const close = () => {
      if (timer === undefined) return;
      window.clearTimeout(timer);
      flush();
    };
    return { source, close };
  }, [client, id]);
  useStream(active && list.isSuccess, connect, setStreaming);

  // Once more when the job has ended: the last lines are the ones that tell why.
  const { refetch } = list;
  const wasActive = useRef(active);
  useEffect(() => {
    if (wasActive.current && !active) void refetch();
    wasActive.current = active;
  }, [active, refetch]);
  return { list, liveness: livenessOf(active, streaming) };
}
