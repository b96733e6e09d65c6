"""Workers and queues on the wire."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from clipwise.jobs.states import JobStatus
from clipwise.store import devices, fleet, jobs, workers
from clipwise.store.sessions import database_time, reading, transaction
from clipwise.store.tables import WorkerRow
from clipwise.wire.fleet import Device, Queue, Worker
from clipwise_api.services import ServiceSet


def workers_view(services: ServiceSet) -> list[Worker]:
    """Return the workers of the last day, those that live first."""
    with reading(services.engine) as session:
        return _views(session, fleet.recent_workers(session))


def drain(services: ServiceSet, worker_id: str, *, draining: bool) -> Worker:
    """Ask a worker to take no more jobs and put back those that it has, or to take jobs again.

    Raises:
        NotFound: if there is no such worker.
        Conflict: if it has stopped.
    """
    with transaction(services.engine) as session:
        row = workers.drain(session, worker_id, draining=draining)
        return _views(session, [row])[0]


def queues(services: ServiceSet) -> list[Queue]:
    """Return the queues that have open jobs or a worker that takes jobs, by name."""
    with reading(services.engine) as session:
        counts = jobs.count_by_queue(session)
        served = [q for row in workers.alive(session) if row.draining_at is None for q in row.queues]
    found = []
    for name in sorted({*counts, *served, "cpu"}):
        numbers = dict(counts.get(name, {}))
        queued = numbers.pop(JobStatus.QUEUED, 0)
        found.append(
            Queue(name=name, queued=queued, running=sum(numbers.values()), workers=served.count(name))
        )
    return found


def _views(session: Session, rows: Sequence[WorkerRow]) -> list[Worker]:
    now = database_time(session)
    living = {row.id for row in workers.alive(session)}
    running = jobs.running_on(session, [row.id for row in rows])
    holders = devices.holders(session, sorted({row.host for row in rows}))
    return [
        Worker(
            id=row.id,
            host=row.host,
            queues=row.queues,
            slots=row.slots,
            kinds=sorted(row.kinds),
            versions=row.versions,
            devices=[
                Device(**device, job_id=holders.get((row.host, device["uuid"]))) for device in row.devices
            ],
            alive=row.id in living,
            draining=row.draining_at is not None,
            current_jobs=running.get(row.id, []) if row.id in living else [],
            started_at=row.started_at,
            heartbeat_at=row.heartbeat_at,
            heartbeat_age_seconds=max(0.0, (now - row.heartbeat_at).total_seconds()),
        )
        for row in sorted(rows, key=lambda row: row.id not in living)
    ]
