import { useMemo } from "react";
import { LineChart } from "@/components/charts/LineChart";
import { DownloadLink } from "@/components/ui/Button";
import { Facts, Panel } from "@/components/ui/Page";
import { Empty } from "@/components/ui/State";
import { integer, number, percent, title } from "@/lib/format";
import { targetEpsilon } from "@/lib/outcome";
import { isTerminal, type Job } from "@/lib/wire";
import { artifactHref } from "../api/job";
import { useMetrics } from "../api/metrics";
import { pick } from "./lines";

export function PrivacyTab({ job }: { job: Job }) {
  const active = !isTerminal(job.status);
  const metrics = useMetrics(job.id, active);
  const series = metrics.data?.series;
  const target = targetEpsilon(job);
  const curve = job.plan?.epsilon_curve;
  const lines = useMemo(
    () => [
      ...(curve ? [{ name: "planned", label: "planned", color: 2 as const, dashed: true, series: { ...curve, released: true } }] : []),
      ...pick(series ?? {}, [{ name: "privacy/epsilon", label: "spent", color: 1 }]),
    ],
    [series, curve],
  );
  const levels = useMemo(
    () => (target === null ? [] : [{ label: `target ${number(target, 3)}`, value: target }]),
    [target],
  );
  const privacy = job.spec.privacy;
  if (!privacy) return <NoGuarantee clipped={Boolean(job.spec.clipping)} />;
  const plan = job.plan;
  return (
    <div className="columns">
      <div className="stack">
        <LineChart
          title="Epsilon spent over the steps"
          lines={lines}
          levels={levels}
          waiting={active ? "Waiting for the first step" : "Nothing was spent"}
          guarded
        />
        <Outside series={series ?? {}} />
      </div>
      <Panel
        title="The guarantee"
        note={<>Differential privacy for each {plan ? "unit of the data set" : "row"}</>}
        {...(job.status === "succeeded" && {
          actions: (
            <DownloadLink href={artifactHref(job.id, "privacy.json")} small icon="download">
              Statement
            </DownloadLink>
          ),
        })}
      >
        <div className="stack">
          <Facts
            list
            items={[
              ["Epsilon spent so far", number(job.privacy?.epsilon ?? 0, 5)],
              [privacy.target_epsilon ? "Target epsilon, a hard cap" : "Epsilon at the end", number(target, 5)],
              ["Delta", number(privacy.delta)],
              ["Noise multiplier", number(plan?.noise_multiplier ?? privacy.noise_multiplier, 5)],
              ["Clip rule", ruleOf(job.spec.clipping)],
              ["Sampling rate (Poisson)", percent(plan?.sampling_rate, 3)],
              ["Steps", integer(plan?.steps)],
              ["Accountant", "privacy loss distribution (dp_accounting)"],
              ["Adjacency", "zero-out"],
            ]}
          />
          <p className="small muted">
            Zero-out adjacency: what anyone can learn from the released results changes little, in the sense of epsilon
            and delta, if one unit’s contribution is replaced by nothing. The number of units is taken as public.
          </p>
        </div>
      </Panel>
    </div>
  );
}

function ruleOf(clipping: Job["spec"]["clipping"]): string {
  if (!clipping) return "none";
  const bound = clipping.kind === "per_group" ? `${clipping.groups.length} groups` : `max_norm ${number(clipping.max_norm)}`;
  return `${title(clipping.kind)}, ${bound}`;
}

const OUTSIDE: readonly (readonly [RegExp, string])[] = [
  [/^eval\//, "Evaluation on held-out rows: accuracy, loss and errors"],
  [/^train\/loss/, "Training loss"],
  [/^train\/gradient_norm/, "Gradient norms of single samples"],
  [/^train\/clip_fraction/, "Share of samples that were clipped"],
];

function Outside({ series }: { series: Record<string, { released: boolean }> }) {
  const names = Object.entries(series)
    .filter(([, one]) => !one.released)
    .map(([name]) => name);
  const listed = OUTSIDE.filter(([pattern]) => names.some((name) => pattern.test(name)));
  return (
    <Panel title="Outside of the guarantee">
      <div className="stack small">
        <p className="muted">
          These are exact numbers about private rows. They are for the data owner; whoever publishes them gives away more
          than epsilon says.
        </p>
        {listed.length > 0 ? (
          <ul className="bullets">
            {listed.map(([, text]) => (
              <li key={text}>{text}</li>
            ))}
          </ul>
        ) : (
          <p>Nothing exact has been recorded so far.</p>
        )}
      </div>
    </Panel>
  );
}

function NoGuarantee({ clipped }: { clipped: boolean }) {
  return (
    <div className="panel">
      <Empty icon="shield" title="This job gives no privacy guarantee">
        <p>
          {clipped
            ? "Every sample’s gradient is clipped, which bounds its influence on a step, but no noise is added. The model may still reveal single rows."
            : "Neither clipping nor noise is applied. The model may reveal single rows."}
        </p>
      </Empty>
    </div>
  );
}
