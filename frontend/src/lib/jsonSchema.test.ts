import { describe, expect, it } from "vitest";
import { defaultsOf, fieldsOf, parseNumber, parseNumbers } from "./jsonSchema";
import type { JsonObject } from "./wire";

const schema: JsonObject = {
  type: "object",
  $defs: { Activation: { type: "string", enum: ["relu", "tanh"] } },
  required: ["max_norm"],
  properties: {
    kind: { const: "mlp", type: "string" },
    hidden_sizes: { type: "array", items: { type: "integer", minimum: 1, maximum: 64 }, default: [128] },
    activation: { $ref: "#/$defs/Activation", default: "relu" },
    kernel_size: { type: "integer", enum: [1, 3], default: 3 },
    hidden_size: { anyOf: [{ type: "integer", minimum: 1 }, { type: "null" }], default: null },
    dropout: { type: "number", minimum: 0, exclusiveMaximum: 1, default: 0 },
    bias: { type: "boolean", default: true },
    max_norm: { type: "number", exclusiveMinimum: 0 },
  },
};
const field = (name: string) => fieldsOf(schema).find((one) => one.name === name);

describe("fieldsOf", () => {
  it("leaves the kind out and keeps the order", () => {
    expect(fieldsOf(schema).map((one) => one.name)[0]).toBe("hidden_sizes");
    expect(field("kind")).toBeUndefined();
  });

  it("knows each control", () => {
    expect(field("hidden_sizes")?.kind).toBe("integers");
    expect(field("activation")).toMatchObject({ kind: "choice", choices: ["relu", "tanh"] });
    expect(field("kernel_size")).toMatchObject({ kind: "choice", choices: [1, 3] });
    expect(field("hidden_size")).toMatchObject({ kind: "integer", nullable: true });
    expect(field("bias")?.kind).toBe("boolean");
    expect(field("max_norm")).toMatchObject({ required: true, fallback: undefined });
  });

  it("says the limits", () => {
    expect(field("hidden_sizes")?.hint).toBe("1 to 64");
    expect(field("dropout")?.hint).toBe("from 0, below 1");
    expect(field("max_norm")?.hint).toBe("above 0");
  });
});

it("writes defaults down and leaves out what has none", () => {
  expect(defaultsOf("mlp", schema)).toEqual({
    kind: "mlp",
    hidden_sizes: [128],
    activation: "relu",
    kernel_size: 3,
    hidden_size: null,
    dropout: 0,
    bias: true,
  });
});

describe("numbers as they are typed", () => {
  it("keeps what is no number for the api to refuse", () => {
    expect(parseNumber(" 1e-4 ")).toBe(0.0001);
    expect(parseNumber("")).toBeNull();
    expect(parseNumber("1,5x")).toBe("1,5x");
    expect(parseNumber("Infinity")).toBe("Infinity");
  });

  it("reads lists", () => {
    expect(parseNumbers("128, 64 32")).toEqual([128, 64, 32]);
    expect(parseNumbers("128, a")).toEqual([128, "a"]);
    expect(parseNumbers(" ")).toEqual([]);
  });
});
