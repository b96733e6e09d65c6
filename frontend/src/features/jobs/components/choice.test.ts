import { expect, it } from "vitest";
import { toggled } from "./choice";

const LIST = ["a", "b", "c", "d", "e"];
const of = (...ids: string[]) => new Set(ids);

it("chooses one and leaves it", () => {
  expect(toggled(of(), LIST, "b", null)).toEqual(of("b"));
  expect(toggled(of("b", "c"), LIST, "b", null)).toEqual(of("c"));
});

it("chooses and leaves a range, in both directions", () => {
  expect(toggled(of("b"), LIST, "d", "b")).toEqual(of("b", "c", "d"));
  expect(toggled(of("d"), LIST, "b", "d")).toEqual(of("b", "c", "d"));
  expect(toggled(of("a", "b", "c", "d"), LIST, "d", "b")).toEqual(of("a"));
});

it("takes one alone where the other end has gone", () => {
  expect(toggled(of("gone"), LIST, "d", "gone")).toEqual(of("gone", "d"));
});
