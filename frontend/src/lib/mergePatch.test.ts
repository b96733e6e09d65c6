import { expect, it } from "vitest";
import { mergePatch } from "./mergePatch";

const spec = {
  name: "first",
  dataset: "digits",
  model: { kind: "mlp", hidden_sizes: [128] },
  training: { steps: 300, epochs: null, seed: 7 },
  privacy: { target_epsilon: 3, delta: 1e-4 },
  tags: { team: "cardiology" },
};

it("of the same is empty", () => {
  expect(mergePatch(spec, structuredClone(spec))).toEqual({});
});

it("has what is different, deep inside too, and lists as a whole", () => {
  const target = { ...spec, training: { ...spec.training, seed: 8 }, model: { kind: "mlp", hidden_sizes: [64, 64] } };
  expect(mergePatch(spec, target)).toEqual({ training: { seed: 8 }, model: { hidden_sizes: [64, 64] } });
});

it("removes what is gone or null", () => {
  const target = { ...spec, name: null, privacy: null, tags: {}, model: { kind: "logistic" } };
  expect(mergePatch(spec, target)).toEqual({
    name: null,
    privacy: null,
    tags: { team: null },
    model: { kind: "logistic", hidden_sizes: null },
  });
});

it("puts an object in the place of none, and asks for no null where there is nothing", () => {
  const { privacy, ...open } = spec;
  expect(mergePatch({ ...open, privacy: null }, spec)).toEqual({ privacy });
  expect(mergePatch(open, { ...open, privacy: null })).toEqual({});
});
