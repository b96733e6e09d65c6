import type { LogLine } from "@/lib/wire";

/** How many lines a page keeps; a job keeps more, which the command line shows. */
export const KEPT = 1000;

/** The last `kept` lines of `before` and what is newer in `fresh`. Lines are numbered upwards. */
export function append(before: LogLine[], fresh: readonly LogLine[], kept = KEPT): LogLine[] {
  const last = before.at(-1)?.id ?? 0;
  const news = fresh.filter((line) => line.id > last);
  return news.length === 0 ? before : [...before, ...news].slice(-kept);
}
