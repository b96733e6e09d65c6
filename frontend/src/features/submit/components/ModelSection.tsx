import { Choices, FieldError } from "@/components/ui/Field";
import { SchemaForm } from "@/components/ui/SchemaForm";
import { defaultsOf, fieldsOf } from "@/lib/jsonSchema";
import { isObject } from "@/lib/pointer";
import type { Dataset, Kind } from "@/lib/wire";
import { fits, schemaOf } from "./draft";
import type { Form } from "./form";
import { Section } from "./Section";

export function ModelSection({
  form,
  models,
  dataset,
}: {
  form: Form;
  models: readonly Kind[];
  dataset: Dataset | undefined;
}) {
  const model = form.get("/model");
  const value = isObject(model) ? model : {};
  const kind = models.find((one) => one.kind === value.kind);
  // What belongs to no field of the kind is said under the choice of the kind.
  const known = kind ? fieldsOf(schemaOf(kind)).map((field) => field.name) : [];
  const ownError = known.some((name) => form.errorOf(`/model/${name}`)) ? undefined : form.errorOf("/model");
  const choose = (next: string) => {
    const chosen = models.find((one) => one.kind === next);
    if (chosen) form.set("/model", defaultsOf(chosen.kind, schemaOf(chosen)));
  };
  return (
    <Section title="Model">
      <Choices
        name="model"
        label="Kind"
        value={kind?.kind ?? ""}
        options={models.map((one) => {
          const suits = dataset === undefined || fits(one, dataset);
          return {
            value: one.kind,
            label: one.title,
            note: suits
              ? one.workers === 0
                ? "No worker that is up now has it"
                : firstSentence(one.description)
              : `Not for ${dataset.schema.task}`,
            disabled: !suits,
          };
        })}
        onValue={choose}
      />
      {ownError !== undefined && <FieldError>{ownError}</FieldError>}
      {kind && (
        <SchemaForm
          key={kind.kind}
          schema={schemaOf(kind)}
          value={value}
          errorOf={(name) => form.errorOf(`/model/${name}`)}
          onField={(name, next) => form.set(`/model/${name}`, next)}
        />
      )}
    </Section>
  );
}

function firstSentence(text: string): string {
  return text.split(". ")[0] ?? "";
}
