import type { UseQueryResult } from "@tanstack/react-query";
import { Panel } from "@/components/ui/Page";
import { Empty, Failed, Loading } from "@/components/ui/State";
import { clock, dateTime } from "@/lib/format";
import type { JobEvent } from "@/lib/wire";

export function Events({ query }: { query: UseQueryResult<JobEvent[]> }) {
  if (query.isPending) return <Loading />;
  if (query.isError && !query.data) return <Failed error={query.error} retry={() => void query.refetch()} />;
  const events = query.data;
  if (events.length === 0) {
    return (
      <div className="panel">
        <Empty icon="info" title="Nothing has happened yet" />
      </div>
    );
  }
  return (
    <Panel flush title="What happened" note="The newest first">
      <ol className="timeline" aria-live="polite">
        {[...events].reverse().map((event) => (
          <li key={event.id}>
            <time dateTime={event.created_at} title={dateTime(event.created_at)}>
              {clock(event.created_at)}
            </time>
            <span className={`timeline__mark timeline__mark--${event.level}`} aria-hidden="true" />
            <span>
              {event.message} <span className="small muted">{event.type}</span>
            </span>
          </li>
        ))}
      </ol>
    </Panel>
  );
}
