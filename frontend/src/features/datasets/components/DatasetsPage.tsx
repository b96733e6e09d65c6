import { useQuery } from "@tanstack/react-query";
import { Link } from "wouter";
import { ButtonLink } from "@/components/ui/Button";
import { Chip } from "@/components/ui/Chip";
import { Page } from "@/components/ui/Page";
import { Empty, Failed, Loading } from "@/components/ui/State";
import { Ago } from "@/components/ui/Time";
import { bytes, integer } from "@/lib/format";
import { datasetsQuery } from "@/lib/queries";
import type { Dataset } from "@/lib/wire";

export function DatasetsPage() {
  const datasets = useQuery(datasetsQuery);
  return (
    <Page
      title="Data sets"
      about="Tables to train on. Those that came with Clipwise are public; yours say whom they are about."
      actions={
        <ButtonLink href="/datasets/new" look="primary" icon="upload">
          Upload
        </ButtonLink>
      }
    >
      <div className="panel panel--flush">
        {datasets.isPending && <Loading />}
        {datasets.isError && !datasets.data && (
          <Failed error={datasets.error} retry={() => void datasets.refetch()} />
        )}
        {datasets.data?.length === 0 && (
          <Empty icon="data" title="No data set yet">
            <p>Upload a CSV, Parquet or NPZ file. Its schema is proposed, and you confirm it.</p>
            <ButtonLink href="/datasets/new" look="primary" icon="upload">
              Upload a data set
            </ButtonLink>
          </Empty>
        )}
        {datasets.data && datasets.data.length > 0 && <Rows datasets={datasets.data} />}
      </div>
    </Page>
  );
}

function Rows({ datasets }: { datasets: readonly Dataset[] }) {
  return (
    <table className="table table--rows table--cards">
      <caption className="visually-hidden">Data sets, newest first</caption>
      <thead>
        <tr>
          <th scope="col">Name</th>
          <th scope="col">State</th>
          <th scope="col">Rows are</th>
          <th scope="col">Task</th>
          <th scope="col" className="end">
            Rows
          </th>
          <th scope="col" className="end">
            Features
          </th>
          <th scope="col" className="end">
            Size
          </th>
          <th scope="col" className="end">
            Added
          </th>
        </tr>
      </thead>
      <tbody>
        {datasets.map((dataset) => (
          <tr key={dataset.id}>
            <td className="wide">
              <Link href={`/datasets/${dataset.id}`} className="table__name">
                {dataset.name}
              </Link>
              <div className="table__sub">
                {dataset.source === "builtin" ? "came with Clipwise" : dataset.format.toUpperCase()}
              </div>
            </td>
            <td>
              <StateChip dataset={dataset} />
            </td>
            <td data-label="Rows are">
              <Chip tone={dataset.population.visibility === "private" ? "warn" : "idle"}>
                {dataset.population.visibility}
              </Chip>
            </td>
            <td data-label="Task">{dataset.schema.task}</td>
            <td data-label="Rows" className="end">
              {integer(dataset.rows ?? dataset.schema.size.value)}
            </td>
            <td data-label="Features" className="end">
              {integer(dataset.schema.features.length)}
            </td>
            <td data-label="Size" className="end nowrap">
              {bytes(dataset.size_bytes)}
            </td>
            <td data-label="Added" className="end">
              <Ago at={dataset.created_at} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function StateChip({ dataset }: { dataset: Dataset }) {
  return dataset.status === "ready" ? <Chip tone="good">ready</Chip> : <Chip tone="warn">to be confirmed</Chip>;
}
