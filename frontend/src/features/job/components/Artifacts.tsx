import { DownloadLink } from "@/components/ui/Button";
import { CopyButton } from "@/components/ui/CopyButton";
import { Panel } from "@/components/ui/Page";
import { Empty, Failed, Loading } from "@/components/ui/State";
import { bytes } from "@/lib/format";
import { isTerminal, type Job } from "@/lib/wire";
import { artifactHref, useArtifacts } from "../api/job";

const ABOUT: Record<string, string> = {
  "model.safetensors": "The trained weights",
  "config.json": "What the weights belong to: model, data set’s schema, specification",
  "privacy.json": "The privacy statement: what is guaranteed, by what, and what is not",
};

export function Artifacts({ job }: { job: Job }) {
  const finished = isTerminal(job.status);
  const artifacts = useArtifacts(job.id, finished);
  if (artifacts.isPending) return <Loading />;
  if (artifacts.isError) return <Failed error={artifacts.error} retry={() => void artifacts.refetch()} />;
  if (artifacts.data.length === 0) {
    return (
      <div className="panel">
        <Empty icon="file" title={finished ? "This job left no files" : "No files yet"}>
          <p>
            {finished
              ? "A model and its privacy statement are written by jobs that succeed."
              : "The model, its configuration and the privacy statement appear when the job has succeeded."}
          </p>
        </Empty>
      </div>
    );
  }
  return (
    <Panel flush title="Files">
      <table className="table table--cards">
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col" className="end">
              Size
            </th>
            <th scope="col">SHA-256</th>
            <th scope="col">
              <span className="visually-hidden">Download</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {artifacts.data.map((file) => (
            <tr key={file.name}>
              <td className="wide">
                <strong>{file.name}</strong>
                <div className="table__sub">{ABOUT[file.name]}</div>
              </td>
              <td data-label="Size" className="end nowrap">
                {bytes(file.size)}
              </td>
              <td data-label="SHA-256">
                <span className="row">
                  <code title={file.sha256}>{file.sha256.slice(0, 12)}…</code>
                  <CopyButton text={file.sha256} />
                </span>
              </td>
              <td className="end">
                <DownloadLink href={artifactHref(job.id, file.name)} small icon="download">
                  Download
                </DownloadLink>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Panel>
  );
}
