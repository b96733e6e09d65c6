import type { Json, Origin } from "@/lib/wire";

/** Where a public number of a schema comes from, in words. */
export const ORIGINS: Record<Origin, { label: string; about: string }> = {
  declared: { label: "declared", about: "Known without looking at the rows" },
  dp_estimate: { label: "private estimate", about: "Estimated under differential privacy" },
  from_rows: { label: "read off the rows", about: "Not covered by a privacy guarantee" },
};

export const ORIGIN_OPTIONS = (Object.keys(ORIGINS) as Origin[]).map((value) => ({
  value,
  label: ORIGINS[value].label,
}));

/** A number that is being typed is not yet one; the api says so if it stays that way. */
export function asNumber(value: Json): number {
  return value as number;
}
