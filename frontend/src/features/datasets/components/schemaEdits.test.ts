import { describe, expect, it } from "vitest";
import type { DatasetSchema } from "@/lib/wire";
import { readOffRows, splitList, withOrigin, withTarget, withTask } from "./schemaEdits";

const schema: DatasetSchema = {
  features: [
    { name: "age", type: "number", bounds: [18, 95], origin: "from_rows", fill: null },
    { name: "sex", type: "category", categories: ["f", "m"], origin: "declared", fill: null },
  ],
  target: "label",
  task: "classification",
  classes: ["0", "1", "2"],
  classes_origin: "from_rows",
  target_bounds: null,
  target_origin: "declared",
  unit: { column: null, max_rows: 1 },
  size: { value: 100, origin: "declared" },
};

describe("another target", () => {
  it("makes a number a regression and the old target a feature", () => {
    const next = withTarget(schema, "age");
    expect(next).toMatchObject({ target: "age", task: "regression", classes: null, target_bounds: [18, 95] });
    expect(next.target_origin).toBe("from_rows");
    expect(next.features.map((feature) => feature.name)).toEqual(["sex", "label"]);
  });

  it("comes back to where it was", () => {
    const there = withTarget(withTarget(schema, "sex"), "label");
    expect(there).toMatchObject({ target: "label", task: "classification", classes: ["0", "1", "2"] });
    expect(there.features.map((feature) => feature.name)).toEqual(["age", "sex"]);
  });
});

it("offers what another task needs", () => {
  expect(withTask(schema, "regression")).toMatchObject({ classes: null, target_bounds: [0, 2] });
  const back = withTask({ ...schema, task: "regression", classes: null, target_bounds: [3, 5] }, "classification");
  expect(back.classes).toEqual(["3", "4", "5"]);
});

it("knows what is outside of a guarantee", () => {
  expect(readOffRows(schema)).toEqual(["age", "the classes"]);
  expect(readOffRows(withOrigin(schema, "declared"))).toEqual([]);
});

it("splits lists", () => {
  expect(splitList("a, b,,c\nd")).toEqual(["a", "b", "c", "d"]);
});
