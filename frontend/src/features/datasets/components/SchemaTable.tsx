import { useState } from "react";
import { Button } from "@/components/ui/Button";
import { Chip } from "@/components/ui/Chip";
import { Panel } from "@/components/ui/Page";
import { integer, number, plural } from "@/lib/format";
import type { DatasetSchema, Feature, Origin } from "@/lib/wire";
import { ORIGINS } from "./origins";

const PAGE = 50;

export function SchemaTable({ schema }: { schema: DatasetSchema }) {
  return (
    <div className="stack">
      <Panel title="Target">
        <div className="row">
          <strong>{schema.target}</strong>
          <Chip>{schema.task}</Chip>
          {schema.task === "classification" ? (
            <>
              <span className="small">{listed(schema.classes ?? [])}</span>
              <OriginChip origin={schema.classes_origin} />
            </>
          ) : (
            <>
              <span className="small">{bounds(schema.target_bounds ?? null)}</span>
              <OriginChip origin={schema.target_origin} />
            </>
          )}
          <span className="small muted">
            size {integer(schema.size.value)}, {ORIGINS[schema.size.origin].label}
          </span>
        </div>
      </Panel>
      <Paged features={schema.features} />
    </div>
  );
}

function Paged({ features }: { features: readonly Feature[] }) {
  const { shown, pager } = usePages(features);
  return (
    <Panel flush title="Features" note={plural(features.length, "column")}>
      <div className="scroll">
        <table className="table">
          <thead>
            <tr>
              <th scope="col">Name</th>
              <th scope="col">Type</th>
              <th scope="col">Range</th>
              <th scope="col">Empty cells become</th>
              <th scope="col">Range is</th>
            </tr>
          </thead>
          <tbody>
            {shown.map(({ item: feature }) => (
              <tr key={feature.name}>
                <td>{feature.name}</td>
                <td>{feature.type}</td>
                <td>{rangeOf(feature)}</td>
                <td>{fillOf(feature)}</td>
                <td>
                  <OriginChip origin={feature.origin} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {pager}
    </Panel>
  );
}

/** Fifty at a time: a table of a thousand columns has to stay usable. */
export function usePages<T>(items: readonly T[]) {
  const [page, setPage] = useState(0);
  const pages = Math.max(1, Math.ceil(items.length / PAGE));
  const current = Math.min(page, pages - 1);
  const shown = items
    .slice(current * PAGE, (current + 1) * PAGE)
    .map((item, index) => ({ item, index: current * PAGE + index }));
  const pager =
    pages > 1 ? (
      <nav className="pager" aria-label="Pages of columns">
        <Button small icon="back" iconOnly disabled={current === 0} onClick={() => setPage(current - 1)}>
          Previous columns
        </Button>
        <span>
          {integer(current * PAGE + 1)} to {integer(Math.min(items.length, (current + 1) * PAGE))} of{" "}
          {integer(items.length)}
        </span>
        <Button small icon="next" iconOnly disabled={current === pages - 1} onClick={() => setPage(current + 1)}>
          Next columns
        </Button>
      </nav>
    ) : null;
  return { shown, pager };
}

function OriginChip({ origin }: { origin: Origin }) {
  return (
    <span title={ORIGINS[origin].about}>
      <Chip tone={origin === "from_rows" ? "warn" : "idle"}>{ORIGINS[origin].label}</Chip>
    </span>
  );
}

function rangeOf(feature: Feature): string {
  switch (feature.type) {
    case "number":
      return bounds(feature.bounds);
    case "category":
      return listed(feature.categories);
    case "image":
    case "array":
      return `${feature.shape.join(" × ")}, ${bounds(feature.bounds)}`;
  }
}

function fillOf(feature: Feature): string {
  if (feature.type === "number") return feature.fill === null || feature.fill === undefined ? "an error" : number(feature.fill);
  if (feature.type === "category") return feature.fill ?? "an error";
  return "an error";
}

export function bounds(pair: readonly [number, number] | null): string {
  return pair === null ? "–" : `${number(pair[0])} to ${number(pair[1])}`;
}

function listed(names: readonly string[]): string {
  const some = names.slice(0, 8).join(", ");
  return names.length > 8 ? `${some} and ${names.length - 8} more` : some;
}
