"""Workers and queues on the wire."""

from clipwise.jobs.states import JobStatus
from clipwise.store import fleet, jobs, workers
from clipwise.store.sessions import reading
from clipwise.wire.fleet import Queue, Worker
from clipwise_api.services import ServiceSet


def workers_view(services: ServiceSet) -> list[Worker]:
    """Return the workers of the last day, those that live first."""
    with reading(services.engine) as session:
        living = {row.id for row in workers.alive(session)}
        rows = fleet.recent_workers(session)
        running = jobs.running_on(session, [row.id for row in rows])
    return [
        Worker(
            id=row.id,
            host=row.host,
            queues=row.queues,
            slots=row.slots,
            kinds=sorted(row.kinds),
            versions=row.versions,
            alive=row.id in living,
            current_jobs=running.get(row.id, []) if row.id in living else [],
            started_at=row.started_at,
            heartbeat_at=row.heartbeat_at,
        )
        for row in sorted(rows, key=lambda row: row.id not in living)
    ]


def queues(services: ServiceSet) -> list[Queue]:
    """Return the queues that have open jobs or a living worker, by name."""
    with reading(services.engine) as session:
        counts = jobs.count_by_queue(session)
        served = [queue for row in workers.alive(session) for queue in row.queues]
    found = []
    for name in sorted({*counts, *served, "cpu"}):
        numbers = dict(counts.get(name, {}))
        queued = numbers.pop(JobStatus.QUEUED, 0)
        found.append(
            Queue(name=name, queued=queued, running=sum(numbers.values()), workers=served.count(name))
        )
    return found
