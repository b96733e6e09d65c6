/** A job's events as they happen, by server-sent events; by polling where those do not come through. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { api, take } from "@/lib/api";
import { useVisible } from "@/lib/hooks";
import { isTerminal, type Job, type JobEvent, type JobProgressed } from "@/lib/wire";

export type Liveness = "live" | "polling" | "ended";

const REFRESH_AFTER = 150;
const LIMIT = 1000;

/**
 * Events of job `id`, and how they come. Each new event lets the job be read anew, so that a page is as
 * current as its stream.
 */
export function useEvents(id: string, active: boolean) {
  const client = useQueryClient();
  const visible = useVisible();
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

  const loaded = list.isSuccess;
  useEffect(() => {
    // A page in the background gives its connection back: a browser has six for each host.
    if (!active || !visible || !loaded) return;
    const known = client.getQueryData<JobEvent[]>(["job", id, "events"]) ?? [];
    const source = new EventSource(`/v1/jobs/${encodeURIComponent(id)}/events?after=${known.at(-1)?.id ?? 0}`);
    let timer: number | undefined;
    const refresh = () => {
      timer ??= window.setTimeout(() => {
        timer = undefined;
        void client.invalidateQueries({ queryKey: ["job", id], exact: true });
      }, REFRESH_AFTER);
    };
    const receive = (message: MessageEvent<string>) => {
      const event = JSON.parse(message.data) as JobEvent;
      client.setQueryData<JobEvent[]>(["job", id, "events"], (before = []) =>
        before.some((one) => one.id === event.id) ? before : [...before, event],
      );
      refresh();
    };
    source.addEventListener("progress", (message: MessageEvent<string>) => {
      const { object, ...moved } = JSON.parse(message.data) as JobProgressed;
      client.setQueryData<Job>(["job", id], (before) => before && { ...before, ...moved });
      // The last word, with result and times, is the job's own.
      if (isTerminal(moved.status)) refresh();
    });
    source.onopen = () => setStreaming(true);
    source.onerror = () => {
      setStreaming(false);
      refresh();
    };
    source.onmessage = receive;
    return () => {
      source.close();
      window.clearTimeout(timer);
      setStreaming(false);
    };
  }, [id, active, visible, loaded, client]);

  const liveness: Liveness = !active ? "ended" : streaming ? "live" : "polling";
  return { list, liveness };
}
