/** Metric series: joining what is new to what is known, and smoothing. */
import type { MetricSeries } from "@/lib/wire";

export type SeriesByName = Record<string, MetricSeries>;

/** What a page knows about a job's metrics, and from where to ask for more. */
export interface MetricState {
  series: SeriesByName;
  /** Highest step that was seen. */
  cursor: number;
  /** Highest step before the last answer: asking from here repeats one answer, so that a value written late is not missed. */
  resumeFrom: number;
}

export function merge(known: MetricState | undefined, fresh: SeriesByName): MetricState {
  const series: SeriesByName = { ...known?.series };
  let cursor = known?.cursor ?? 0;
  for (const [name, next] of Object.entries(fresh)) {
    const before = series[name];
    series[name] = before ? join(before, next) : next;
    cursor = Math.max(cursor, next.step.at(-1) ?? 0);
  }
  return { series, cursor, resumeFrom: known?.cursor ?? 0 };
}

/** `next` replaces everything of `before` from its first step on. */
function join(before: MetricSeries, next: MetricSeries): MetricSeries {
  const first = next.step[0];
  if (first === undefined) return before;
  let keep = before.step.length;
  while (keep > 0 && (before.step[keep - 1] ?? 0) >= first) keep -= 1;
  return {
    step: [...before.step.slice(0, keep), ...next.step],
    value: [...before.value.slice(0, keep), ...next.value],
    released: next.released,
  };
}

/** Number of points of the longest series. */
export function longest(series: SeriesByName): number {
  return Math.max(0, ...Object.values(series).map((one) => one.step.length));
}

/**
 * Exponential moving average with debiasing; `weight` in [0, 1), 0 leaves the values as they are.
 * Gaps stay gaps.
 */
export function smooth(values: readonly (number | null)[], weight: number): (number | null)[] {
  if (weight <= 0) return [...values];
  let average = 0;
  let mass = 0;
  return values.map((value) => {
    if (value === null || !Number.isFinite(value)) return null;
    average = weight * average + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return average / mass;
  });
}

export function last(series: MetricSeries | undefined): number | null {
  return series?.value.at(-1) ?? null;
}

/** Pick at most `count` indices of `length`, evenly, with both ends. */
export function spread(length: number, count: number): number[] {
  if (length <= count) return Array.from({ length }, (_, index) => index);
  return Array.from({ length: count }, (_, index) => Math.round((index * (length - 1)) / (count - 1)));
}
