/** The one number by which people compare jobs, and what privacy it cost. */
import { integer, number, percent } from "@/lib/format";
import { last, type SeriesByName } from "@/lib/series";
import type { Job } from "@/lib/wire";

export interface Outcome {
  name: string;
  text: string;
  note: string;
}

const PREFERRED: readonly (readonly [string, string, (value: number) => string])[] = [
  ["accuracy", "accuracy", (value) => percent(value)],
  ["mae", "mean abs. error", (value) => number(value)],
  ["rmse", "RMSE", (value) => number(value)],
  ["loss", "loss", (value) => number(value)],
];

/** The best known final number of a job, if there is one. Names may come as `accuracy` or `eval/accuracy`. */
export function outcome(job: Job): Outcome | null {
  const metrics = job.result?.metrics ?? {};
  for (const [key, name, format] of PREFERRED) {
    const value = metrics[`eval/${key}`] ?? metrics[key];
    if (value !== undefined) return { name, text: format(value), note: "at the end" };
  }
  return null;
}

/** The same number while the job runs: as of its last evaluation. */
export function latest(series: SeriesByName): Outcome | null {
  for (const [key, name, format] of PREFERRED) {
    const known = series[`eval/${key}`];
    const value = last(known);
    if (known && value !== null) return { name, text: format(value), note: `at step ${integer(known.step.at(-1))}` };
  }
  return null;
}

/** What a job is called; without a name, by what it trains. */
export function nameOf(job: Job): string {
  return job.name ?? `${job.spec.dataset} · ${job.spec.model.kind}`;
}

/** What a job strives for, `null` when it trains without a guarantee. */
export function targetEpsilon(job: Job): number | null {
  return job.spec.privacy?.target_epsilon ?? job.plan?.epsilon ?? null;
}

/** Seconds that a job has run, up to now or its end. */
export function elapsed(job: Job, now: number): number | null {
  if (!job.started_at) return null;
  const end = job.finished_at ? Date.parse(job.finished_at) : now;
  return Math.max(0, (end - Date.parse(job.started_at)) / 1000);
}
