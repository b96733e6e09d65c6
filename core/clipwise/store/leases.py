"""Leases and control: an attempt owns its job until its lease is over, and hears what people want of it.

Two things apart: a lease is renewed seldom and lasts long, so that an outage of the database costs nobody
a job; wishes are read often, so that a cancelled job stops at once.
"""

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import select, tuple_, update
from sqlalchemy.orm import Session

from clipwise.jobs.states import OWNED, JobStatus
from clipwise.store.attempts import Attempt
from clipwise.store.sessions import database_time
from clipwise.store.tables import JobRow, WorkerRow


def renew(session: Session, held: Collection[Attempt], lease_seconds: float) -> set[Attempt]:
    """Renew the leases of these attempts, from the database's clock; those that are missing have lost theirs.

    A lease that has passed is renewed as well, as long as nobody else has taken the job.
    """
    if not held:
        return set()
    until = database_time(session) + timedelta(seconds=lease_seconds)
    renewed = session.execute(
        update(JobRow)
        .where(
            tuple_(JobRow.id, JobRow.attempt, JobRow.token).in_(
                [(attempt.job_id, attempt.number, attempt.token) for attempt in held]
            ),
            JobRow.status.in_(OWNED),
        )
        .values(lease_expires_at=until)
        .returning(JobRow.id, JobRow.attempt, JobRow.token)
        .execution_options(synchronize_session=False)
    )
    return {Attempt(job_id=row.id, number=row.attempt, token=row.token) for row in renewed}


def read_controls(session: Session, worker_id: str) -> dict[Attempt, JobStatus]:
    """Return the status of every job that a worker owns, by attempt; one that is missing is lost."""
    rows = session.execute(
        select(JobRow.id, JobRow.attempt, JobRow.token, JobRow.status).where(
            JobRow.worker_id == worker_id, JobRow.status.in_(OWNED)
        )
    )
    return {
        Attempt(job_id=row.id, number=row.attempt, token=row.token): JobStatus(row.status) for row in rows
    }


def is_draining(session: Session, worker_id: str) -> bool:
    """Tell whether a worker was asked to take no more jobs."""
    found = select(WorkerRow.draining_at).where(WorkerRow.id == worker_id)
    return session.execute(found).scalar_one_or_none() is not None
