/** Leaves the parts of uPlot out that this dashboard does not draw: bars, splines, steps, helpers for dates. */
import type { Plugin } from "vite";

const UNUSED = [
  "(paths.stepped = stepped);",
  "(paths.bars    = bars);",
  "(paths.spline  = monotoneCubic);",
  "uPlot.fmtDate = fmtDate;",
  "uPlot.tzDate  = tzDate;",
  "uPlot.addGap = addGap;",
  "uPlot.clipGaps = clipGaps;",
];

export function slimUplot(): Plugin {
  return {
    name: "slim-uplot",
    apply: "build",
    transform(code, id) {
      if (!id.endsWith("uPlot.esm.js")) return null;
      let slim = code;
      for (const statement of UNUSED) {
        if (!slim.includes(statement)) this.error(`uPlot has changed: it has no "${statement}"; look at slim-uplot.ts`);
        slim = slim.replace(statement, "");
      }
      return { code: slim, map: null };
    },
  };
}
