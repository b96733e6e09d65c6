import type { Json, JsonObject } from "@/lib/wire";

/** What a section of the form needs: to read, to write and to know what is wrong, by JSON pointer. */
export interface Form {
  draft: JsonObject;
  setDraft: (draft: JsonObject) => void;
  get: (pointer: string) => Json | undefined;
  /** `undefined` leaves the field out. */
  set: (pointer: string, value: Json | undefined) => void;
  /** What is wrong at `pointer` or below it. */
  errorOf: (pointer: string) => string | undefined;
}

type Problems = ReadonlyMap<string, string>;

export function errorAt(problems: Problems, pointer: string): string | undefined {
  // A problem deeper inside, such as one item of a list, belongs to the field around it.
  const found = [...problems].filter(([at]) => at === pointer || at.startsWith(`${pointer}/`));
  return found.length === 0 ? undefined : [...new Set(found.map(([, detail]) => detail))].join("; ");
}

/** Where the form shows problems next to a field; those at other places are said beside the plan. */
const PLACES = [
  "/name",
  "/dataset",
  "/model",
  "/training/steps",
  "/training/epochs",
  "/training/batch_size",
  "/training/microbatch_size",
  "/training/seed",
  "/training/precision",
  "/optimizer/learning_rate",
  "/optimizer/weight_decay",
  "/optimizer/modules",
  "/clipping/max_norm",
  "/privacy/target_epsilon",
  "/privacy/noise_multiplier",
  "/privacy/delta",
  "/evaluation/fraction",
  "/evaluation/every_steps",
  "/resources/queue",
  "/limits/max_runtime_seconds",
  "/tags",
];

export function withoutPlace(problems: Problems): [string, string][] {
  return [...problems].filter(([at]) => !PLACES.some((place) => at === place || at.startsWith(`${place}/`)));
}
