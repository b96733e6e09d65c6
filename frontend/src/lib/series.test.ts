import { describe, expect, it } from "vitest";
import { longest, merge, smooth, spread } from "./series";

const one = (step: number[], value: (number | null)[] = step) => ({ step, value, released: false });

describe("merge", () => {
  it("appends what is new and asks from one answer back", () => {
    const first = merge(undefined, { loss: one([1, 2, 3]) });
    expect(first.cursor).toBe(3);
    expect(first.resumeFrom).toBe(0);
    const second = merge(first, { loss: one([4, 5]) });
    expect(second.series.loss?.step).toEqual([1, 2, 3, 4, 5]);
    expect(second.resumeFrom).toBe(3);
  });

  it("does not double what was sent twice, and takes a value that was written late", () => {
    const first = merge(undefined, { loss: one([1, 2, 3]) });
    const second = merge(first, { loss: one([2, 3, 4], [20, 30, 40]), accuracy: one([2], [0.5]) });
    expect(second.series.loss?.value).toEqual([1, 20, 30, 40]);
    expect(second.series.accuracy?.step).toEqual([2]);
  });

  it("leaves its argument as it was", () => {
    const first = merge(undefined, { loss: one([1]) });
    merge(first, { loss: one([2]) });
    expect(first.series.loss?.step).toEqual([1]);
    expect(longest(first.series)).toBe(1);
  });
});

describe("smooth", () => {
  it("gives a constant back, from its first value on", () => {
    for (const value of smooth([2, 2, 2], 0.9)) expect(value).toBeCloseTo(2);
  });

  it("keeps gaps, and changes nothing without weight", () => {
    expect(smooth([1, null, 3], 0.5)[1]).toBeNull();
    expect(smooth([1, 5], 0)).toEqual([1, 5]);
  });

  it("lies between its values", () => {
    const second = smooth([0, 1], 0.5)[1] ?? 0;
    expect(second).toBeCloseTo(2 / 3);
  });
});

it("spreads over both ends", () => {
  expect(spread(3, 10)).toEqual([0, 1, 2]);
  expect(spread(101, 3)).toEqual([0, 50, 100]);
});
