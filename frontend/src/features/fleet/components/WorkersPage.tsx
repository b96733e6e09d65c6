import { useQuery } from "@tanstack/react-query";
import { Page, Panel } from "@/components/ui/Page";
import { Empty, Failed, Loading, Note } from "@/components/ui/State";
import { integer } from "@/lib/format";
import type { Queue, Role } from "@/lib/wire";
import { queuesQuery, workersQuery } from "../api/fleet";
import { WorkersTable } from "./WorkersTable";

export function WorkersPage({ role }: { role: Role }) {
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
      {role !== "analyst" && <Workers role={role} />}
    </Page>
  );
}

function Workers({ role }: { role: Role }) {
  const workers = useQuery(workersQuery);
  return (
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
      {workers.data && workers.data.length > 0 && <WorkersTable workers={workers.data} role={role} />}
    </Panel>
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
