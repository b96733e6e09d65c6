import { memo, useLayoutEffect, useRef, useState } from "react";
import { Button } from "@/components/ui/Button";
import { Panel } from "@/components/ui/Page";
import { Empty, Failed, Loading } from "@/components/ui/State";
import { clock, integer } from "@/lib/format";
import { isTerminal, type Job, type LogLine } from "@/lib/wire";
import { KEPT } from "../api/lines";
import { useLogs } from "../api/logs";
import type { Liveness } from "../api/stream";

/** How near to its end a list counts as read to the end. */
const NEAR = 40;

export function Logs({ job }: { job: Job }) {
  const { list, liveness } = useLogs(job.id, !isTerminal(job.status));
  if (list.isPending) return <Loading />;
  if (list.isError && !list.data) return <Failed error={list.error} retry={() => void list.refetch()} />;
  if (list.data.length === 0) {
    return (
      <div className="panel">
        <Empty icon="file" title={liveness === "ended" ? "Nothing was printed" : "Nothing has been printed yet"}>
          <p>What the job’s runner writes to its output appears here.</p>
        </Empty>
      </div>
    );
  }
  return <Lines lines={list.data} liveness={liveness} />;
}

const HOW: Record<Liveness, string> = {
  live: "As it is printed",
  polling: "Read anew every two seconds",
  ended: "The job has ended",
};

function Lines({ lines, liveness }: { lines: readonly LogLine[]; liveness: Liveness }) {
  const box = useRef<HTMLOListElement>(null);
  const [following, setFollowing] = useState(true);
  const last = lines.at(-1)?.id;
  const toEnd = () => box.current?.scrollTo({ top: box.current.scrollHeight });
  useLayoutEffect(() => {
    // Keep the end in view, unless someone scrolled up to read.
    if (following) toEnd();
  }, [last, following]);
  return (
    <Panel
      flush
      title="Output of the runner"
      note={`${HOW[liveness]}${lines.length >= KEPT ? `; the last ${integer(KEPT)} lines` : ""}`}
      actions={
        <Button small look="quiet" icon="end" disabled={following} onClick={() => setFollowing(true)}>
          To the end
        </Button>
      }
    >
      <ol
        ref={box}
        className="log"
        aria-label="Lines"
        // A list that scrolls has to be reachable by keyboard.
        // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
        tabIndex={0}
        onScroll={({ currentTarget: list }) => {
          setFollowing(list.scrollHeight - list.scrollTop - list.clientHeight < NEAR);
        }}
      >
        {lines.map((line) => (
          <Line key={line.id} line={line} />
        ))}
      </ol>
    </Panel>
  );
}

const Line = memo(function Line({ line }: { line: LogLine }) {
  return (
    <li className={line.stream}>
      <time dateTime={line.created_at} className="muted">
        {clock(line.created_at)}
      </time>
      <span className="muted">{line.stream === "stderr" ? "err" : "out"}</span>
      <span className="log__line">{line.line}</span>
    </li>
  );
});
