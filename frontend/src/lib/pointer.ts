/** JSON pointers (RFC 6901) into plain JSON, without changing it. */
import type { Json, JsonObject } from "@/lib/wire";

export function parts(pointer: string): string[] {
  if (pointer === "") return [];
  return pointer
    .slice(1)
    .split("/")
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function getAt(document: Json, pointer: string): Json | undefined {
  let value: Json | undefined = document;
  for (const part of parts(pointer)) {
    if (Array.isArray(value)) value = value[Number(part)];
    else if (isObject(value)) value = value[part];
    else return undefined;
  }
  return value;
}

/** A copy of `document` with `value` at `pointer`; `undefined` removes. Missing objects are made. */
export function setAt(document: JsonObject, pointer: string, value: Json | undefined): JsonObject {
  return put(document, parts(pointer), value) as JsonObject;
}

function put(node: Json | undefined, path: string[], value: Json | undefined): Json | undefined {
  const [head, ...rest] = path;
  if (head === undefined) return value;
  if (Array.isArray(node)) {
    const copy = [...node];
    const next = put(copy[Number(head)], rest, value);
    if (next === undefined) copy.splice(Number(head), 1);
    else copy[Number(head)] = next;
    return copy;
  }
  const copy: JsonObject = isObject(node) ? { ...node } : {};
  const next = put(copy[head], rest, value);
  if (next === undefined) {
    return Object.fromEntries(Object.entries(copy).filter(([name]) => name !== head));
  }
  copy[head] = next;
  return copy;
}
