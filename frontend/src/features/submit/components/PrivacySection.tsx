import { Choices, SelectField } from "@/components/ui/Field";
import { NumberField } from "@/components/ui/NumberField";
import { Note } from "@/components/ui/State";
import { number } from "@/lib/format";
import type { Dataset } from "@/lib/wire";
import { guaranteeOf, suggestedDelta, withGuarantee, type Guarantee } from "./draft";
import type { Form } from "./form";
import { Section } from "./Section";

const RULES = [
  { value: "flat", label: "Flat: by the joint norm" },
  { value: "automatic", label: "Automatic: to about one length" },
  { value: "per_parameter", label: "Per parameter, in equal shares" },
  { value: "per_group", label: "Per group (edit as JSON)", disabled: true },
];

export function PrivacySection({ form, dataset }: { form: Form; dataset: Dataset | undefined }) {
  const guarantee = guaranteeOf(form.draft);
  const rule = form.get("/clipping/kind");
  const size = dataset?.schema.size.value ?? 1000;
  const isPrivate = dataset?.population.visibility === "private";
  return (
    <Section title="Privacy" about="What anyone may learn about a single row from the model.">
      <Choices
        name="guarantee"
        label="Guarantee"
        value={guarantee}
        options={[
          { value: "epsilon", label: "Target epsilon", note: "Noise is chosen so that the target is met" },
          { value: "noise", label: "Noise multiplier", note: "You choose the noise; epsilon follows" },
          { value: "clipping", label: "Clipping only", note: "Bounds a row’s influence; no guarantee" },
          { value: "none", label: "None", note: "Ordinary training" },
        ]}
        onValue={(next) => form.setDraft(withGuarantee(form.draft, next as Guarantee, size))}
      />
      {guarantee !== "none" && (
        <div className="fields">
          {guarantee === "epsilon" && (
            <NumberField
              label="Target epsilon"
              hint="Smaller protects more; 1 to 3 is strong, above 10 weak"
              value={form.get("/privacy/target_epsilon")}
              error={form.errorOf("/privacy/target_epsilon")}
              onValue={(next) => form.set("/privacy/target_epsilon", next)}
            />
          )}
          {guarantee === "noise" && (
            <NumberField
              label="Noise multiplier"
              hint="Standard deviation of the noise, in units of the clipping bound"
              value={form.get("/privacy/noise_multiplier")}
              error={form.errorOf("/privacy/noise_multiplier")}
              onValue={(next) => form.set("/privacy/noise_multiplier", next)}
            />
          )}
          {(guarantee === "epsilon" || guarantee === "noise") && (
            <NumberField
              label="Delta"
              hint={`Well below 1 / rows; for this data set ${number(suggestedDelta(size))} or less`}
              value={form.get("/privacy/delta")}
              error={form.errorOf("/privacy/delta")}
              onValue={(next) => form.set("/privacy/delta", next)}
            />
          )}
          <SelectField
            label="Clip rule"
            value={typeof rule === "string" ? rule : "flat"}
            options={RULES}
            onValue={(kind) => form.set("/clipping", { kind, max_norm: form.get("/clipping/max_norm") ?? 1 })}
          />
          {form.get("/clipping/groups") === undefined && (
            <NumberField
              label="Clipping bound"
              hint="max_norm: every sample’s gradient is scaled to at most this length"
              value={form.get("/clipping/max_norm")}
              error={form.errorOf("/clipping/max_norm")}
              onValue={(next) => form.set("/clipping/max_norm", next)}
            />
          )}
        </div>
      )}
      {(guarantee === "clipping" || guarantee === "none") && (
        <Note tone={isPrivate ? "bad" : "warn"}>
          <strong>This job gives no privacy guarantee.</strong>
          <span>
            {isPrivate
              ? "The rows of this data set are private: the model may reveal single ones, so its results are for owners only."
              : "The model may reveal single rows. That is fine for public data, and for nothing else."}
          </span>
        </Note>
      )}
    </Section>
  );
}
