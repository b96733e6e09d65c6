import { useQuery } from "@tanstack/react-query";
import { ButtonLink } from "@/components/ui/Button";
import { Chip } from "@/components/ui/Chip";
import { Page } from "@/components/ui/Page";
import { Empty, Failed, Loading } from "@/components/ui/State";
import { plural } from "@/lib/format";
import { fieldsOf, type FormField } from "@/lib/jsonSchema";
import { modelsQuery } from "@/lib/queries";
import type { Json, JsonObject, Kind } from "@/lib/wire";

export function ModelsPage() {
  const models = useQuery({ ...modelsQuery, refetchInterval: 10_000 });
  return (
    <Page title="Models" about="The kinds of models that can be trained here. Installed packages add their own.">
      {models.isPending && <Loading />}
      {models.isError && !models.data && <Failed error={models.error} retry={() => void models.refetch()} />}
      {models.data?.length === 0 && (
        <div className="panel">
          <Empty icon="model" title="The catalogue is empty" />
        </div>
      )}
      <div className="cards">{models.data?.map((kind) => <Card key={kind.kind} kind={kind} />)}</div>
    </Page>
  );
}

function Card({ kind }: { kind: Kind }) {
  const fields = fieldsOf(kind.json_schema as JsonObject);
  return (
    <article className="panel card">
      <div className="spread">
        <h2>{kind.title}</h2>
        <code className="muted">{kind.kind}</code>
      </div>
      <p className="small muted">{kind.description}</p>
      <div className="row">
        {kind.tasks.map((task) => (
          <Chip key={task}>{task}</Chip>
        ))}
        <Chip tone={kind.workers > 0 ? "good" : "warn"}>
          {kind.workers > 0 ? `on ${plural(kind.workers, "worker")}` : "on no worker now"}
        </Chip>
      </div>
      {fields.length > 0 && (
        <dl className="facts facts--list">
          {fields.map((field) => (
            <div key={field.name}>
              <dt>{field.label}</dt>
              <dd className="small">{about(field)}</dd>
            </div>
          ))}
        </dl>
      )}
      <div className="card__foot">
        <ButtonLink href={`/submit?model=${encodeURIComponent(kind.kind)}`} small icon="plus">
          New job with it
        </ButtonLink>
      </div>
    </article>
  );
}

function about(field: FormField): string {
  const choices = field.choices.length > 0 ? field.choices.join(", ") : "";
  const fallback = shown(field.fallback);
  if (choices !== "") return choices.replace(fallback, `${fallback} (default)`);
  return fallback === "" ? (field.nullable ? "none" : "needed") : fallback;
}

function shown(value: Json | undefined): string {
  if (value === undefined || value === null) return "";
  if (Array.isArray(value)) return value.map(shown).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
