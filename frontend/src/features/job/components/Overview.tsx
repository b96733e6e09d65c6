import { useMemo } from "react";
import { LineChart } from "@/components/charts/LineChart";
import { Failed } from "@/components/ui/State";
import { integer, number, percent, shortPercent, title } from "@/lib/format";
import { isTerminal, type Job } from "@/lib/wire";
import { useMetrics } from "../api/metrics";
import { useChartChoices } from "./ChartTools";
import { pick, PLACED } from "./lines";

export function Overview({ job }: { job: Job }) {
  const active = !isTerminal(job.status);
  const metrics = useMetrics(job.id, active);
  const { smoothing, log, tools } = useChartChoices();
  const series = metrics.data?.series;
  const charts = useMemo(() => {
    const known = series ?? {};
    return {
      loss: pick(known, [
        { name: "train/loss", label: "training", color: 1 },
        { name: "eval/loss", label: "held out", color: 2, sparse: true },
      ]),
      accuracy: pick(known, [{ name: "eval/accuracy", label: "held out", color: 2, sparse: true }]),
      error: pick(known, [
        { name: "eval/mae", label: "mean absolute", color: 2, sparse: true },
        { name: "eval/rmse", label: "root mean square", color: 3, sparse: true },
      ]),
      clipped: pick(known, [{ name: "train/clip_fraction", label: "clipped", color: 3 }]),
      speed: pick(known, [{ name: "train/samples_per_second", label: "samples/s", color: 4 }]),
      more: Object.entries(known)
        .filter(([name]) => !PLACED.has(name))
        .map(([name, one]) => ({ name, label: name, color: 5 as const, series: one })),
    };
  }, [series]);
  if (metrics.isError && !series) return <Failed error={metrics.error} retry={() => void metrics.refetch()} />;
  const waiting = active ? "Waiting for the first step" : "Nothing was recorded";
  const guarded = Boolean(job.spec.privacy);
  const noHoldout = job.spec.evaluation.fraction === 0;
  const shared = { smoothing, guarded };
  return (
    <>
      <div className="spread">{tools}</div>
      <div className="columns">
        <LineChart title="Loss" lines={charts.loss} log={log} waiting={waiting} {...shared} />
        {charts.error.length > 0 ? (
          <LineChart title="Error" lines={charts.error} log={log} waiting={waiting} {...shared} />
        ) : (
          <LineChart
            title="Accuracy"
            lines={charts.accuracy}
            range={[0, 1]}
            format={(value) => percent(value)}
            axisFormat={shortPercent}
            waiting={noHoldout ? "No rows are held out, so nothing is evaluated" : active ? "Waiting for the first evaluation" : waiting}
            {...shared}
          />
        )}
        {job.spec.clipping && (
          <LineChart
            title="Share of samples that were clipped"
            lines={charts.clipped}
            range={[0, 1]}
            format={(value) => percent(value)}
            axisFormat={shortPercent}
            waiting={waiting}
            {...shared}
          />
        )}
        <LineChart title="Speed" lines={charts.speed} format={integer} waiting={waiting} smoothing={smoothing} />
        {charts.more.map((line) => (
          <LineChart
            key={line.name}
            title={title(line.name)}
            lines={[line]}
            log={log}
            format={(value) => number(value)}
            waiting={waiting}
            {...shared}
          />
        ))}
      </div>
    </>
  );
}
