import { SelectField, TextField } from "@/components/ui/Field";
import { NumberField } from "@/components/ui/NumberField";
import { fieldsOf, type FormField } from "@/lib/jsonSchema";
import type { Json, JsonObject } from "@/lib/wire";

interface Props {
  schema: JsonObject;
  value: JsonObject;
  /** What is wrong with a field, by its name. */
  errorOf: (name: string) => string | undefined;
  onField: (name: string, value: Json | undefined) => void;
}

/** The fields of one configuration, made from its JSON schema. */
export function SchemaForm({ schema, value, errorOf, onField }: Props) {
  const fields = fieldsOf(schema);
  if (fields.length === 0) return <p className="small muted">Nothing to choose here.</p>;
  return (
    <div className="fields">
      {fields.map((field) => (
        <Control
          key={field.name}
          field={field}
          value={value[field.name]}
          error={errorOf(field.name)}
          onValue={(next) => onField(field.name, next)}
        />
      ))}
    </div>
  );
}

function Control({
  field,
  value,
  error,
  onValue,
}: {
  field: FormField;
  value: Json | undefined;
  error: string | undefined;
  onValue: (value: Json | undefined) => void;
}) {
  const frame = {
    label: field.label,
    error,
    ...(field.hint !== "" && { hint: field.hint }),
    ...(field.nullable && { optional: true }),
  };
  switch (field.kind) {
    case "integer":
    case "number":
      // An empty control leaves the field out, so that its default holds.
      return (
        <NumberField
          {...frame}
          value={value}
          placeholder={placeholder(field)}
          onValue={(next) => onValue(next === null && !field.nullable ? undefined : next)}
        />
      );
    case "integers":
    case "numbers":
      return <NumberField {...frame} many value={value} placeholder="none" onValue={onValue} />;
    case "boolean":
      return (
        <SelectField
          {...frame}
          value={(value ?? field.fallback) === true ? "true" : "false"}
          options={[
            { value: "false", label: "no" },
            { value: "true", label: "yes" },
          ]}
          onValue={(next) => onValue(next === "true")}
        />
      );
    case "choice":
      return (
        <SelectField
          {...frame}
          value={typeof value === "string" || typeof value === "number" ? String(value) : ""}
          options={[
            ...(field.nullable ? [{ value: "", label: "none" }] : []),
            ...field.choices.map((choice) => ({ value: String(choice), label: String(choice) })),
          ]}
          onValue={(next) => onValue(field.choices.find((choice) => String(choice) === next) ?? null)}
        />
      );
    case "text":
      return <TextField {...frame} value={typeof value === "string" ? value : ""} onValue={onValue} />;
    case "json":
      return (
        <TextField
          {...frame}
          wide
          className="input--mono"
          value={typeof value === "string" ? value : JSON.stringify(value ?? null)}
          onValue={(next) => onValue(fromJson(next))}
        />
      );
  }
}

function placeholder(field: FormField): string {
  if (typeof field.fallback === "number") return String(field.fallback);
  return field.nullable ? "none" : "";
}

/** JSON as it is typed: text until it is complete. */
function fromJson(typed: string): Json {
  try {
    return JSON.parse(typed) as Json;
  } catch {
    return typed;
  }
}
