import { expect, it } from "vitest";
import type { LogLine } from "@/lib/wire";
import { append } from "./lines";

const lines = (...ids: number[]) => ids.map((id) => ({ id, line: `line ${id}` }) as LogLine);
const ids = (found: LogLine[]) => found.map((line) => line.id);

it("takes what is new, and nothing twice", () => {
  expect(ids(append(lines(1, 2), lines(2, 3, 4)))).toEqual([1, 2, 3, 4]);
  expect(ids(append([], lines(5, 6)))).toEqual([5, 6]);
});

it("keeps the last ones", () => {
  expect(ids(append(lines(1, 2, 3), lines(4, 5), 3))).toEqual([3, 4, 5]);
});

it("gives the same list back where nothing is new", () => {
  const before = lines(1, 2);
  expect(append(before, lines(1, 2))).toBe(before);
});
