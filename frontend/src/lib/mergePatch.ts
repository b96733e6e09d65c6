/** JSON merge patches (RFC 7396): what a document is to have instead. */
import { isObject } from "@/lib/pointer";
import type { JsonObject } from "@/lib/wire";

/**
 * What makes `target` of `source`. A null removes a field, so that a null of `target` comes out as no field:
 * the same for every field of a specification whose default is null.
 */
export function mergePatch(source: JsonObject, target: JsonObject): JsonObject {
  const patch: JsonObject = {};
  for (const name of Object.keys(source)) {
    if (!(name in target)) patch[name] = null;
  }
  for (const [name, value] of Object.entries(target)) {
    const before = source[name];
    if (isObject(before) && isObject(value)) {
      const inner = mergePatch(before, value);
      if (Object.keys(inner).length > 0) patch[name] = inner;
    } else if (JSON.stringify(before) !== JSON.stringify(value) && !(before === undefined && value === null)) {
      patch[name] = value;
    }
  }
  return patch;
}
