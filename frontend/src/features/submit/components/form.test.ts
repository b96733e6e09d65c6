import { expect, it } from "vitest";
import { errorAt, withoutPlace } from "./form";

const problems = new Map([
  ["/model/hidden_sizes/0", "too small"],
  ["/training", "give either"],
  ["/limits/other", "unknown"],
]);

it("shows a deeper problem at its field", () => {
  expect(errorAt(problems, "/model/hidden_sizes")).toBe("too small");
  expect(errorAt(problems, "/model/hidden")).toBeUndefined();
});

it("finds those that no field shows", () => {
  expect(withoutPlace(problems).map(([pointer]) => pointer)).toEqual(["/training", "/limits/other"]);
});
