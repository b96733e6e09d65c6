import type { Line } from "@/components/charts/line";
import type { SeriesByName } from "@/lib/series";

type Wanted = Omit<Line, "series">;

/** The wanted curves, as far as the job has them. */
export function pick(series: SeriesByName, wanted: readonly Wanted[]): Line[] {
  return wanted.flatMap((line) => {
    const found = series[line.name];
    return found ? [{ ...line, series: found }] : [];
  });
}

/** Every metric that has a place on a page; the others are shown under "More". */
export const PLACED: ReadonlySet<string> = new Set([
  "train/loss",
  "eval/loss",
  "eval/accuracy",
  "eval/mae",
  "eval/rmse",
  "train/gradient_norm_mean",
  "train/gradient_norm_max",
  "train/gradient_norm_p50",
  "train/gradient_norm_p90",
  "train/clip_fraction",
  "train/samples_per_second",
  "privacy/epsilon",
]);
