/** Server-sent events for as long as somebody looks. */
import { useEffect } from "react";
import { useVisible } from "@/lib/hooks";

export interface Connection {
  source: EventSource;
  /** Called when the connection is given back. */
  close: () => void;
}

/** Keep what `connect` opens open while `on`; `setStreaming` hears whether it is, so that one polls while it is not. */
export function useStream(on: boolean, connect: () => Connection, setStreaming: (streaming: boolean) => void): void {
  const visible = useVisible();
  useEffect(() => {
    // A page in the background gives its connection back: a browser has six for each host.
    if (!on || !visible) return;
    const { source, close } = connect();
    source.addEventListener("open", () => setStreaming(true));
    source.addEventListener("error", () => setStreaming(false));
    return () => {
      source.close();
      close();
      setStreaming(false);
    };
  }, [on, visible, connect, setStreaming]);
}

export type Liveness = "live" | "polling" | "ended";

export function livenessOf(active: boolean, streaming: boolean): Liveness {
  if (!active) return "ended";
  return streaming ? "live" : "polling";
}
