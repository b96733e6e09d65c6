import { useState, type ComponentProps } from "react";
import { TextField, type FieldFrame } from "@/components/ui/Field";
import { parseNumber, parseNumbers } from "@/lib/jsonSchema";
import type { Json } from "@/lib/wire";

type Rest = FieldFrame & Omit<ComponentProps<"input">, "value">;

/** A field for one number, or for a list of them; what was typed stays as it was typed. */
export function NumberField({
  value,
  onValue,
  many = false,
  ...rest
}: Rest & { value: Json | undefined; onValue: (value: Json) => void; many?: boolean }) {
  const parse = (typed: string): Json => (many ? parseNumbers(typed) : parseNumber(typed));
  const [typed, setTyped] = useState(() => shown(value));
  // The value may also come from elsewhere: from the JSON, or from another default.
  const text = JSON.stringify(parse(typed)) === JSON.stringify(value ?? (many ? [] : null)) ? typed : shown(value);
  return (
    <TextField
      {...rest}
      inputMode={many ? "text" : "decimal"}
      autoComplete="off"
      value={text}
      onValue={(next) => {
        setTyped(next);
        onValue(parse(next));
      }}
    />
  );
}

function shown(value: Json | undefined): string {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.map((item) => shown(item)).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
