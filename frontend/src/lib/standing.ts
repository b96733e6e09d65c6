/** Where a job stands, in words. */
import { integer, title } from "@/lib/format";
import { isTerminal, type Job } from "@/lib/wire";

/** One sentence without its full stop; `now` is for counting down. */
export function standing(job: Job, now: number): string {
  switch (job.status) {
    case "validating":
      return "Computing its noise";
    case "queued":
      return job.phase === "interrupted" ? interrupted(job, now) : waiting(job);
    case "pausing":
      return job.progress ? `${place(job)}, pausing after a checkpoint` : "Pausing before its first step";
    case "paused":
      return job.checkpoint_step ? `Paused at ${place(job).toLowerCase()}` : "Paused before its first step";
    case "cancelling":
      return job.progress ? `Stopping at ${place(job).toLowerCase()}` : "Stopping";
    case "running":
      if (!job.progress) return title(job.phase ?? "starting");
      return job.phase === "recovering" ? `Going on from ${place(job).toLowerCase()}` : place(job);
    case "succeeded":
    case "failed":
    case "cancelled":
      return job.progress ? place(job) : "No step was run";
  }
}

/** Whether a worker has the job. */
function isHeld(job: Job): boolean {
  return job.status === "running" || job.status === "pausing" || job.status === "cancelling";
}

/** The step that a job is at or, while it waits for a worker, would go on from. */
function stepOf(job: Job): number | null {
  return isHeld(job) || isTerminal(job.status) ? (job.progress?.step ?? null) : (job.checkpoint_step ?? 0);
}

/** The share of its steps that a job has done, `null` while that is unknown. */
export function share(job: Job): number | null {
  if (job.status === "succeeded") return 1;
  const step = stepOf(job);
  const steps = job.progress?.steps ?? job.plan?.steps ?? 0;
  if (step === null || steps <= 0) return isHeld(job) ? null : 0;
  return step / steps;
}

function place(job: Job): string {
  const steps = job.progress?.steps ?? job.plan?.steps;
  const step = `Step ${integer(stepOf(job))}`;
  return steps === undefined ? step : `${step} of ${integer(steps)}`;
}

function waiting(job: Job): string {
  const first = `Waiting for a worker of queue ${job.spec.resources.queue}`;
  return job.checkpoint_step ? `${first}, to go on from step ${integer(job.checkpoint_step)}` : first;
}

function interrupted(job: Job, now: number): string {
  const seconds = job.retry_at ? Math.ceil((Date.parse(job.retry_at) - now) / 1000) : 0;
  const when = seconds > 0 ? `in ${integer(seconds)} s` : "when a worker is free";
  const next = job.checkpoint_step ? `goes on from step ${integer(job.checkpoint_step)}` : "begins anew";
  return `Interrupted${times(job.interruptions)}; ${next} ${when}`;
}

/** A worker that was told to stop or to drain puts its jobs back, which counts against none of them. */
function times(interruptions: number): string {
  if (interruptions === 0) return "";
  return interruptions === 1 ? " once" : ` ${interruptions} times`;
}
