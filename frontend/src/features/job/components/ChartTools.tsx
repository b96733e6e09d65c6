import { useParam } from "@/lib/address";

export interface ChartChoices {
  smoothing: number;
  log: boolean;
}

/** Smoothing and scale; both in the address. */
export function useChartChoices(fallback = 0.6): ChartChoices & { tools: React.JSX.Element } {
  const [smooth, setSmooth] = useParam("smooth", String(fallback));
  const [scale, setScale] = useParam("scale", "linear");
  const smoothing = Math.max(0, Math.min(0.99, Number(smooth) || 0));
  const log = scale === "log";
  const tools = (
    <div className="chart-tools">
      <label>
        Smoothing
        <input
          type="range"
          min={0}
          max={0.98}
          step={0.02}
          value={smoothing}
          onChange={(event) => setSmooth(event.target.value)}
        />
        <output>{smoothing.toFixed(2)}</output>
      </label>
      <label>
        <input type="checkbox" checked={log} onChange={(event) => setScale(event.target.checked ? "log" : "linear")} />
        Log scale
      </label>
    </div>
  );
  return { smoothing, log, tools };
}
