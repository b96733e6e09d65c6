import { Link } from "wouter";
import { StatusChip, statusTone } from "@/components/ui/Chip";
import { Progress } from "@/components/ui/Progress";
import { Ago } from "@/components/ui/Time";
import { duration, number, percent } from "@/lib/format";
import { useNow } from "@/lib/hooks";
import { elapsed, nameOf, outcome, targetEpsilon } from "@/lib/outcome";
import { share, standing } from "@/lib/standing";
import { isTerminal, type Job } from "@/lib/wire";
import type { Choice } from "./choice";

export function JobsTable({
  jobs,
  selected,
  choice,
  onTag,
}: {
  jobs: readonly Job[];
  selected: number | null;
  choice: Choice;
  onTag: (tag: string) => void;
}) {
  const now = useNow(1000, jobs.some((job) => !isTerminal(job.status)));
  return (
    <table className="table table--rows table--cards">
      <caption className="visually-hidden">Jobs, newest first</caption>
      <thead>
        <tr>
          <th scope="col" className="pick">
            <label>
              <input
                type="checkbox"
                aria-label="Select all jobs of this page"
                checked={choice.chosen.length === jobs.length}
                ref={(box) => {
                  if (box) box.indeterminate = choice.chosen.length > 0 && choice.chosen.length < jobs.length;
                }}
                onChange={choice.toggleAll}
              />
            </label>
          </th>
          <th scope="col">Job</th>
          <th scope="col">Status</th>
          <th scope="col">Data and model</th>
          <th scope="col">Progress</th>
          <th scope="col">Result</th>
          <th scope="col">Epsilon</th>
          <th scope="col" className="end">
            Duration
          </th>
          <th scope="col" className="end">
            Created
          </th>
        </tr>
      </thead>
      <tbody>
        {jobs.map((job, index) => (
          <Row
            key={job.id}
            job={job}
            id={`job-row-${index}`}
            now={now}
            selected={index === selected}
            choice={choice}
            onTag={onTag}
          />
        ))}
      </tbody>
    </table>
  );
}

function Row({
  job,
  id,
  now,
  selected,
  choice,
  onTag,
}: {
  job: Job;
  id: string;
  now: number;
  selected: boolean;
  choice: Choice;
  onTag: (tag: string) => void;
}) {
  const result = outcome(job);
  return (
    <tr id={id} aria-selected={selected}>
      <td className="pick">
        <label>
          <input
            type="checkbox"
            aria-label={`Select ${nameOf(job)}`}
            checked={choice.has(job.id)}
            onChange={({ nativeEvent }) =>
              choice.toggle(job.id, nativeEvent instanceof MouseEvent && nativeEvent.shiftKey)
            }
          />
        </label>
      </td>
      <td className="wide">
        <Link href={`/jobs/${job.id}`} className="table__name">
          {nameOf(job)}
        </Link>
        <Tags tags={job.tags} onTag={onTag} />
      </td>
      <td>
        <StatusChip status={job.status} />
      </td>
      <td>
        <span className="nowrap">{job.spec.dataset}</span>
        <div className="table__sub">{job.spec.model.kind}</div>
      </td>
      <td className="wide">
        <JobProgress job={job} now={now} />
      </td>
      <td data-label="Result" className="nowrap">
        {result ? (
          <>
            <span className="nowrap">{result.text}</span>
            <div className="table__sub">{result.name}</div>
          </>
        ) : (
          <span className="muted">–</span>
        )}
      </td>
      <td data-label="Epsilon" className="nowrap">
        <Epsilon job={job} />
      </td>
      <td data-label="Duration" className="end nowrap">
        {duration(elapsed(job, now))}
      </td>
      <td data-label="Created" className="end">
        <Ago at={job.created_at} />
      </td>
    </tr>
  );
}

function JobProgress({ job, now }: { job: Job; now: number }) {
  if (job.phase === "interrupted" || (isTerminal(job.status) && !job.progress)) {
    return <span className="small muted">{standing(job, now)}</span>;
  }
  if (job.status === "queued" || job.status === "validating") {
    return (
      <span className="small muted">{job.status === "queued" ? "Waiting for a worker" : "Computing its noise"}</span>
    );
  }
  if (job.status === "succeeded" && job.progress) {
    return <span className="small muted">{number(job.progress.steps)} steps</span>;
  }
  const done = share(job);
  return (
    <>
      <Progress
        value={done}
        tone={job.status === "running" ? "active" : statusTone(job.status)}
        label={`Progress of ${nameOf(job)}`}
      />
      <div className="table__sub">
        {job.progress ? `${number(job.progress.step)} of ${number(job.progress.steps)} steps` : "Starting"}
        {job.status === "running" && done !== null && ` · ${percent(done, 0)}`}
      </div>
    </>
  );
}

function Epsilon({ job }: { job: Job }) {
  const target = targetEpsilon(job);
  if (job.spec.privacy === null || job.spec.privacy === undefined) return <span className="muted">no guarantee</span>;
  return (
    <>
      {number(job.privacy?.epsilon ?? 0)} <span className="muted">of {number(target, 3)}</span>
    </>
  );
}

function Tags({ tags, onTag }: { tags: Record<string, string>; onTag: (tag: string) => void }) {
  const entries = Object.entries(tags);
  if (entries.length === 0) return null;
  return (
    <div className="table__sub">
      {entries.map(([key, value]) => (
        <button
          key={key}
          type="button"
          className="tag tag--button"
          title="Show jobs with this tag"
          onClick={() => onTag(`${key}:${value}`)}
        >
          {key}: {value}
        </button>
      ))}
    </div>
  );
}
