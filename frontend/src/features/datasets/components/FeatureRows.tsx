import { useState } from "react";
import { Button } from "@/components/ui/Button";
import { Panel } from "@/components/ui/Page";
import { plural } from "@/lib/format";
import { parseNumber } from "@/lib/jsonSchema";
import type { DatasetSchema, Feature, Json, Origin } from "@/lib/wire";
import { asNumber, ORIGIN_OPTIONS } from "./origins";
import { splitList } from "./schemaEdits";
import { usePages } from "./SchemaTable";

export function FeatureRows({
  schema,
  onSchema,
  problems,
}: {
  schema: DatasetSchema;
  onSchema: (schema: DatasetSchema) => void;
  problems: ReadonlyMap<string, string>;
}) {
  const { shown, pager } = usePages(schema.features);
  const replace = (index: number, feature: Feature) =>
    onSchema({ ...schema, features: schema.features.map((one, at) => (at === index ? feature : one)) });
  const remove = (index: number) =>
    onSchema({ ...schema, features: schema.features.filter((_, at) => at !== index) });
  return (
    <Panel
      flush
      title="Features"
      note={`${plural(schema.features.length, "column")}. Values outside of a range are moved to its nearest end.`}
    >
      <div className="scroll">
        <table className="table schema-table">
          <thead>
            <tr>
              <th scope="col">Name</th>
              <th scope="col">Type</th>
              <th scope="col">Range or categories</th>
              <th scope="col">Empty cells become</th>
              <th scope="col">Range is</th>
              <th scope="col">
                <span className="visually-hidden">Leave out</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {shown.map(({ item: feature, index }) => (
              <Row
                key={feature.name}
                feature={feature}
                wrong={[...problems.keys()].some(
                  (pointer) => pointer === `/features/${index}` || pointer.startsWith(`/features/${index}/`),
                )}
                onFeature={(next) => replace(index, next)}
                onRemove={schema.features.length > 1 ? () => remove(index) : undefined}
              />
            ))}
          </tbody>
        </table>
      </div>
      {pager}
    </Panel>
  );
}

function Row({
  feature,
  wrong,
  onFeature,
  onRemove,
}: {
  feature: Feature;
  wrong: boolean;
  onFeature: (feature: Feature) => void;
  onRemove: (() => void) | undefined;
}) {
  const name = feature.name;
  return (
    <tr>
      <td>{name}</td>
      <td>{feature.type}</td>
      <td>
        {feature.type === "category" ? (
          <Cell
            label={`Categories of ${name}`}
            wrong={wrong}
            value={feature.categories.join(", ")}
            onValue={(text) => onFeature({ ...feature, categories: splitList(text) })}
          />
        ) : (
          <div className="bounds">
            <NumberCell
              label={`Lowest ${name}`}
              wrong={wrong}
              value={feature.bounds[0]}
              onValue={(next) => onFeature({ ...feature, bounds: [asNumber(next), feature.bounds[1]] })}
            />
            <span className="muted">to</span>
            <NumberCell
              label={`Highest ${name}`}
              wrong={wrong}
              value={feature.bounds[1]}
              onValue={(next) => onFeature({ ...feature, bounds: [feature.bounds[0], asNumber(next)] })}
            />
          </div>
        )}
      </td>
      <td>
        {feature.type === "number" && (
          <NumberCell
            label={`Empty cells of ${name} become`}
            wrong={wrong}
            value={feature.fill ?? null}
            onValue={(next) => onFeature({ ...feature, fill: next === null ? null : asNumber(next) })}
          />
        )}
        {feature.type === "category" && (
          <select
            className="input input--small"
            aria-label={`Empty cells of ${name} become`}
            value={feature.fill ?? ""}
            onChange={(event) => onFeature({ ...feature, fill: event.target.value === "" ? null : event.target.value })}
          >
            <option value="">an error</option>
            {feature.categories.map((category) => (
              <option key={category}>{category}</option>
            ))}
          </select>
        )}
      </td>
      <td>
        <select
          className="input input--small"
          aria-label={`Range of ${name} is`}
          value={feature.origin}
          onChange={(event) => onFeature({ ...feature, origin: event.target.value as Origin })}
        >
          {ORIGIN_OPTIONS.map((option) => (
            <option key={option.value} value={option.value}>
              {option.label}
            </option>
          ))}
        </select>
      </td>
      <td className="end">
        {onRemove && (
          <Button small look="quiet" icon="close" iconOnly onClick={onRemove}>
            {`Leave ${name} out`}
          </Button>
        )}
      </td>
    </tr>
  );
}

function NumberCell({
  label,
  wrong,
  value,
  onValue,
}: {
  label: string;
  wrong: boolean;
  value: Json;
  onValue: (value: Json) => void;
}) {
  const shown = value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
  return (
    <Cell label={label} wrong={wrong} value={shown} placeholder="an error" onValue={(text) => onValue(parseNumber(text))} />
  );
}

/** A small control; what is being typed stays as it was typed until it is left. */
function Cell({
  label,
  wrong,
  value,
  placeholder = "",
  onValue,
}: {
  label: string;
  wrong: boolean;
  value: string;
  placeholder?: string;
  onValue: (value: string) => void;
}) {
  const [typed, setTyped] = useState<string | null>(null);
  return (
    <input
      className="input input--small"
      aria-label={label}
      aria-invalid={wrong}
      placeholder={placeholder}
      value={typed ?? value}
      onChange={(event) => {
        setTyped(event.target.value);
        onValue(event.target.value);
      }}
      onBlur={() => setTyped(null)}
    />
  );
}
