/** The only place that knows uPlot; loaded when the first chart is shown. */
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import { number } from "@/lib/format";
import { smooth } from "@/lib/series";
import { useAppearance } from "@/lib/theme";
import type { Level, Line } from "./line";

export interface PlotProps {
  lines: readonly Line[];
  levels: readonly Level[];
  smoothing: number;
  log: boolean;
  /** Ends of the value axis, where they are known beforehand. */
  range?: readonly [number, number] | undefined;
  format: (value: number | null) => string;
  onHover: (step: number | null) => void;
}

export default function Plot(props: PlotProps) {
  const { lines, levels, smoothing, log } = props;
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const current = useRef(props);
  const appearance = useAppearance();
  const structure = JSON.stringify([lines.map(({ name, sparse }) => [name, sparse]), levels, log, smoothing > 0, appearance]);

  useEffect(() => {
    current.current = props;
  });

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const made = new uPlot(options(element, current), table(current.current), element);
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize(sizeOf(element)));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [structure]);

  useEffect(() => {
    plot.current?.setData(table({ lines, smoothing, log }));
  }, [lines, smoothing, log]);

  return <div ref={box} style={{ height: "100%" }} />;
}

/** The lowest value of a logarithmic axis, as a share of the highest. */
const LOG_SPAN = 1e-6;

type Shown = Pick<PlotProps, "lines" | "smoothing" | "log">;

/** Steps, then for each line its values and, where it is smoothed, the smoothed ones. */
function table({ lines, smoothing, log }: Shown): uPlot.AlignedData {
  const tables = lines.map((line): uPlot.AlignedData => {
    const raw = log ? line.series.value.map((value) => (value !== null && value > 0 ? value : null)) : line.series.value;
    return isSmoothed(line, smoothing) ? [line.series.step, raw, smooth(raw, smoothing)] : [line.series.step, raw];
  });
  return tables.length > 0 ? uPlot.join(tables) : [[]];
}

function isSmoothed(line: Line, smoothing: number): boolean {
  return smoothing > 0 && !line.sparse;
}

function sizeOf(element: HTMLElement) {
  return { width: Math.max(120, element.clientWidth), height: Math.max(80, element.clientHeight) };
}

/** Logarithmic or linear; uPlot's enumeration of them exists for the compiler alone. */
function distribution(log: boolean): uPlot.Scale.Distr {
  // eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment
  return log ? 3 : 1;
}

/** A canvas takes no variables: let an element resolve them. */
function colorOf(element: HTMLElement, name: string): string {
  element.style.color = `var(${name})`;
  const found = getComputedStyle(element).color;
  element.style.color = "";
  return found;
}

function options(element: HTMLElement, current: { current: PlotProps }): uPlot.Options {
  const { lines, smoothing, log } = current.current;
  const color = (name: string) => colorOf(element, name);
  const font = `11px ${getComputedStyle(element).fontFamily}`;
  const axis: uPlot.Axis = {
    stroke: color("--ink-3"),
    font,
    grid: { stroke: color("--grid"), width: 1 },
    ticks: { show: false },
  };
  return {
    ...sizeOf(element),
    padding: [10, 14, 0, 0],
    legend: { show: false },
    cursor: {
      sync: { key: "step" },
      drag: { x: true, y: false, uni: 20 },
      points: { size: 6 },
    },
    scales: {
      x: { time: false },
      y: { distr: distribution(log), range: (_plot, low, high) => extent(low, high, log, current.current) },
    },
    axes: [
      { ...axis, size: 26, gap: 4, values: (_plot, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? number(tick) : "")) },
      {
        ...axis,
        gap: 4,
        // Before the first drawing there are no values, whatever uPlot's types say.
        size: (_plot, values: string[] | null) => 14 + 6.4 * Math.max(2, ...(values ?? []).map((value) => value.length)),
        // A logarithmic axis has ticks without a label; they come as null, whatever uPlot's types say.
        values: (_plot, ticks: (number | null)[]) =>
          ticks.map((tick) => (tick === null ? "" : current.current.format(tick))),
      },
    ],
    series: [
      {},
      ...lines.flatMap((line): uPlot.Series[] => {
        const stroke = color(`--series-${line.color}`);
        const shape: uPlot.Series = {
          stroke,
          width: line.sparse ? 2 : 1.5,
          spanGaps: true,
          points: { show: line.sparse ?? false, size: 5, fill: stroke },
          ...(line.dashed && { dash: [5, 4] }),
        };
        if (!isSmoothed(line, smoothing)) return [shape];
        return [
          { ...shape, width: 1, alpha: 0.28 },
          { ...shape, width: 1.75 },
        ];
      }),
    ],
    hooks: {
      draw: [(plot) => drawLevels(plot, current.current.levels, color("--limit"), font)],
      setCursor: [
        (plot) => {
          const index = plot.cursor.idx;
          current.current.onHover(index === null || index === undefined ? null : (plot.data[0][index] ?? null));
        },
      ],
    },
  };
}

function extent(low: number | null, high: number | null, log: boolean, { levels, range }: PlotProps): uPlot.Range.MinMax {
  const values = levels.map((level) => level.value).filter((value) => !log || value > 0);
  const least = Math.min(low ?? Infinity, ...values);
  const most = Math.max(high ?? -Infinity, ...values);
  if (!Number.isFinite(least) || !Number.isFinite(most)) return log ? [0.1, 1] : [0, 1];
  // Six decades say enough; a median that underflows to 1e-40 would leave no room for the others.
  if (log) return uPlot.rangeLog(Math.max(least, most * LOG_SPAN), most, 10, false);
  const margin = (most - least || Math.abs(most) || 1) * 0.06;
  const padded: [number, number] = [least >= 0 ? Math.max(0, least - margin) : least - margin, most + margin];
  if (!range) return padded;
  return [Math.max(range[0], padded[0]), Math.min(range[1], padded[1])];
}

function drawLevels(plot: uPlot, levels: readonly Level[], color: string, font: string) {
  const { ctx, bbox } = plot;
  const ratio = uPlot.pxRatio;
  for (const level of levels) {
    const y = plot.valToPos(level.value, "y", true);
    if (!Number.isFinite(y) || y < bbox.top - 1 || y > bbox.top + bbox.height + 1) continue;
    ctx.save();
    ctx.strokeStyle = color;
    ctx.fillStyle = color;
    ctx.lineWidth = ratio;
    ctx.setLineDash([6 * ratio, 4 * ratio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.font = font.replace("11px", `${11 * ratio}px`);
    ctx.textAlign = "left";
    ctx.textBaseline = y - bbox.top < 18 * ratio ? "top" : "bottom";
    ctx.fillText(level.label, bbox.left + 6 * ratio, y + (ctx.textBaseline === "top" ? 3 : -3) * ratio);
    ctx.restore();
  }
}
