import { DownloadLink } from "@/components/ui/Button";
import { Chip, type Tone } from "@/components/ui/Chip";
import { CopyButton } from "@/components/ui/CopyButton";
import { Panel } from "@/components/ui/Page";
import { Failed, Loading } from "@/components/ui/State";
import { Ago } from "@/components/ui/Time";
import { bytes, clock, dateTime, duration, integer } from "@/lib/format";
import { useNow } from "@/lib/hooks";
import { isTerminal, type Attempt, type Checkpoint, type Job } from "@/lib/wire";
import { checkpointHref, useAttempts, useCheckpoints } from "../api/attempts";

/** Which workers had the job, and the checkpoints that it can go on from. */
export function Attempts({ job }: { job: Job }) {
  return (
    <>
      <AttemptsPanel job={job} />
      <CheckpointsPanel job={job} />
    </>
  );
}

function AttemptsPanel({ job }: { job: Job }) {
  const attempts = useAttempts(job);
  return (
    <Panel flush title="Attempts" note="Each is one worker’s turn; the newest first">
      {attempts.isPending && <Loading lines={3} />}
      {attempts.isError && !attempts.data && <Failed error={attempts.error} retry={() => void attempts.refetch()} />}
      {attempts.data?.length === 0 && (
        <Nothing>{isTerminal(job.status) ? "No worker ever had it." : "No worker has had it yet."}</Nothing>
      )}
      {attempts.data && attempts.data.length > 0 && <AttemptsTable attempts={attempts.data} />}
    </Panel>
  );
}

const OUTCOMES: Record<string, Tone> = {
  succeeded: "good",
  failed: "bad",
  interrupted: "warn",
  paused: "warn",
};

function AttemptsTable({ attempts }: { attempts: readonly Attempt[] }) {
  const now = useNow(1000, attempts.some((one) => one.finished_at === null));
  return (
    <table className="table table--cards table--top">
      <thead>
        <tr>
          <th scope="col">No.</th>
          <th scope="col">Worker</th>
          <th scope="col" className="end">
            From step
          </th>
          <th scope="col">Started</th>
          <th scope="col" className="end">
            Duration
          </th>
          <th scope="col">Outcome</th>
          <th scope="col">Reason</th>
        </tr>
      </thead>
      <tbody>
        {attempts.toReversed().map((one) => (
          <tr key={one.number}>
            <td data-label="No.">{one.number}</td>
            <td data-label="Worker" className="small wide">
              <span className="mono">{one.worker_id}</span>
            </td>
            <td data-label="From step" className="end">
              {integer(one.start_step)}
            </td>
            <td data-label="Started" className="nowrap">
              <time dateTime={one.started_at} title={dateTime(one.started_at)}>
                {clock(one.started_at)}
              </time>
            </td>
            <td data-label="Duration" className="end nowrap">
              {duration(lasted(one, now))}
            </td>
            <td data-label="Outcome">
              {one.outcome === null ? (
                <Chip tone="active" dot>
                  running
                </Chip>
              ) : (
                <Chip tone={OUTCOMES[one.outcome] ?? "idle"} dot>
                  {one.outcome}
                </Chip>
              )}
            </td>
            <td data-label="Reason" className="small wide">
              {one.reason ?? <span className="muted">–</span>}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function lasted(attempt: Attempt, now: number): number {
  const end = attempt.finished_at === null ? now : Date.parse(attempt.finished_at);
  return Math.max(0, (end - Date.parse(attempt.started_at)) / 1000);
}

function CheckpointsPanel({ job }: { job: Job }) {
  const checkpoints = useCheckpoints(job);
  return (
    <Panel flush title="Checkpoints" note="What the job can go on from; the newest first">
      {checkpoints.isPending && <Loading lines={3} />}
      {checkpoints.isError && !checkpoints.data && (
        <Failed error={checkpoints.error} retry={() => void checkpoints.refetch()} />
      )}
      {checkpoints.data?.length === 0 && (
        <Nothing>
          {isTerminal(job.status)
            ? "None is kept."
            : "None yet. One is written now and then while the job trains, and when it is paused."}
        </Nothing>
      )}
      {checkpoints.data && checkpoints.data.length > 0 && (
        <CheckpointsTable id={job.id} checkpoints={checkpoints.data} />
      )}
    </Panel>
  );
}

function CheckpointsTable({ id, checkpoints }: { id: string; checkpoints: readonly Checkpoint[] }) {
  return (
    <table className="table table--cards">
      <thead>
        <tr>
          <th scope="col">Step</th>
          <th scope="col">Attempt</th>
          <th scope="col" className="end">
            Size
          </th>
          <th scope="col">SHA-256</th>
          <th scope="col" className="end">
            Written
          </th>
          <th scope="col">
            <span className="visually-hidden">Download</span>
          </th>
        </tr>
      </thead>
      <tbody>
        {checkpoints.map((one) => (
          <tr key={`${one.attempt}-${one.step}`}>
            <td data-label="Step">
              <span className="row">
                <strong>{integer(one.step)}</strong>
                {one.best && <Chip tone="good">best</Chip>}
              </span>
            </td>
            <td data-label="Attempt">{one.attempt}</td>
            <td data-label="Size" className="end nowrap">
              {bytes(one.size)}
            </td>
            <td data-label="SHA-256">
              <span className="row">
                <code title={one.sha256}>{one.sha256.slice(0, 12)}…</code>
                <CopyButton text={one.sha256} />
              </span>
            </td>
            <td data-label="Written" className="end">
              <Ago at={one.created_at} />
            </td>
            <td className="end">
              <DownloadLink href={checkpointHref(id, one.step)} small icon="download">
                Download
              </DownloadLink>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Nothing({ children }: { children: string }) {
  return <p className="none muted small">{children}</p>;
}
