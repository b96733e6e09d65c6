import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { useLocation } from "wouter";
import { Button, ButtonLink } from "@/components/ui/Button";
import { Chip } from "@/components/ui/Chip";
import { CopyButton } from "@/components/ui/CopyButton";
import { Confirm } from "@/components/ui/Dialog";
import { Facts, Page, Panel } from "@/components/ui/Page";
import { Failed, Loading, Note } from "@/components/ui/State";
import { bytes, dateTime, integer, plural } from "@/lib/format";
import type { Dataset, Role } from "@/lib/wire";
import { datasetQuery, useDeleteDataset } from "../api/datasets";
import { StateChip } from "./DatasetsPage";
import { SchemaEditor } from "./SchemaEditor";
import { SchemaTable } from "./SchemaTable";

export function DatasetPage({ id, role }: { id: string; role: Role }) {
  const dataset = useQuery(datasetQuery(id));
  if (dataset.isPending) return <Loading lines={9} />;
  if (!dataset.data) {
    return (
      <Page title="Data set" back={{ href: "/datasets", label: "Data sets" }}>
        <Failed error={dataset.error} retry={() => void dataset.refetch()} />
      </Page>
    );
  }
  return <Loaded key={dataset.data.id} dataset={dataset.data} owner={role === "owner"} />;
}

function Loaded({ dataset, owner }: { dataset: Dataset; owner: boolean }) {
  const [editing, setEditing] = useState(false);
  const proposed = dataset.status === "proposed";
  const ready = dataset.status === "ready";
  return (
    <Page
      title={dataset.name}
      back={{ href: "/datasets", label: "Data sets" }}
      about={
        <span className="row small">
          <StateChip dataset={dataset} />
          <Chip tone={dataset.population.visibility === "private" ? "warn" : "idle"}>
            {dataset.population.visibility}
          </Chip>
          <span className="mono">{dataset.id}</span>
        </span>
      }
      actions={
        <>
          {ready && (
            <ButtonLink href={`/submit?dataset=${encodeURIComponent(dataset.name)}`} look="primary" icon="plus">
              New job on it
            </ButtonLink>
          )}
          {owner && ready && dataset.source === "upload" && !editing && (
            <Button onClick={() => setEditing(true)}>Edit schema</Button>
          )}
          {owner && dataset.source === "upload" && <Remove dataset={dataset} />}
        </>
      }
    >
      {dataset.notes.length > 0 && (
        <Note>
          <strong>{dataset.source === "builtin" ? "About this data set" : "What was noticed in the file"}</strong>
          <ul className="bullets">
            {dataset.notes.map((note) => (
              <li key={note}>{note}</li>
            ))}
          </ul>
        </Note>
      )}
      <Panel>
        <Facts items={factsOf(dataset)} />
      </Panel>
      {(proposed && owner) || editing ? (
        <SchemaEditor
          key={dataset.status}
          dataset={dataset}
          onDone={() => setEditing(false)}
          {...(editing && { onCancel: () => setEditing(false) })}
        />
      ) : (
        <>
          {proposed && (
            <Note tone="warn">
              <span>This schema is a proposal. An owner has to confirm it before jobs can use the data set.</span>
            </Note>
          )}
          <SchemaTable schema={dataset.schema} />
        </>
      )}
    </Page>
  );
}

function factsOf(dataset: Dataset): (readonly [string, React.ReactNode])[] {
  const { schema } = dataset;
  const maxRows = schema.unit.max_rows;
  return [
    ["Task", schema.task],
    ["Predicts", schema.target],
    ["Features", integer(schema.features.length)],
    ["Rows", integer(dataset.rows ?? schema.size.value)],
    ["Protects", maxRows === 1 ? "each row" : `each row; a person has up to ${plural(maxRows, "row")}`],
    ["Population", dataset.population.name],
    ["File", dataset.source === "builtin" ? "came with Clipwise" : `${dataset.format.toUpperCase()}, ${bytes(dataset.size_bytes)}`],
    ["Added", dateTime(dataset.created_at)],
    ...(dataset.sha256
      ? [
          [
            "SHA-256",
            <span key="sha" className="row">
              <code title={dataset.sha256}>{dataset.sha256.slice(0, 12)}…</code>
              <CopyButton text={dataset.sha256} />
            </span>,
          ] as const,
        ]
      : []),
  ];
}

function Remove({ dataset }: { dataset: Dataset }) {
  const [, navigate] = useLocation();
  const [asking, setAsking] = useState(false);
  const remove = useDeleteDataset(dataset.id);
  return (
    <>
      <Button icon="trash" onClick={() => setAsking(true)}>
        Delete
      </Button>
      <Confirm
        open={asking}
        title={`Delete “${dataset.name}”?`}
        verb="Delete the data set"
        busy={remove.isPending}
        error={remove.error}
        onConfirm={() => remove.mutate(undefined, { onSuccess: () => navigate("/datasets") })}
        onClose={() => setAsking(false)}
      >
        <p>Its file and everything read from it are deleted. Jobs that were trained on it stay. This cannot be undone.</p>
      </Confirm>
    </>
  );
}
