import { Link } from "wouter";
import { Chip } from "@/components/ui/Chip";
import { Segments, SelectField, TextField } from "@/components/ui/Field";
import { NumberField } from "@/components/ui/NumberField";
import { integer, plural } from "@/lib/format";
import { isObject } from "@/lib/pointer";
import type { Dataset } from "@/lib/wire";
import type { Form } from "./form";
import { Section } from "./Section";

export function DataSection({
  form,
  datasets,
  dataset,
}: {
  form: Form;
  datasets: readonly Dataset[];
  dataset: Dataset | undefined;
}) {
  const name = form.get("/name");
  return (
    <Section title="Data">
      <div className="fields">
        <SelectField
          label="Data set"
          value={dataset?.name ?? ""}
          error={form.errorOf("/dataset")}
          options={[
            ...(dataset ? [] : [{ value: "", label: "Choose…" }]),
            ...datasets.map((one) => ({ value: one.name, label: one.name })),
          ]}
          onValue={(next) => form.set("/dataset", next)}
        />
        <TextField
          label="Name of the job"
          optional
          value={typeof name === "string" ? name : ""}
          error={form.errorOf("/name")}
          onValue={(next) => form.set("/name", next === "" ? null : next)}
        />
      </div>
      {dataset && (
        <div className="row small">
          <Chip tone={dataset.population.visibility === "private" ? "warn" : "idle"}>
            {dataset.population.visibility}
          </Chip>
          <Chip>{dataset.schema.task}</Chip>
          <span className="muted">
            {integer(dataset.schema.size.value)} rows, {plural(dataset.schema.features.length, "feature")}, predicting “
            {dataset.schema.target}”
          </span>
          <Link href={`/datasets/${dataset.id}`}>Look at it</Link>
        </div>
      )}
    </Section>
  );
}

type Length = "steps" | "epochs";
const LENGTHS = [
  { value: "steps", label: "Steps" },
  { value: "epochs", label: "Epochs" },
] as const;

export function TrainingSection({ form }: { form: Form }) {
  const epochs = form.get("/training/epochs");
  const length: Length = epochs !== null && epochs !== undefined ? "epochs" : "steps";
  const choose = (next: Length) => {
    const training = form.get("/training");
    const length = next === "steps" ? { steps: 300, epochs: null } : { steps: null, epochs: 20 };
    form.set("/training", { ...(isObject(training) ? training : {}), ...length });
  };
  const field = (name: string) => ({
    value: form.get(`/training/${name}`),
    error: form.errorOf(`/training/${name}`),
  });
  return (
    <Section title="Training">
      <Segments<Length> label="Length in" value={length} options={LENGTHS} onValue={choose} />
      <div className="fields">
        <NumberField
          label={length === "steps" ? "Steps" : "Epochs"}
          {...field(length)}
          onValue={(next) => form.set(`/training/${length}`, next)}
        />
        <NumberField
          label="Batch size"
          hint="Under privacy the expected size: each row is drawn by chance"
          {...field("batch_size")}
          onValue={(next) => form.set("/training/batch_size", next ?? undefined)}
        />
        <NumberField
          label="Microbatch size"
          optional
          placeholder="automatic"
          hint="What fits in memory at once; never changes the result"
          {...field("microbatch_size")}
          onValue={(next) => form.set("/training/microbatch_size", next)}
        />
        <NumberField
          label="Seed"
          hint="For weights and splits; never for the noise"
          {...field("seed")}
          onValue={(next) => form.set("/training/seed", next ?? undefined)}
        />
        <SelectField
          label="Precision"
          value={form.get("/training/precision") === "float64" ? "float64" : "float32"}
          error={form.errorOf("/training/precision")}
          options={[
            { value: "float32", label: "float32" },
            { value: "float64", label: "float64" },
          ]}
          onValue={(next) => form.set("/training/precision", next)}
        />
      </div>
    </Section>
  );
}
