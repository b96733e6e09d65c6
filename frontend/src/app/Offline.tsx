import { useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";
import { Icon } from "@/components/ui/Icon";
import { setReachable, useReachable } from "@/lib/connection";

/** A quiet banner while the service is away; it goes, and everything is read anew, when the service is back. */
export function Offline() {
  const reachable = useReachable();
  const client = useQueryClient();
  useEffect(() => {
    if (reachable) return;
    const timer = window.setInterval(() => {
      fetch("/healthz", { cache: "no-store" })
        .then(() => {
          setReachable(true);
          return client.invalidateQueries();
        })
        .catch(() => undefined);
    }, 2000);
    return () => window.clearInterval(timer);
  }, [reachable, client]);
  return (
    <div aria-live="polite">
      {!reachable && (
        <div className="offline">
          <Icon name="offline" />
          Connection lost. What you see may be out of date; trying again…
        </div>
      )}
    </div>
  );
}
