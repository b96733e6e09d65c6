import { useMemo } from "react";
import { LineChart } from "@/components/charts/LineChart";
import { Failed, Note } from "@/components/ui/State";
import { number, percent, shortPercent } from "@/lib/format";
import { isTerminal, type Job } from "@/lib/wire";
import { useMetrics } from "../api/metrics";
import { useChartChoices } from "./ChartTools";
import { pick } from "./lines";

export function Gradients({ job }: { job: Job }) {
  const active = !isTerminal(job.status);
  const metrics = useMetrics(job.id, active);
  const { smoothing, log, tools } = useChartChoices();
  const series = metrics.data?.series;
  const clipping = job.spec.clipping;
  // Other rules bound no joint norm that could be drawn beside these.
  const maxNorm = clipping?.kind === "flat" ? clipping.max_norm : undefined;
  const levels = useMemo(
    () => (maxNorm === undefined ? [] : [{ label: `max_norm ${number(maxNorm)}`, value: maxNorm }]),
    [maxNorm],
  );
  const norms = useMemo(
    () =>
      pick(series ?? {}, [
        { name: "train/gradient_norm_max", label: "largest", color: 5, dashed: true },
        { name: "train/gradient_norm_p90", label: "90 %", color: 3 },
        { name: "train/gradient_norm_mean", label: "mean", color: 1 },
        { name: "train/gradient_norm_p50", label: "median", color: 4 },
      ]),
    [series],
  );
  const clipped = useMemo(
    () => pick(series ?? {}, [{ name: "train/clip_fraction", label: "clipped", color: 1 }]),
    [series],
  );
  if (metrics.isError && !series) return <Failed error={metrics.error} retry={() => void metrics.refetch()} />;
  const waiting = active ? "Waiting for the first step" : "Nothing was recorded";
  const guarded = Boolean(job.spec.privacy);
  return (
    <>
      <div className="spread">{tools}</div>
      {!clipping && (
        <Note>
          <span>This job does not clip. Its gradients are averaged as they are.</span>
        </Note>
      )}
      <div className="columns">
        <LineChart
          title="Gradient norms of single samples"
          note="before clipping"
          lines={norms}
          levels={levels}
          {...{ smoothing, log, waiting, guarded }}
        />
        <LineChart
          title="Share of samples that were clipped"
          lines={clipped}
          range={[0, 1]}
          format={(value) => percent(value)}
          axisFormat={shortPercent}
          {...{ smoothing, waiting, guarded }}
        />
      </div>
    </>
  );
}
