/** Numbers, sizes, times and durations for people. */

const NONE = "–";

/** Up to `digits` significant digits, without a tail of zeros; very large and small ones in scientific form. */
export function number(value: number | null | undefined, digits = 4): string {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) {
    const [mantissa = "", exponent = ""] = value.toExponential(Math.max(0, digits - 2)).split("e");
    return `${String(Number(mantissa)).replace("-", "−")}e${exponent.replace("+", "").replace("-", "−")}`;
  }
  if (Number.isInteger(value)) return integer(value);
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}

export function integer(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE;
  return Math.round(value).toLocaleString("en-US").replace("-", "−");
}

export function percent(value: number | null | undefined, digits = 1): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  return `${(value * 100).toFixed(digits)} %`;
}

/** For an axis: as few digits as the value needs. */
export function shortPercent(value: number | null): string {
  return value === null ? NONE : `${Number((value * 100).toFixed(1))} %`;
}

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE;
  const units = ["B", "KB", "MB", "GB", "TB"];
  let scaled = value;
  let unit = 0;
  while (scaled >= 1000 && unit < units.length - 1) {
    scaled /= 1000;
    unit += 1;
  }
  return `${unit === 0 || scaled >= 100 ? Math.round(scaled) : scaled.toFixed(1)} ${units[unit] ?? ""}`;
}

/** A length of time such as `4.2 s`, `3 min 20 s`, `2 h 5 min`. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds) || seconds < 0) return NONE;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  if (seconds < 3599.5) return pair(seconds, 60, "min", 1, "s");
  if (seconds < 86_400) return pair(seconds, 3600, "h", 60, "min");
  return pair(seconds, 86_400, "d", 3600, "h");
}

function pair(seconds: number, large: number, largeName: string, small: number, smallName: string): string {
  const total = Math.round(seconds / small) * small;
  const rest = Math.round((total % large) / small);
  return `${Math.floor(total / large)} ${largeName}${rest > 0 ? ` ${rest} ${smallName}` : ""}`;
}

/** How long ago, such as `just now`, `5 min ago`, `3 d ago`. */
export function ago(moment: string | null | undefined, now = Date.now()): string {
  if (!moment) return NONE;
  const seconds = (now - Date.parse(moment)) / 1000;
  return seconds < 10 ? "just now" : secondsAgo(seconds);
}

/** The same of an age, to the second while it is young, such as `4 s ago`. */
export function secondsAgo(seconds: number): string {
  if (seconds < 59.5) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}

export function dateTime(moment: string | null | undefined): string {
  if (!moment) return NONE;
  return new Date(moment).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}

export function clock(moment: string): string {
  return new Date(moment).toLocaleTimeString("en-GB");
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${integer(count)} ${count === 1 ? one : many}`;
}

/** `gradient_norm_mean` becomes `Gradient norm mean`. */
export function title(name: string): string {
  const words = name.replaceAll(/[_/-]+/g, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}
