/** A specification as it is edited: plain JSON, which the api judges. */
import { defaultsOf } from "@/lib/jsonSchema";
import type { Dataset, Job, Json, JsonObject, Kind } from "@/lib/wire";

/** A first draft that trains something sensible on `dataset`. */
export function firstDraft(dataset: Dataset, kinds: readonly Kind[], kind?: string): JsonObject {
  const size = dataset.schema.size.value;
  const model = kinds.find((one) => one.kind === kind) ?? suggestedModel(dataset, kinds);
  return {
    name: null,
    dataset: dataset.name,
    model: model ? defaultsOf(model.kind, schemaOf(model)) : { kind: "mlp" },
    training: { steps: 300, batch_size: batchSize(size), microbatch_size: null, seed: 0, precision: "float32" },
    optimizer: {
      learning_rate: 0.1,
      weight_decay: 0,
      regularizers: [],
      modules: [{ kind: "momentum", beta: 0.9, nesterov: false }],
    },
    clipping: { kind: "flat", max_norm: 1, schedule: { kind: "constant" } },
    privacy: { target_epsilon: 3, delta: suggestedDelta(size) },
    evaluation: { fraction: 0.2, every_steps: 50 },
    resources: { queue: "cpu", gpus: 0 },
    limits: { max_runtime_seconds: 3600 },
    tags: {},
  };
}

export function schemaOf(kind: Kind): JsonObject {
  return kind.json_schema as JsonObject;
}

/** A job's specification to start from; its name tells that it is a copy. */
export function clone(job: Job): JsonObject {
  const spec = job.spec as unknown as JsonObject;
  return { ...spec, name: job.name === null ? null : `${job.name} (copy)` };
}

/** The next power of ten below one over the size: smaller than what a single row weighs. */
export function suggestedDelta(size: number): number {
  return Number(`1e-${Math.max(3, Math.ceil(Math.log10(Math.max(2, size))))}`);
}

function batchSize(size: number): number {
  // A tenth of the data, as a power of two: small data sets still get a mean worth its noise.
  const tenth = Math.max(16, size / 10);
  return Math.min(1024, 2 ** Math.round(Math.log2(tenth)));
}

function suggestedModel(dataset: Dataset, kinds: readonly Kind[]): Kind | undefined {
  const fitting = kinds.filter((kind) => fits(kind, dataset));
  return fitting.find((kind) => kind.kind === "mlp") ?? fitting[0];
}

export function fits(kind: Kind, dataset: Dataset): boolean {
  return kind.tasks.length === 0 || kind.tasks.includes(dataset.schema.task);
}

export type Guarantee = "epsilon" | "noise" | "clipping" | "none";

export function guaranteeOf(draft: JsonObject): Guarantee {
  const privacy = draft.privacy as JsonObject | null | undefined;
  if (!draft.clipping) return "none";
  if (!privacy) return "clipping";
  return privacy.noise_multiplier !== undefined && privacy.noise_multiplier !== null ? "noise" : "epsilon";
}

/** The parts of the draft that a choice of guarantee sets. */
export function withGuarantee(draft: JsonObject, choice: Guarantee, size: number): JsonObject {
  const privacy = draft.privacy as JsonObject | null | undefined;
  const delta: Json = privacy?.delta ?? suggestedDelta(size);
  const clipping: Json = draft.clipping ?? { kind: "flat", max_norm: 1, schedule: { kind: "constant" } };
  switch (choice) {
    case "epsilon":
      return { ...draft, clipping, privacy: { target_epsilon: 3, delta } };
    case "noise":
      return { ...draft, clipping, privacy: { noise_multiplier: 1.1, delta } };
    case "clipping":
      return { ...draft, clipping, privacy: null };
    case "none":
      return { ...draft, clipping: null, privacy: null };
  }
}
