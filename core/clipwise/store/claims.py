"""Claiming: a worker takes the best job that it can run, by compare-and-set.

The best one has the highest priority. Among jobs of equal priority the key that has the fewest running
comes first, so that keys share the workers fairly however many jobs one of them submits; then the oldest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, text, update
from sqlalchemy.orm import Session

from clipwise.jobs.states import OWNED, JobStatus, Phase
from clipwise.store import devices
from clipwise.store.attempts import Attempt
from clipwise.store.events import append_event
from clipwise.store.sessions import database_time
from clipwise.store.tables import ApiKeyRow, AttemptRow, DatasetRow, JobRow

CLAIM_LOCK = 0x636C616D
"""Key of the advisory lock under which claims follow one another on PostgreSQL; SQLite has one writer."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What a worker can take.

    Attributes:
        worker_id: who claims.
        queues: the queues that it serves.
        kinds: the kinds of model that it has.
        host: where it is.
        devices: UUIDs of the GPUs that it may use.
        lease_seconds: how long a claim lasts without a renewal.
    """

    worker_id: str
    queues: Sequence[str]
    kinds: Sequence[str]
    host: str = ""
    devices: Sequence[str] = ()
    lease_seconds: float = 45.0


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A job that now belongs to an attempt, with what is needed to run it.

    Attributes:
        attempt: who owns the job now.
        spec: the specification, as JSON.
        plan: the plan, as JSON.
        dataset_schema: the data set's schema, as JSON.
        rows_key: the Arrow file in the artifact store, or None for a built-in data set.
        builtin: name of the built-in data set, or None.
        devices: UUIDs of the GPUs that the attempt has.
        charged_steps: noisy steps that earlier attempts have paid for.
        ran_seconds: how long earlier attempts ran.
        request_id: of the request that submitted the job, for the logs.
    """

    attempt: Attempt
    spec: Mapping[str, Any]
    plan: Mapping[str, Any]
    dataset_schema: Mapping[str, Any]
    rows_key: str | None
    builtin: str | None
    devices: Sequence[str] = ()
    charged_steps: int = 0
    ran_seconds: float = 0.0
    request_id: str | None = None


def claim(session: Session, capacity: Capacity) -> Claimed | None:
    """Take the best queued job for an attempt of this worker; None if there is none that it can run.

    The caller commits the session's transaction before the attempt starts.
    """
    if session.get_bind().dialect.name == "postgresql":
        # One after the other: shares and devices are counted, which two at once would do wrong.
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": CLAIM_LOCK})
    now = database_time(session)
    free = devices.count_free(session, capacity.host, capacity.devices) if capacity.devices else 0
    best = _best(session, _claimable(capacity, free, now))
    if best is None:
        return None
    return _take(session, capacity, best, now)


def claimable(session: Session, capacity: Capacity) -> bool:
    """Tell whether `claim` would find a job now."""
    now = database_time(session)
    free = devices.count_free(session, capacity.host, capacity.devices) if capacity.devices else 0
    found = select(JobRow.id).where(*_claimable(capacity, free, now)).limit(1)
    return session.execute(found).first() is not None


def _claimable(capacity: Capacity, free: int, now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        JobRow.status == JobStatus.QUEUED,
        JobRow.queue.in_(list(capacity.queues)),
        JobRow.model_kind.in_(list(capacity.kinds)),
        JobRow.gpus <= free,
        or_(JobRow.not_before.is_(None), JobRow.not_before <= now),
    )


def _best(session: Session, wanted: Sequence[ColumnElement[bool]]) -> str | None:
    # The first job of each key, found by the index: the number of jobs that wait does not matter.
    first_of_key = (
        select(JobRow.id)
        .where(*wanted, JobRow.created_by == ApiKeyRow.id)
        .order_by(JobRow.priority.desc(), JobRow.created_at, JobRow.id)
        .limit(1)
        .correlate(ApiKeyRow)
        .scalar_subquery()
    )
    nobodys = (
        select(JobRow.id)
        .where(*wanted, JobRow.created_by.is_(None))
        .order_by(JobRow.priority.desc(), JobRow.created_at, JobRow.id)
        .limit(1)
    )
    ids = [job_id for job_id in session.scalars(select(first_of_key).select_from(ApiKeyRow)) if job_id]
    ids += session.scalars(nobodys)
    if not ids:
        return None
    shares = dict(
        session.execute(
            select(JobRow.created_by, func.count())
            .where(JobRow.status.in_(OWNED))
            .group_by(JobRow.created_by)
        ).all()
    )
    candidates = session.execute(
        select(JobRow.id, JobRow.priority, JobRow.created_by, JobRow.created_at).where(JobRow.id.in_(ids))
    ).all()
    best = min(
        candidates, key=lambda row: (-row.priority, shares.get(row.created_by, 0), row.created_at, row.id)
    )
    return str(best.id)


def _take(session: Session, capacity: Capacity, job_id: str, now: datetime) -> Claimed | None:
    row = session.execute(
        update(JobRow)
        # It may have been cancelled or paused since it was looked at.
        .where(JobRow.id == job_id, JobRow.status == JobStatus.QUEUED)
        .values(
            status=JobStatus.RUNNING,
            phase=Phase.STARTING,
            reason_code=None,
            reason_message=None,
            attempt=JobRow.attempt + 1,
            token=JobRow.token + 1,
            worker_id=capacity.worker_id,
            lease_expires_at=now + timedelta(seconds=capacity.lease_seconds),
            not_before=None,
            wait_until=None,
            started_at=func.coalesce(JobRow.started_at, now),
            version=JobRow.version + 1,
        )
        .returning(
            JobRow.attempt,
            JobRow.token,
            JobRow.spec,
            JobRow.plan,
            JobRow.dataset_id,
            JobRow.gpus,
            JobRow.charged_steps,
            JobRow.checkpoint_step,
            JobRow.ran_seconds,
            JobRow.queued_at,
            JobRow.request_id,
        )
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    attempt = Attempt(job_id=job_id, number=row.attempt, token=row.token)
    held: list[str] = []
    if row.gpus:
        held = devices.hold(session, capacity.host, capacity.devices, row.gpus, job_id, row.token)
        if len(held) < row.gpus:
            session.rollback()
            return None
    session.add(
        AttemptRow(
            job_id=job_id,
            number=attempt.number,
            token=attempt.token,
            worker_id=capacity.worker_id,
            # Where it is about to go on; it says so again once it has found its checkpoint whole.
            start_step=row.checkpoint_step or 0,
            waited_seconds=(now - row.queued_at).total_seconds() if row.queued_at else None,
            started_at=now,
        )
    )
    data = {"status": JobStatus.RUNNING, "worker_id": capacity.worker_id}
    append_event(session, job_id, "started", "info", "A worker has started the job.", data, attempt.number)
    dataset = session.execute(
        select(DatasetRow.dataset_schema, DatasetRow.rows_key, DatasetRow.source, DatasetRow.name).where(
            DatasetRow.id == row.dataset_id
        )
    ).one()
    return Claimed(
        attempt=attempt,
        spec=row.spec,
        plan=row.plan or {},
        dataset_schema=dataset.dataset_schema,
        rows_key=dataset.rows_key,
        builtin=dataset.name if dataset.source == "builtin" else None,
        devices=held,
        charged_steps=row.charged_steps,
        ran_seconds=row.ran_seconds,
        request_id=row.request_id,
    )
