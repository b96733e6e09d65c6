"""A job's attempts on the wire, and the checkpoints that they left."""

from clipwise.jobs.states import JobStatus
from clipwise.store import checkpoints as checkpoint_store
from clipwise.store import job_feed, jobs
from clipwise.store.sessions import reading
from clipwise.store.tables import AttemptRow, CheckpointRow
from clipwise.wire.jobs import Attempt, Checkpoint
from clipwise.wire.listing import Page
from clipwise_api.principals import Principal
from clipwise_api.services import ServiceSet
from clipwise_api.views.outputs import SEALED, is_sealed, numbered, require_outputs

FOR_EVERYONE = frozenset({JobStatus.SUCCEEDED, JobStatus.CANCELLED})
"""Outcomes whose reason cannot be the words of a runner."""


def attempts(services: ServiceSet, who: Principal, job_id: str, after: int, limit: int) -> Page[Attempt]:
    """Return a job's attempts after number `after`, the first one first."""
    with reading(services.engine) as session:
        sealed = is_sealed(jobs.get(session, job_id), who)
        rows = job_feed.attempts_after(session, job_id, after, limit + 1)
    return numbered([_attempt(row, sealed=sealed) for row in rows], limit, lambda attempt: attempt.number)


def checkpoints(services: ServiceSet, who: Principal, job_id: str) -> Page[Checkpoint]:
    """Return what a job can go on from, the newest first.

    Raises:
        Forbidden: where the job is sealed, to everyone but owners.
    """
    with reading(services.engine) as session:
        require_outputs(jobs.get(session, job_id), who)
        rows = checkpoint_store.newest_first(session, job_id)
    best = checkpoint_store.best(rows)
    data = [
        Checkpoint(
            step=row.step,
            attempt=row.attempt,
            size=row.size,
            sha256=row.sha256,
            best=row is best,
            created_at=row.created_at,
        )
        for row in rows
    ]
    return Page(data=data)


def checkpoint(services: ServiceSet, who: Principal, job_id: str, step: int) -> CheckpointRow:
    """Return a job's checkpoint of a step, of the last attempt that has one.

    Raises:
        NotFound: if there is none.
        Forbidden: where the job is sealed, to everyone but owners.
    """
    with reading(services.engine) as session:
        require_outputs(jobs.get(session, job_id), who)
        return checkpoint_store.get(session, job_id, step)


def _attempt(row: AttemptRow, *, sealed: bool) -> Attempt:
    hidden = sealed and row.reason is not None and row.outcome not in FOR_EVERYONE
    return Attempt(
        number=row.number,
        worker_id=row.worker_id,
        start_step=row.start_step,
        started_at=row.started_at,
        finished_at=row.finished_at,
        outcome=row.outcome,
        reason=SEALED if hidden else row.reason,
    )
