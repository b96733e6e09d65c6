/** Changes to a schema that touch several of its parts at once. */
import type { DatasetSchema, Feature, Origin } from "@/lib/wire";

/** Make another column the target; the old one becomes a feature again, as far as that can be told. */
export function withTarget(schema: DatasetSchema, name: string): DatasetSchema {
  const chosen = schema.features.find((feature) => feature.name === name);
  if (!chosen) return schema;
  const features = schema.features.filter((feature) => feature.name !== name);
  const before = formerTarget(schema);
  const shared = { ...schema, target: name, features: before ? [...features, before] : features };
  if (chosen.type === "category") {
    return {
      ...shared,
      task: "classification",
      classes: chosen.categories,
      classes_origin: chosen.origin,
      target_bounds: null,
    };
  }
  return {
    ...shared,
    task: "regression",
    classes: null,
    target_bounds: chosen.bounds,
    target_origin: chosen.origin,
  };
}

function formerTarget(schema: DatasetSchema): Feature | null {
  const name = schema.target;
  if (schema.task === "classification" && schema.classes) {
    return { name, type: "category", categories: schema.classes, origin: schema.classes_origin, fill: null };
  }
  if (schema.target_bounds) {
    return { name, type: "number", bounds: schema.target_bounds, origin: schema.target_origin, fill: null };
  }
  return null;
}

/** Whether a column can be the target: one value in each row. */
export function canBeTarget(feature: Feature): boolean {
  return feature.type === "number" || feature.type === "category";
}

/** Change the task and offer what the other one needs. */
export function withTask(schema: DatasetSchema, task: DatasetSchema["task"]): DatasetSchema {
  if (task === schema.task) return schema;
  if (task === "regression") {
    const values = (schema.classes ?? []).map(Number).filter(Number.isFinite);
    const pair: [number, number] = values.length > 1 ? [Math.min(...values), Math.max(...values)] : [0, 1];
    return { ...schema, task, classes: null, target_bounds: pair, target_origin: schema.classes_origin };
  }
  const [low, high] = schema.target_bounds ?? [0, 1];
  const whole = Number.isInteger(low) && Number.isInteger(high) && high - low < 100;
  const classes = whole ? Array.from({ length: high - low + 1 }, (_, index) => String(low + index)) : [];
  return { ...schema, task, classes, classes_origin: schema.target_origin, target_bounds: null };
}

/** Say of every number in the schema where it comes from. */
export function withOrigin(schema: DatasetSchema, origin: Origin): DatasetSchema {
  return {
    ...schema,
    features: schema.features.map((feature) => ({ ...feature, origin })),
    classes_origin: origin,
    target_origin: origin,
    size: { ...schema.size, origin },
  };
}

/** What was read off the rows, and so is outside of a privacy guarantee. */
export function readOffRows(schema: DatasetSchema): string[] {
  const named = schema.features.filter((feature) => feature.origin === "from_rows").map((feature) => feature.name);
  if (schema.task === "classification" && schema.classes_origin === "from_rows") named.push("the classes");
  if (schema.task === "regression" && schema.target_origin === "from_rows") named.push("the target’s bounds");
  if (schema.size.origin === "from_rows") named.push("the size");
  return named;
}

export function splitList(text: string): string[] {
  return text
    .split(/[\n,]/)
    .map((item) => item.trim())
    .filter(Boolean);
}
