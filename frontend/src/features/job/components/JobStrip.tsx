import { statusTone } from "@/components/ui/Chip";
import { Stat } from "@/components/ui/Page";
import { Progress } from "@/components/ui/Progress";
import { Note } from "@/components/ui/State";
import { duration, integer, number, percent, title } from "@/lib/format";
import { useNow } from "@/lib/hooks";
import { elapsed, latest, outcome, targetEpsilon } from "@/lib/outcome";
import { share, standing } from "@/lib/standing";
import { isTerminal, type Job } from "@/lib/wire";
import { useMetrics } from "../api/metrics";

/** Why the job ended as it did, or what it waits for. */
export function Reason({ job }: { job: Job }) {
  const reason = job.status_reason;
  if (!reason) return null;
  const tone = job.status === "failed" ? "bad" : job.status === "cancelled" ? "plain" : "warn";
  return (
    <Note tone={tone}>
      <strong>{title(reason.code)}</strong>
      <span>{reason.message}</span>
    </Note>
  );
}

/** Progress and the numbers that matter, in one line. */
export function JobStrip({ job }: { job: Job }) {
  const now = useNow(1000, !isTerminal(job.status));
  const metrics = useMetrics(job.id, !isTerminal(job.status));
  const result = outcome(job) ?? latest(metrics.data?.series ?? {});
  const target = targetEpsilon(job);
  return (
    <section className="panel job-strip" aria-label="Progress and result">
      <div className="job-strip__progress">
        <div className="spread small">
          <span>{standing(job, now)}</span>
          <span className="muted">{remaining(job)}</span>
        </div>
        <Progress
          value={share(job)}
          tone={job.status === "running" ? "active" : statusTone(job.status)}
          label="Progress"
        />
      </div>
      <Stat label={result ? title(result.name) : "Result"} value={result?.text ?? "–"} note={result?.note ?? "not evaluated"} />
      <Stat
        label="Epsilon spent"
        value={job.spec.privacy ? number(job.privacy?.epsilon ?? 0) : "–"}
        note={job.spec.privacy ? `of ${number(target, 3)} at delta ${number(job.spec.privacy.delta)}` : "no guarantee"}
      />
      <Stat
        label="Speed"
        value={job.progress?.samples_per_second ? integer(job.progress.samples_per_second) : "–"}
        note="samples per second"
      />
      <Stat label="Duration" value={duration(elapsed(job, now))} note={waited(job)} />
    </section>
  );
}

function remaining(job: Job): string {
  if (isTerminal(job.status)) return percent(share(job), 0);
  const eta = job.progress?.eta_seconds;
  return eta === null || eta === undefined ? "" : `${duration(eta)} left`;
}

function waited(job: Job): string {
  if (!job.started_at) return "not started";
  return `waited ${duration((Date.parse(job.started_at) - Date.parse(job.created_at)) / 1000)}`;
}
