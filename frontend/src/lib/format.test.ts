import { expect, it } from "vitest";
import { ago, bytes, duration, number, percent, secondsAgo, title } from "./format";

it("writes numbers", () => {
  expect(number(2.99842)).toBe("2.998");
  expect(number(0.0001)).toBe("0.0001");
  expect(number(0.00001)).toBe("1e−5");
  expect(number(1797)).toBe("1,797");
  expect(number(-0.5)).toBe("−0.5");
  expect(number(null)).toBe("–");
  expect(number(Number.NaN)).toBe("–");
});

it("writes shares and sizes", () => {
  expect(percent(0.9479)).toBe("94.8 %");
  expect(bytes(994)).toBe("994 B");
  expect(bytes(38_720)).toBe("38.7 KB");
});

it("writes times", () => {
  expect(duration(3.21)).toBe("3.2 s");
  expect(duration(59.6)).toBe("1 min");
  expect(duration(146)).toBe("2 min 26 s");
  expect(duration(3600)).toBe("1 h");
  expect(duration(null)).toBe("–");
  expect(ago("2026-01-01T00:00:00Z", Date.parse("2026-01-01T00:05:00Z"))).toBe("5 min ago");
  expect(ago("2026-01-01T00:00:00Z", Date.parse("2026-01-01T00:00:04Z"))).toBe("just now");
  expect(secondsAgo(4.7)).toBe("4 s ago");
  expect(secondsAgo(7300)).toBe("2 h ago");
});

it("writes names", () => {
  expect(title("max_runtime_exceeded")).toBe("Max runtime exceeded");
});
