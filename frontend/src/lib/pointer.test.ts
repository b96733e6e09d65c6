import { describe, expect, it } from "vitest";
import { getAt, parts, setAt } from "./pointer";

const draft = { training: { steps: 3 }, optimizer: { modules: [{ kind: "adam" }, { kind: "momentum" }] } };

describe("pointers", () => {
  it("unescapes", () => {
    expect(parts("/tags/a~1b~0c")).toEqual(["tags", "a/b~c"]);
  });

  it("reads objects and lists", () => {
    expect(getAt(draft, "/optimizer/modules/1/kind")).toBe("momentum");
    expect(getAt(draft, "/training/none/deeper")).toBeUndefined();
    expect(getAt(draft, "")).toBe(draft);
  });

  it("writes a copy and makes what is missing", () => {
    const next = setAt(draft, "/privacy/delta", 0.1);
    expect(next.privacy).toEqual({ delta: 0.1 });
    expect(draft).not.toHaveProperty("privacy");
    expect(next.training).toBe(draft.training);
  });

  it("removes from objects and lists", () => {
    expect(setAt(draft, "/training/steps", undefined).training).toEqual({});
    expect(getAt(setAt(draft, "/optimizer/modules/0", undefined), "/optimizer/modules")).toEqual([{ kind: "momentum" }]);
  });
});
