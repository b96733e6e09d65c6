import { Button } from "@/components/ui/Button";
import { FieldError } from "@/components/ui/Field";
import { NumberField } from "@/components/ui/NumberField";
import { SchemaForm } from "@/components/ui/SchemaForm";
import { defaultsOf, fieldsOf } from "@/lib/jsonSchema";
import { isObject } from "@/lib/pointer";
import type { JsonObject, Kind } from "@/lib/wire";
import { schemaOf } from "./draft";
import type { Form } from "./form";
import { Section } from "./Section";

/** What a module starts with where its schema has no default. */
const STARTS: Record<string, JsonObject> = { l2_clipping: { max_norm: 5 }, gaussian_noise: { std: 0.01 } };

export function OptimizerSection({ form, modules }: { form: Form; modules: readonly Kind[] }) {
  const given = form.get("/optimizer/modules");
  const chain = Array.isArray(given) ? given.filter(isObject) : [];
  const add = (kind: Kind) => {
    form.set("/optimizer/modules", [
      ...chain,
      { ...defaultsOf(kind.kind, schemaOf(kind)), ...STARTS[kind.kind] },
    ]);
  };
  const privately = isObject(form.get("/privacy"));
  return (
    <Section
      title="Optimizer"
      about="Stochastic gradient descent, with modules that change the averaged gradient one after another."
    >
      <div className="fields">
        <NumberField
          label="Learning rate"
          value={form.get("/optimizer/learning_rate")}
          error={form.errorOf("/optimizer/learning_rate")}
          onValue={(next) => form.set("/optimizer/learning_rate", next ?? undefined)}
        />
        <NumberField
          label="Weight decay"
          value={form.get("/optimizer/weight_decay")}
          error={form.errorOf("/optimizer/weight_decay")}
          onValue={(next) => form.set("/optimizer/weight_decay", next ?? undefined)}
        />
      </div>
      {chain.map((config, index) => (
        <Module
          key={index}
          form={form}
          config={config}
          pointer={`/optimizer/modules/${index}`}
          kind={modules.find((one) => one.kind === config.kind)}
        />
      ))}
      <div className="row">
        <span className="small muted">Add a module</span>
        {modules
          // Under privacy, noise comes from the mechanism alone.
          .filter((kind) => !(privately && kind.kind.endsWith("_noise")))
          .map((kind) => (
            <Button key={kind.kind} small icon="plus" onClick={() => add(kind)}>
              {kind.title}
            </Button>
          ))}
      </div>
    </Section>
  );
}

function Module({
  form,
  config,
  pointer,
  kind,
}: {
  form: Form;
  config: JsonObject;
  pointer: string;
  kind: Kind | undefined;
}) {
  const fields = kind ? fieldsOf(schemaOf(kind)) : [];
  const ownError = fields.some((field) => form.errorOf(`${pointer}/${field.name}`)) ? undefined : form.errorOf(pointer);
  const name = kind?.title ?? (typeof config.kind === "string" ? config.kind : "Module");
  return (
    <div className="module">
      <div className="spread">
        <h3>{name}</h3>
        <Button small look="quiet" icon="close" iconOnly onClick={() => form.set(pointer, undefined)}>
          {`Remove ${name}`}
        </Button>
      </div>
      {kind && (
        <SchemaForm
          schema={schemaOf(kind)}
          value={config}
          errorOf={(field) => form.errorOf(`${pointer}/${field}`)}
          onField={(field, next) => form.set(`${pointer}/${field}`, next)}
        />
      )}
      {ownError !== undefined && <FieldError>{ownError}</FieldError>}
    </div>
  );
}
