import type { MetricSeries } from "@/lib/wire";

/** One curve of a chart. */
export interface Line {
  name: string;
  label: string;
  series: MetricSeries;
  /** Which of the five colours. */
  color: 1 | 2 | 3 | 4 | 5;
  dashed?: boolean;
  /** Few, exact points, such as evaluations: drawn with their points and never smoothed. */
  sparse?: boolean;
}

/** A level to compare with, such as the clipping bound. */
export interface Level {
  label: string;
  value: number;
}

/** The value of `series` at the last step that is not after `step`. */
export function valueAt(series: MetricSeries, step: number): number | null {
  let low = 0;
  let high = series.step.length - 1;
  let found = -1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if ((series.step[middle] ?? Infinity) <= step) {
      found = middle;
      low = middle + 1;
    } else {
      high = middle - 1;
    }
  }
  return found < 0 ? null : (series.value[found] ?? null);
}
