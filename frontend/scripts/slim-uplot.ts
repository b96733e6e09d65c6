/** Leaves the parts of uPlot out that this dashboard does not use: its legend, bars, splines, steps, dates. */
import type { Plugin } from "vite";

const CHANGES: readonly (readonly [string, string])[] = [
  ["const showLegend = legend.show;", "const showLegend = false;"],
  ["(paths.stepped = stepped);", ""],
  ["(paths.bars    = bars);", ""],
  ["(paths.spline  = monotoneCubic);", ""],
  ["uPlot.fmtDate = fmtDate;", ""],
  ["uPlot.tzDate  = tzDate;", ""],
  ["uPlot.addGap = addGap;", ""],
  ["uPlot.clipGaps = clipGaps;", ""],
];

export function slimUplot(): Plugin {
  return {
    name: "slim-uplot",
    apply: "build",
    transform(code, id) {
      if (!id.endsWith("uPlot.esm.js")) return null;
      let slim = code;
      for (const [from, to] of CHANGES) {
        if (!slim.includes(from)) this.error(`uPlot has changed: it has no "${from}"; look at slim-uplot.ts`);
        slim = slim.replace(from, to);
      }
      return { code: slim, map: null };
    },
  };
}
