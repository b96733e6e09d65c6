/** A titled chart with its legend, and a table that says the same. */
import { lazy, Suspense, useState } from "react";
import { Button } from "@/components/ui/Button";
import { Icon } from "@/components/ui/Icon";
import { integer, number as formatNumber } from "@/lib/format";
import { last, spread } from "@/lib/series";
import { valueAt, type Level, type Line } from "./line";

const Plot = lazy(() => import("./Plot"));

export interface ChartProps {
  title: string;
  note?: string;
  lines: readonly Line[];
  levels?: readonly Level[];
  smoothing?: number;
  log?: boolean;
  range?: readonly [number, number];
  format?: (value: number | null) => string;
  /** For the axis, where values are round. */
  axisFormat?: (value: number | null) => string;
  /** What is said while there is nothing to draw. */
  waiting: string;
  /** Under a guarantee: whether it covers these numbers. */
  guarded?: boolean;
}

const NO_LEVELS: readonly Level[] = [];

export function LineChart({
  title,
  note,
  lines,
  levels = NO_LEVELS,
  smoothing = 0,
  log = false,
  range,
  format = (value) => formatNumber(value),
  axisFormat = (value) => formatNumber(value, 3),
  waiting,
  guarded = false,
}: ChartProps) {
  const [asTable, setAsTable] = useState(false);
  const [hovered, setHovered] = useState<number | null>(null);
  const drawable = lines.some((line) => line.series.step.length > 0);
  return (
    <figure className="panel chart" aria-label={`${title}. ${summary(lines, format)}`}>
      <div className="chart__head">
        <h3>{title}</h3>
        {drawable && <Legend lines={lines} hovered={hovered} format={format} />}
      </div>
      {!drawable ? (
        <div className="chart__plot">
          <div className="chart__waiting">{waiting}</div>
        </div>
      ) : asTable ? (
        <SeriesTable title={title} lines={lines} format={format} />
      ) : (
        <div className="chart__plot">
          <Suspense fallback={<div className="chart__waiting">Drawing…</div>}>
            <Plot {...{ lines, levels, smoothing, log, range }} format={axisFormat} onHover={setHovered} />
          </Suspense>
        </div>
      )}
      <div className="chart__foot">
        <span className="small muted">
          {guarded && drawable ? <Guarantee lines={lines} /> : (note ?? "")}
          {guarded && drawable && note && ` · ${note}`}
        </span>
        {drawable && (
          <Button small look="quiet" iconOnly icon={asTable ? "chart" : "table"} onClick={() => setAsTable(!asTable)}>
            {asTable ? `Show ${title} as a chart` : `Show ${title} as a table`}
          </Button>
        )}
      </div>
    </figure>
  );
}

function Guarantee({ lines }: { lines: readonly Line[] }) {
  const released = lines.every((line) => line.series.released);
  return released ? (
    <span className="exact released">
      <Icon name="shield" size={13} /> released: covered by the guarantee
    </span>
  ) : (
    <span className="exact" title="These numbers were computed on the rows without noise. The privacy guarantee does not cover them.">
      <Icon name="eye" size={13} /> exact: for the data owner, outside the guarantee
    </span>
  );
}

function Legend({
  lines,
  hovered,
  format,
}: {
  lines: readonly Line[];
  hovered: number | null;
  format: (value: number | null) => string;
}) {
  return (
    <ul className="chart__legend">
      {hovered !== null && <li>step {integer(hovered)}</li>}
      {lines.map((line) => (
        <li key={line.name} title={line.name}>
          <span
            className={line.dashed ? "chart__key chart__key--dashed" : "chart__key"}
            style={{ background: `var(--series-${line.color})`, ["--key" as string]: `var(--series-${line.color})` }}
          />
          {line.label} <b>{format(hovered === null ? last(line.series) : valueAt(line.series, hovered))}</b>
        </li>
      ))}
    </ul>
  );
}

function SeriesTable({
  title,
  lines,
  format,
}: {
  title: string;
  lines: readonly Line[];
  format: (value: number | null) => string;
}) {
  const steps = [...new Set(lines.flatMap((line) => line.series.step))].sort((a, b) => a - b);
  const shown = spread(steps.length, 100).map((index) => steps[index] ?? 0);
  return (
    // A region that scrolls has to be reachable by keyboard.
    // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
    <div className="chart__table" tabIndex={0} role="region" aria-label={`${title} as a table`}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">Step</th>
            {lines.map((line) => (
              <th key={line.name} scope="col" className="end">
                {line.label}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {shown.map((step) => (
            <tr key={step}>
              <td>{integer(step)}</td>
              {lines.map((line) => (
                <td key={line.name} className="end">
                  {format(valueAt(line.series, step))}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function summary(lines: readonly Line[], format: (value: number | null) => string): string {
  return lines
    .filter((line) => line.series.step.length > 0)
    .map(
      ({ label, series }) =>
        `${label}: from ${format(series.value[0] ?? null)} at step ${integer(series.step[0])} to ${format(last(series))} at step ${integer(series.step.at(-1))}.`,
    )
    .join(" ");
}
