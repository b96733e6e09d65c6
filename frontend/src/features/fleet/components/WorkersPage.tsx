import { useQuery } from "@tanstack/react-query";
import { Link } from "wouter";
import { Chip } from "@/components/ui/Chip";
import { Page, Panel } from "@/components/ui/Page";
import { Empty, Failed, Loading, Note } from "@/components/ui/State";
import { Ago } from "@/components/ui/Time";
import { integer } from "@/lib/format";
import type { Queue, Worker } from "@/lib/wire";
import { queuesQuery, workersQuery } from "../api/fleet";

export function WorkersPage() {
  const workers = useQuery(workersQuery);
  const queues = useQuery(queuesQuery);
  const deserted = queues.data?.filter((queue) => queue.queued > 0 && queue.workers === 0) ?? [];
  return (
    <Page title="Workers and queues" about="Who trains, and what waits for whom.">
      {deserted.map((queue) => (
        <Note key={queue.name} tone="warn">
          <strong>Nobody serves queue “{queue.name}”</strong>
          <span>
            {queue.queued} waiting. Start a worker with <code>CLIPWISE_QUEUES={queue.name} clipwise worker</code>.
          </span>
        </Note>
      ))}
      <Panel flush title="Queues">
        {queues.isPending && <Loading lines={2} />}
        {queues.isError && !queues.data && <Failed error={queues.error} retry={() => void queues.refetch()} />}
        {queues.data?.length === 0 && <p className="empty muted">No queue has been used yet.</p>}
        {queues.data && queues.data.length > 0 && <Queues queues={queues.data} />}
      </Panel>
      <Panel flush title="Workers">
        {workers.isPending && <Loading lines={3} />}
        {workers.isError && !workers.data && <Failed error={workers.error} retry={() => void workers.refetch()} />}
        {workers.data?.length === 0 && (
          <Empty icon="worker" title="No worker is up">
            <p>
              Jobs wait until one comes. <code>clipwise worker</code> starts one on any machine that reaches the database,
              the broker and the artifacts.
            </p>
          </Empty>
        )}
        {workers.data && workers.data.length > 0 && <Workers workers={workers.data} />}
      </Panel>
    </Page>
  );
}

function Queues({ queues }: { queues: readonly Queue[] }) {
  return (
    <table className="table table--cards">
      <thead>
        <tr>
          <th scope="col">Queue</th>
          <th scope="col" className="end">
            Waiting
          </th>
          <th scope="col" className="end">
            Running
          </th>
          <th scope="col" className="end">
            Workers
          </th>
        </tr>
      </thead>
      <tbody>
        {queues.map((queue) => (
          <tr key={queue.name}>
            <td className="wide">
              <strong>{queue.name}</strong>
            </td>
            <td data-label="Waiting" className="end">
              {integer(queue.queued)}
            </td>
            <td data-label="Running" className="end">
              {integer(queue.running)}
            </td>
            <td data-label="Workers" className="end">
              {integer(queue.workers)}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Workers({ workers }: { workers: readonly Worker[] }) {
  return (
    <table className="table table--cards">
      <thead>
        <tr>
          <th scope="col">Worker</th>
          <th scope="col">State</th>
          <th scope="col">Busy</th>
          <th scope="col">Queues</th>
          <th scope="col">Kinds of models</th>
          <th scope="col">Versions</th>
          <th scope="col" className="end">
            Last heard of
          </th>
        </tr>
      </thead>
      <tbody>
        {workers.map((worker) => (
          <tr key={worker.id}>
            <td className="wide">
              <strong>{worker.host}</strong>
              <div className="table__sub mono">{worker.id}</div>
            </td>
            <td>
              <Chip tone={worker.alive ? "good" : "idle"} dot>
                {worker.alive ? "up" : "gone"}
              </Chip>
            </td>
            <td data-label="Busy">
              {worker.current_jobs.length} of {worker.slots}
              <div className="table__sub">
                {worker.current_jobs.map((id) => (
                  <Link key={id} href={`/jobs/${id}`}>
                    …{id.slice(-6)}
                  </Link>
                ))}
              </div>
            </td>
            <td data-label="Queues">{worker.queues.join(", ")}</td>
            <td data-label="Kinds of models" className="small">
              {worker.kinds.join(", ")}
            </td>
            <td data-label="Versions" className="small muted">
              {Object.entries(worker.versions)
                .map(([name, version]) => `${name} ${version}`)
                .join(", ")}
            </td>
            <td data-label="Last heard of" className="end">
              <Ago at={worker.heartbeat_at} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
