/** A job's events as they happen, by server-sent events; by polling where those do not come through. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useCallback, useState } from "react";
import { api, take } from "@/lib/api";
import type { Job, JobEvent, JobProgressed } from "@/lib/wire";
import { livenessOf, useStream, type Connection } from "./stream";

const REFRESH_AFTER = 150;
const LIMIT = 1000;

/**
 * Events of job `id`, and how they come. Each new event lets the job be read anew, so that a page is as
 * current as its stream.
 */
export function useEvents(id: string, active: boolean) {
  const client = useQueryClient();
  const [streaming, setStreaming] = useState(false);
  const list = useQuery({
    queryKey: ["job", id, "events"],
    queryFn: async () => {
      const page = await take(
        api.GET("/v1/jobs/{job_id}/events", { params: { path: { job_id: id }, query: { limit: LIMIT } } }),
      );
      // The same address also streams text, to whoever asks for that.
      return typeof page === "object" ? page.data : [];
    },
    refetchInterval: active && !streaming ? 3_000 : false,
  });

  const connect = useCallback((): Connection => {
    const known = client.getQueryData<JobEvent[]>(["job", id, "events"]) ?? [];
    const source = new EventSource(`/v1/jobs/${encodeURIComponent(id)}/events?after=${known.at(-1)?.id ?? 0}`);
    let timer: number | undefined;
    const readAnew = () => {
      timer = undefined;
      void client.invalidateQueries({ queryKey: ["job", id], exact: true });
    };
    const refresh = () => {
      timer ??= window.setTimeout(readAnew, REFRESH_AFTER);
    };
    source.addEventListener("progress", (message: MessageEvent<string>) => {
      const { object, ...moved } = JSON.parse(message.data) as JobProgressed;
      const before = client.getQueryData<Job>(["job", id]);
      client.setQueryData<Job>(["job", id], before && { ...before, ...moved });
      // What else a new status brings, such as what may be done now, is the job's own to say.
      if (before?.status !== moved.status) refresh();
    });
    source.onmessage = (message: MessageEvent<string>) => {
      const event = JSON.parse(message.data) as JobEvent;
      client.setQueryData<JobEvent[]>(["job", id, "events"], (known = []) =>
        known.some((one) => one.id === event.id) ? known : [...known, event],
      );
      refresh();
    };
    source.onerror = refresh;
    const close = () => {
      // A job that has ended closes its stream, and its last word is still to be read.
      if (timer === undefined) return;
      window.clearTimeout(timer);
      readAnew();
    };
    return { source, close };
  }, [client, id]);
  useStream(active && list.isSuccess, connect, setStreaming);
  return { list, liveness: livenessOf(active, streaming) };
}
