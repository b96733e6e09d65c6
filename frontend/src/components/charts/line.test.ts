import { expect, it } from "vitest";
import { valueAt } from "./line";

it("gives the last value that was known at a step", () => {
  const series = { step: [10, 20, 30], value: [1, null, 3], released: true };
  expect(valueAt(series, 5)).toBeNull();
  expect(valueAt(series, 10)).toBe(1);
  expect(valueAt(series, 29)).toBeNull();
  expect(valueAt(series, 1000)).toBe(3);
});
