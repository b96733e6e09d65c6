import { useEffect, useRef } from "react";
import { Panel } from "@/components/ui/Page";
import { Empty, Failed, Loading } from "@/components/ui/State";
import { clock } from "@/lib/format";
import { isTerminal, type Job } from "@/lib/wire";
import { useLogs } from "../api/job";

export function Logs({ job }: { job: Job }) {
  const logs = useLogs(job.id, !isTerminal(job.status));
  const list = useRef<HTMLOListElement>(null);
  const follow = useRef(true);
  const count = logs.data?.length ?? 0;
  useEffect(() => {
    // Keep the end in view, unless someone scrolled up to read.
    if (follow.current) list.current?.scrollTo({ top: list.current.scrollHeight });
  }, [count]);
  if (logs.isPending) return <Loading />;
  if (logs.isError && !logs.data) return <Failed error={logs.error} retry={() => void logs.refetch()} />;
  if (count === 0) {
    return (
      <div className="panel">
        <Empty icon="file" title="Nothing was printed">
          <p>What the job’s runner writes to its output appears here.</p>
        </Empty>
      </div>
    );
  }
  return (
    <Panel flush title="Output of the runner" note={count >= 1000 ? "The last 1,000 lines" : undefined}>
      <ol
        ref={list}
        className="log"
        aria-label="Lines"
        // A list that scrolls has to be reachable by keyboard.
        // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
        tabIndex={0}
        onScroll={({ currentTarget: box }) => {
          follow.current = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
        }}
      >
        {logs.data.map((line) => (
          <li key={line.id} className={line.stream}>
            <time dateTime={line.created_at} className="muted">
              {clock(line.created_at)}
            </time>
            <span className="muted">{line.stream === "stderr" ? "err" : "out"}</span>
            <span className="log__line">{line.line}</span>
          </li>
        ))}
      </ol>
    </Panel>
  );
}
