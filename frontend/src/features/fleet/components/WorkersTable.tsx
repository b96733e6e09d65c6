import { useState } from "react";
import { Link } from "wouter";
import { Button } from "@/components/ui/Button";
import { Chip } from "@/components/ui/Chip";
import { Confirm } from "@/components/ui/Dialog";
import { ProblemNote } from "@/components/ui/State";
import { bytes, dateTime, plural, secondsAgo } from "@/lib/format";
import type { Role, Worker } from "@/lib/wire";
import { useDrain } from "../api/fleet";

export function WorkersTable({ workers, role }: { workers: readonly Worker[]; role: Role }) {
  const [asking, setAsking] = useState<Worker | null>(null);
  const drain = useDrain();
  const close = () => {
    setAsking(null);
    drain.reset();
  };
  return (
    <>
      {asking === null && drain.isError && (
        <div className="panel__body">
          <ProblemNote error={drain.error} />
        </div>
      )}
      <table className="table table--cards table--top">
        <thead>
          <tr>
            <th scope="col">Worker</th>
            <th scope="col">State</th>
            <th scope="col">Jobs</th>
            <th scope="col">Devices</th>
            <th scope="col">Queues</th>
            <th scope="col">Kinds of models</th>
            <th scope="col" className="end">
              Last heard of
            </th>
            <th scope="col">
              <span className="visually-hidden">Drain</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {workers.map((worker) => (
            <Row
              key={worker.id}
              worker={worker}
              role={role}
              busy={drain.isPending && drain.variables.id === worker.id}
              onDrain={() => setAsking(worker)}
              onUndrain={() => drain.mutate({ id: worker.id, draining: false })}
            />
          ))}
        </tbody>
      </table>
      <Confirm
        open={asking !== null}
        title="Drain this worker?"
        verb="Drain it"
        keep="Back"
        danger={false}
        busy={drain.isPending}
        error={drain.error}
        onConfirm={() => asking && drain.mutate({ id: asking.id, draining: true }, { onSuccess: close })}
        onClose={close}
      >
        {asking && (
          <p>
            <span className="mono">{asking.id}</span> takes no more jobs until it is told to again.
            {asking.current_jobs.length > 0 &&
              ` It puts back the ${plural(asking.current_jobs.length, "job")} that it has, each with a checkpoint, for another worker to go on with.`}
          </p>
        )}
      </Confirm>
    </>
  );
}

function Row({
  worker,
  role,
  busy,
  onDrain,
  onUndrain,
}: {
  worker: Worker;
  role: Role;
  busy: boolean;
  onDrain: () => void;
  onUndrain: () => void;
}) {
  return (
    <tr>
      <td className="wide">
        <strong>{worker.host}</strong>
        <div className="table__sub mono">{worker.id}</div>
        <div className="table__sub">{versions(worker)}</div>
      </td>
      <td>
        <State worker={worker} />
      </td>
      <td data-label="Jobs">
        <span className="nowrap">
          {worker.current_jobs.length} of {worker.slots}
        </span>
        <div className="table__sub">
          {worker.current_jobs.map((id) => (
            <JobLink key={id} id={id} role={role} />
          ))}
        </div>
      </td>
      <td data-label="Devices">
        {worker.devices.length === 0 && <span className="muted">CPU only</span>}
        {worker.devices.map((device) => (
          <div key={device.uuid} title={device.uuid}>
            {device.name}
            <div className="table__sub">
              <span className="nowrap">
                {device.memory_bytes !== null && `${bytes(device.memory_bytes)}, `}
                {device.job_id === null ? "free" : <JobLink id={device.job_id} role={role} />}
              </span>
            </div>
          </div>
        ))}
      </td>
      <td data-label="Queues">{worker.queues.join(", ")}</td>
      <td data-label="Kinds of models" className="small">
        {worker.kinds.join(", ")}
      </td>
      <td data-label="Last heard of" className="end nowrap">
        <time dateTime={worker.heartbeat_at} title={dateTime(worker.heartbeat_at)}>
          {secondsAgo(worker.heartbeat_age_seconds)}
        </time>
      </td>
      <td className="end">
        {worker.alive && (
          <Button small busy={busy} onClick={worker.draining ? onUndrain : onDrain}>
            {worker.draining ? "Undrain" : "Drain"}
          </Button>
        )}
      </td>
    </tr>
  );
}

function State({ worker }: { worker: Worker }) {
  if (!worker.alive) return <Chip dot>gone</Chip>;
  if (!worker.draining) {
    return (
      <Chip tone="good" dot>
        up
      </Chip>
    );
  }
  return (
    <Chip tone="warn" dot>
      {worker.current_jobs.length > 0 ? "draining" : "drained"}
    </Chip>
  );
}

/** The end of a job's id; operators see no jobs, so that theirs leads nowhere. */
function JobLink({ id, role }: { id: string; role: Role }) {
  const short = `…${id.slice(-6)}`;
  return role === "operator" ? <span title={id}>{short}</span> : <Link href={`/jobs/${id}`}>{short}</Link>;
}

function versions(worker: Worker): string {
  return Object.entries(worker.versions)
    .map(([name, version]) => `${name} ${version}`)
    .join(", ");
}
