import { useState, type SyntheticEvent } from "react";
import { Button } from "@/components/ui/Button";
import { SelectField, TextField } from "@/components/ui/Field";
import { NumberField } from "@/components/ui/NumberField";
import { Panel } from "@/components/ui/Page";
import { Note, ProblemNote } from "@/components/ui/State";
import { plural } from "@/lib/format";
import { ProblemError } from "@/lib/problem";
import type { Dataset, DatasetSchema, Origin } from "@/lib/wire";
import { useConfirmSchema } from "../api/datasets";
import { FeatureRows } from "./FeatureRows";
import { asNumber, ORIGIN_OPTIONS } from "./origins";
import { canBeTarget, readOffRows, splitList, withOrigin, withTarget, withTask } from "./schemaEdits";

export function SchemaEditor({
  dataset,
  onDone,
  onCancel,
}: {
  dataset: Dataset;
  onDone: () => void;
  onCancel?: () => void;
}) {
  const [schema, setSchema] = useState<DatasetSchema>(dataset.schema);
  const confirm = useConfirmSchema(dataset.id);
  const problems = new Map(
    confirm.error instanceof ProblemError ? confirm.error.fields.map((one) => [one.pointer, one.detail]) : [],
  );
  const change = (next: DatasetSchema) => {
    setSchema(next);
    if (confirm.isError) confirm.reset();
  };
  const send = (event: SyntheticEvent) => {
    event.preventDefault();
    confirm.mutate(schema, { onSuccess: onDone });
  };
  const isPrivate = dataset.population.visibility === "private";
  const offRows = readOffRows(schema);
  return (
    <form className="stack" onSubmit={send} noValidate>
      <Panel
        title={onCancel ? "Edit the schema" : "Check the proposed schema"}
        note="It was read off the file. Correct what is wrong; ranges that you know beforehand are better than ranges read off private rows."
      >
        <TargetFields schema={schema} onSchema={change} errorOf={(pointer) => problems.get(pointer)} />
      </Panel>
      <FeatureRows schema={schema} onSchema={change} problems={problems} />
      {isPrivate && offRows.length > 0 && (
        <Note tone="warn">
          <strong>{plural(offRows.length, "number")} of this schema would be outside of the privacy guarantee</strong>
          <span>
            {offRows.slice(0, 6).join(", ")}
            {offRows.length > 6 && ` and ${offRows.length - 6} more`}: their ranges were read off the private rows. Set
            ranges that you know without looking, and say “declared”.
          </span>
          <span>
            <Button small onClick={() => change(withOrigin(schema, "declared"))}>
              I know all of them: declared
            </Button>
          </span>
        </Note>
      )}
      <ProblemNote error={confirm.error} />
      {problems.size > 0 && (
        <ul className="bullets small">
          {[...problems].map(([pointer, detail]) => (
            <li key={pointer}>
              <strong>{place(pointer, schema)}</strong> {detail}
            </li>
          ))}
        </ul>
      )}
      <div className="row">
        <Button type="submit" look="primary" icon="check" busy={confirm.isPending}>
          {confirm.isPending ? "Reading all rows…" : "Confirm schema"}
        </Button>
        {onCancel && <Button onClick={onCancel}>Cancel</Button>}
      </div>
    </form>
  );
}

function TargetFields({
  schema,
  onSchema,
  errorOf,
}: {
  schema: DatasetSchema;
  onSchema: (schema: DatasetSchema) => void;
  errorOf: (pointer: string) => string | undefined;
}) {
  const classification = schema.task === "classification";
  const [low, high] = schema.target_bounds ?? [0, 1];
  return (
    <div className="fields">
      <SelectField
        label="Column to predict"
        value={schema.target}
        error={errorOf("/target")}
        options={[schema.target, ...schema.features.filter(canBeTarget).map((feature) => feature.name)].map((name) => ({
          value: name,
          label: name,
        }))}
        onValue={(name) => onSchema(withTarget(schema, name))}
      />
      <SelectField
        label="Task"
        value={schema.task}
        error={errorOf("/task")}
        options={[
          { value: "classification", label: "classification" },
          { value: "regression", label: "regression" },
        ]}
        onValue={(task) => onSchema(withTask(schema, task === "regression" ? "regression" : "classification"))}
      />
      {classification ? (
        <>
          <ListField
            label="Classes"
            values={schema.classes ?? []}
            error={errorOf("/classes")}
            onValues={(classes) => onSchema({ ...schema, classes })}
          />
          <SelectField
            label="Classes are"
            value={schema.classes_origin}
            options={ORIGIN_OPTIONS}
            onValue={(origin) => onSchema({ ...schema, classes_origin: origin as Origin })}
          />
        </>
      ) : (
        <>
          <NumberField
            label="Lowest value"
            value={low}
            error={errorOf("/target_bounds")}
            onValue={(next) => onSchema({ ...schema, target_bounds: [asNumber(next), high] })}
          />
          <NumberField
            label="Highest value"
            value={high}
            onValue={(next) => onSchema({ ...schema, target_bounds: [low, asNumber(next)] })}
          />
          <SelectField
            label="These bounds are"
            value={schema.target_origin}
            options={ORIGIN_OPTIONS}
            onValue={(origin) => onSchema({ ...schema, target_origin: origin as Origin })}
          />
        </>
      )}
      <NumberField
        label="Size"
        hint="Number of rows; public under the guarantee"
        value={schema.size.value}
        error={errorOf("/size/value")}
        onValue={(next) => onSchema({ ...schema, size: { ...schema.size, value: asNumber(next) } })}
      />
      <SelectField
        label="Size is"
        value={schema.size.origin}
        options={ORIGIN_OPTIONS}
        onValue={(origin) => onSchema({ ...schema, size: { ...schema.size, origin: origin as Origin } })}
      />
    </div>
  );
}

/** Names, separated by commas; what is being typed stays as it is. */
function ListField({
  label,
  values,
  error,
  onValues,
}: {
  label: string;
  values: readonly string[];
  error: string | undefined;
  onValues: (values: string[]) => void;
}) {
  const [typed, setTyped] = useState(values.join(", "));
  const text = splitList(typed).join("\n") === values.join("\n") ? typed : values.join(", ");
  return (
    <TextField
      label={label}
      hint={`${plural(values.length, "class", "classes")}, separated by commas, in the order of the outputs`}
      value={text}
      error={error}
      onValue={(next) => {
        setTyped(next);
        onValues(splitList(next));
      }}
    />
  );
}

/** `/features/3/bounds` as `age, bounds:`. */
function place(pointer: string, schema: DatasetSchema): string {
  const [, part = "", index, ...rest] = pointer.split("/");
  if (part === "") return "";
  if (part !== "features" || index === undefined) return `${part.replaceAll("_", " ")}:`;
  const name = schema.features[Number(index)]?.name ?? `column ${index}`;
  const what = rest.find((one) => Number.isNaN(Number(one)));
  return what === undefined ? `${name}:` : `${name}, ${what}:`;
}
