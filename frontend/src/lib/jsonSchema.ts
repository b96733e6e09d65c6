/** From a JSON schema of one configuration to the fields of a form. */
import { title } from "@/lib/format";
import { isObject } from "@/lib/pointer";
import type { Json, JsonObject } from "@/lib/wire";

export interface FormField {
  name: string;
  label: string;
  hint: string;
  kind: "integer" | "number" | "boolean" | "choice" | "integers" | "numbers" | "text" | "json";
  /** May be null, shown as an empty control. */
  nullable: boolean;
  required: boolean;
  fallback: Json | undefined;
  choices: readonly (string | number)[];
  minimum: number | undefined;
  maximum: number | undefined;
}

/** The fields of `schema` in their order, without its `kind`. */
export function fieldsOf(schema: JsonObject): FormField[] {
  const properties = isObject(schema.properties) ? schema.properties : {};
  const required = Array.isArray(schema.required) ? schema.required : [];
  return Object.entries(properties)
    .filter(([name]) => name !== "kind")
    .map(([name, property]) => describe(name, isObject(property) ? property : {}, schema, required.includes(name)));
}

/** The configuration of a kind with every default filled in. */
export function defaultsOf(kind: string, schema: JsonObject): JsonObject {
  const given = fieldsOf(schema).flatMap((field): [string, Json][] =>
    field.fallback === undefined ? [] : [[field.name, field.fallback]],
  );
  return { kind, ...Object.fromEntries(given) };
}

function describe(name: string, property: JsonObject, root: JsonObject, required: boolean): FormField {
  const own = resolve(property, root);
  const variants = Array.isArray(own.anyOf) ? own.anyOf.filter(isObject).map((one) => resolve(one, root)) : [];
  const nullable = variants.some((one) => one.type === "null");
  const core = variants.find((one) => one.type !== "null") ?? own;
  const items = isObject(core.items) ? resolve(core.items, root) : {};
  const choices = Array.isArray(core.enum)
    ? core.enum.filter((one) => typeof one === "string" || typeof one === "number")
    : [];
  const bounds = core.type === "array" ? items : core;
  return {
    name,
    label: title(name),
    hint: [text(own.description), limits(bounds)].filter(Boolean).join(" "),
    kind: kindOf(core, items, choices.length > 0),
    nullable,
    required,
    fallback: own.default,
    choices,
    minimum: numeric(bounds.minimum) ?? numeric(bounds.exclusiveMinimum),
    maximum: numeric(bounds.maximum) ?? numeric(bounds.exclusiveMaximum),
  };
}

function kindOf(core: JsonObject, items: JsonObject, hasChoices: boolean): FormField["kind"] {
  if (hasChoices) return "choice";
  if (core.type === "integer" || core.type === "number" || core.type === "boolean") return core.type;
  if (core.type === "string") return "text";
  if (core.type === "array" && items.type === "integer") return "integers";
  if (core.type === "array" && items.type === "number") return "numbers";
  return "json";
}

function resolve(schema: JsonObject, root: JsonObject): JsonObject {
  if (typeof schema.$ref !== "string") return schema;
  const name = schema.$ref.split("/").at(-1) ?? "";
  const found = isObject(root.$defs) ? root.$defs[name] : undefined;
  return isObject(found) ? { ...found, ...schema } : schema;
}

/** `1 to 16384`, `above 0`, `from 0, below 1`. */
function limits(schema: JsonObject): string {
  const from = numeric(schema.minimum);
  const above = numeric(schema.exclusiveMinimum);
  const to = numeric(schema.maximum);
  const below = numeric(schema.exclusiveMaximum);
  if (from !== undefined && to !== undefined) return `${from} to ${to}`;
  const low = from !== undefined ? `from ${from}` : above !== undefined ? `above ${above}` : "";
  const high = to !== undefined ? `up to ${to}` : below !== undefined ? `below ${below}` : "";
  return [low, high].filter(Boolean).join(", ");
}

function numeric(value: Json | undefined): number | undefined {
  return typeof value === "number" ? value : undefined;
}

function text(value: Json | undefined): string {
  return typeof value === "string" ? value : "";
}

/** What someone typed into a field for one number: the number, null for nothing, else the text itself, which the api then refuses. */
export function parseNumber(typed: string): number | string | null {
  const trimmed = typed.trim();
  if (trimmed === "") return null;
  const value = Number(trimmed);
  return Number.isFinite(value) ? value : trimmed;
}

/** `128, 64` as a list; what is not a number stays text, so that the api can say which item is wrong. */
export function parseNumbers(typed: string): Json[] {
  return typed
    .split(/[\s,;]+/)
    .filter(Boolean)
    .map((part) => parseNumber(part));
}
