"""The life of an attempt: claiming a job, hearing that it shall stop, ending it, and being given up.

The fencing token is what makes an attempt the owner of its job. It is written in the claim; whoever
comes later takes a new one; every write of an attempt holds on to `(job, token)` and has no effect,
and raises `StaleToken`, once the token is another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, select, update
from sqlalchemy.orm import Session

from clipwise.errors import StaleToken
from clipwise.jobs.states import JobStatus, Phase, ReasonCode
from clipwise.store.events import Level, append_event
from clipwise.store.sessions import database_time
from clipwise.store.tables import ArtifactRow, AttemptRow, DatasetRow, JobRow, WorkerRow

OWNED = (JobStatus.RUNNING, JobStatus.PAUSING, JobStatus.CANCELLING)
"""The statuses in which an attempt owns its job."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One execution of a job, and the token that makes it the job's owner."""

    job_id: str
    number: int
    token: int


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
    """

    attempt: Attempt
    spec: Mapping[str, Any]
    plan: Mapping[str, Any]
    dataset_schema: Mapping[str, Any]
    rows_key: str | None
    builtin: str | None


@dataclass(frozen=True, kw_only=True)
class FinishedFile:
    """A file of a finished attempt, as it lies in the artifact store."""

    name: str
    key: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended; `epsilon` is what has been spent, where it is known."""

    status: JobStatus
    reason: ReasonCode | None = None
    message: str | None = None
    result: Mapping[str, Any] | None = None
    artifacts: Sequence[FinishedFile] = ()
    epsilon: float | None = None
    delta: float | None = None


def claim(session: Session, worker_id: str, queues: Sequence[str], kinds: Sequence[str]) -> Claimed | None:
    """Take the best queued job: highest priority, then the oldest; None if there is none for this worker.

    Args:
        session: of a transaction that the caller commits before the attempt starts.
        worker_id: who claims.
        queues: the queues that the worker serves.
        kinds: the kinds of model that the worker has.
    """
    best = session.execute(
        select(JobRow.id)
        .where(*_claimable(queues, kinds))
        .order_by(JobRow.priority.desc(), JobRow.created_at, JobRow.id)
        .limit(1)
        # PostgreSQL: another worker that is claiming this row is passed over. SQLite has one writer.
        .with_for_update(skip_locked=True)
    ).scalar_one_or_none()
    if best is None:
        return None
    now = database_time(session)
    row = session.execute(
        update(JobRow)
        .where(JobRow.id == best, JobRow.status == JobStatus.QUEUED)
        .values(
            status=JobStatus.RUNNING,
            phase=Phase.STARTING,
            reason_code=None,
            reason_message=None,
            attempt=JobRow.attempt + 1,
            token=JobRow.token + 1,
            worker_id=worker_id,
            started_at=now,
            version=JobRow.version + 1,
        )
        .returning(JobRow.attempt, JobRow.token, JobRow.spec, JobRow.plan, JobRow.dataset_id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    attempt = Attempt(job_id=best, number=row.attempt, token=row.token)
    session.add(
        AttemptRow(
            job_id=best,
            number=attempt.number,
            token=attempt.token,
            worker_id=worker_id,
            started_at=now,
            heartbeat_at=now,
        )
    )
    data = {"status": JobStatus.RUNNING, "worker_id": worker_id}
    append_event(session, best, "started", "info", "A worker has started the job.", data, attempt.number)
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
    )


def claimable(session: Session, queues: Sequence[str], kinds: Sequence[str]) -> bool:
    """Tell whether `claim` would find a job now."""
    return bool(session.execute(select(exists().where(*_claimable(queues, kinds)))).scalar())


def read_controls(session: Session, worker_id: str) -> dict[Attempt, bool]:
    """Return whether each attempt that a worker owns a job by shall stop; one that is missing is lost."""
    rows = session.execute(
        select(JobRow.id, JobRow.attempt, JobRow.token, JobRow.status).where(
            JobRow.status.in_(OWNED), JobRow.worker_id == worker_id
        )
    )
    return {
        Attempt(job_id=row.id, number=row.attempt, token=row.token): row.status == JobStatus.CANCELLING
        for row in rows
    }


def fenced_update(session: Session, attempt: Attempt, values: Mapping[str, Any]) -> None:
    """Change the job's row if `attempt` still owns it, and hold the row until the commit.

    Raises:
        StaleToken: if the attempt has lost its job; nothing was written.
    """
    done = session.execute(
        update(JobRow)
        .where(
            JobRow.id == attempt.job_id,
            JobRow.token == attempt.token,
            JobRow.attempt == attempt.number,
            JobRow.status.in_(OWNED),
        )
        .values(version=JobRow.version + 1, **values)
        .returning(JobRow.id)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    if done is None:
        raise StaleToken(
            f"attempt {attempt.number} of job '{attempt.job_id}' (token {attempt.token}) no longer owns it; "
            "nothing was written"
        )


def finish(session: Session, attempt: Attempt, outcome: Outcome) -> None:
    """End the attempt and its job: status, result, artifacts, event.

    Raises:
        StaleToken: if the attempt has lost its job; nothing was written.
    """
    now = database_time(session)
    values: dict[str, Any] = {
        "status": outcome.status,
        "phase": None,
        "reason_code": outcome.reason,
        "reason_message": outcome.message,
        "result": dict(outcome.result) if outcome.result is not None else None,
        "eta_seconds": None,
        "finished_at": now,
    }
    if outcome.epsilon is not None:
        values |= {"epsilon": outcome.epsilon, "delta": outcome.delta}
    fenced_update(session, attempt, values)
    _close_attempt(session, attempt, outcome.status)
    names = [file.name for file in outcome.artifacts]
    session.execute(
        delete(ArtifactRow).where(ArtifactRow.job_id == attempt.job_id, ArtifactRow.name.in_(names))
    )
    session.add_all(
        ArtifactRow(
            job_id=attempt.job_id,
            name=file.name,
            key=file.key,
            size=file.size,
            sha256=file.sha256,
            attempt=attempt.number,
            created_at=now,
        )
        for file in outcome.artifacts
    )
    _append_outcome(session, attempt, outcome)


def fail_lost(session: Session, silent_seconds: float) -> list[str]:
    """End the attempts whose worker has stopped, or was not heard of for so long; return their jobs.

    A job that was being cancelled is cancelled; the others fail with `worker_lost`. The token moves on, so
    that a worker that comes back cannot write any more.
    """
    now = database_time(session)
    alive = exists().where(
        WorkerRow.id == JobRow.worker_id,
        WorkerRow.stopped_at.is_(None),
        WorkerRow.heartbeat_at >= now - timedelta(seconds=silent_seconds),
    )
    lost = session.execute(
        select(JobRow.id, JobRow.attempt, JobRow.token, JobRow.status)
        .where(JobRow.status.in_(OWNED), ~alive)
        .with_for_update(skip_locked=True)
    ).all()
    for row in lost:
        attempt = Attempt(job_id=row.id, number=row.attempt, token=row.token)
        finish(session, attempt, lost_outcome(cancelling=row.status == JobStatus.CANCELLING))
        session.execute(
            update(JobRow)
            .where(JobRow.id == row.id)
            .values(token=JobRow.token + 1)
            .execution_options(synchronize_session=False)
        )
    return [row.id for row in lost]


def lost_outcome(*, cancelling: bool) -> Outcome:
    """Return how an attempt ends whose worker went away."""
    if cancelling:
        return Outcome(
            status=JobStatus.CANCELLED, reason=ReasonCode.USER_CANCELLED, message="cancelled on request"
        )
    return Outcome(
        status=JobStatus.FAILED,
        reason=ReasonCode.WORKER_LOST,
        message="the worker stopped before the job was done; submit the job again",
    )


def _claimable(queues: Sequence[str], kinds: Sequence[str]) -> tuple[ColumnElement[bool], ...]:
    return (
        JobRow.status == JobStatus.QUEUED,
        JobRow.queue.in_(list(queues)),
        JobRow.model_kind.in_(list(kinds)),
    )


def _close_attempt(session: Session, attempt: Attempt, outcome: JobStatus) -> None:
    session.execute(
        update(AttemptRow)
        .where(AttemptRow.job_id == attempt.job_id, AttemptRow.number == attempt.number)
        .values(finished_at=database_time(session), outcome=outcome)
        .execution_options(synchronize_session=False)
    )


def _append_outcome(session: Session, attempt: Attempt, outcome: Outcome) -> None:
    levels: dict[JobStatus, Level] = {JobStatus.SUCCEEDED: "info", JobStatus.CANCELLED: "info"}
    level = levels.get(outcome.status, "error")
    message = outcome.message or f"The job has {outcome.status}."
    data = {"status": outcome.status} | ({"code": outcome.reason} if outcome.reason else {})
    append_event(session, attempt.job_id, str(outcome.status), level, message, data, attempt.number)
