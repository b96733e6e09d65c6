"""The life of an attempt: owning a job, ending it, and giving it back.

The fencing token is what makes an attempt the owner of its job. It is written in the claim; whoever
comes later takes a new one; every write of an attempt holds on to `(job, token)` and has no effect,
and raises `StaleToken`, once the token is another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from clipwise.errors import StaleToken
from clipwise.jobs.recovery import DEFAULT_RECOVERY, RUNNER_DEATHS, WORKER_LOSSES, Recovery
from clipwise.jobs.states import OWNED, JobStatus, Phase, ReasonCode
from clipwise.store import outbox
from clipwise.store.events import Level, append_event
from clipwise.store.sessions import database_time
from clipwise.store.tables import ArtifactRow, AttemptRow, JobRow


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One execution of a job, and the token that makes it the job's owner."""

    job_id: str
    number: int
    token: int


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


class Blamed(Enum):
    """Whose fault an interruption was; each is counted apart."""

    RUNNER = auto()
    WORKER = auto()


@dataclass(frozen=True, kw_only=True)
class Release:
    """An attempt that ends before its job does.

    Attributes:
        message: why, for people.
        blames: what is counted; None where a worker was stopped, or the job paused, on purpose.
        charged_steps: noisy steps that were really run, where the runner could still say so; what was
            charged beyond is given back.
    """

    message: str
    blames: Blamed | None = None
    charged_steps: int | None = None


CANCELLED = Outcome(
    status=JobStatus.CANCELLED, reason=ReasonCode.USER_CANCELLED, message="cancelled on request"
)

MAX_RUNTIME = Outcome(
    status=JobStatus.FAILED,
    reason=ReasonCode.MAX_RUNTIME_EXCEEDED,
    message="the job ran for longer than limits.max_runtime_seconds; raise it, or train for fewer steps",
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
        "lease_expires_at": None,
        "ran_seconds": JobRow.ran_seconds + _seconds_of(session, attempt, now),
        "finished_at": now,
    }
    if outcome.epsilon is not None:
        values |= {"epsilon": outcome.epsilon, "delta": outcome.delta}
    fenced_update(session, attempt, values)
    _close_attempt(session, attempt, outcome.status, outcome.message)
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


def release(
    session: Session, attempt: Attempt, back: Release, recovery: Recovery = DEFAULT_RECOVERY
) -> JobStatus:
    """End an attempt that did not end its job: back to the queue, paused or cancelled, as people wish.

    Raises:
        StaleToken: if the attempt has lost its job; nothing was written.
    """
    fenced_update(session, attempt, {})
    row = session.get_one(JobRow, attempt.job_id, populate_existing=True)
    if back.charged_steps is not None:
        row.charged_steps = min(row.charged_steps, back.charged_steps)
    if row.status == JobStatus.CANCELLING:
        finish(session, attempt, CANCELLED)
        return JobStatus.CANCELLED
    row.runner_deaths += back.blames is Blamed.RUNNER
    row.worker_losses += back.blames is Blamed.WORKER
    session.flush()
    if row.runner_deaths >= RUNNER_DEATHS or row.worker_losses > WORKER_LOSSES:
        finish(session, attempt, _given_up(row, back))
        return JobStatus.FAILED
    return _put_back(session, attempt, row, back, recovery)


def wait_until(spec: Mapping[str, Any], now: datetime) -> datetime | None:
    """Return how long a job that is queued now waits at most; None is for ever."""
    seconds = (spec.get("limits") or {}).get("max_wait_seconds")
    return None if seconds is None else now + timedelta(seconds=seconds)


def _put_back(
    session: Session, attempt: Attempt, row: JobRow, back: Release, recovery: Recovery
) -> JobStatus:
    now = database_time(session)
    paused = row.status == JobStatus.PAUSING
    pause = 0.0 if back.blames is None else recovery.pause_seconds(row.runner_deaths + row.worker_losses)
    row.status = JobStatus.PAUSED if paused else JobStatus.QUEUED
    row.phase = None if paused else Phase.INTERRUPTED
    row.ran_seconds += _seconds_of(session, attempt, now)
    row.worker_id, row.lease_expires_at, row.eta_seconds = None, None, None
    row.queued_at = None if paused else now
    row.wait_until = None if paused else wait_until(row.spec, now)
    row.not_before = now + timedelta(seconds=pause) if pause and not paused else None
    session.flush()
    _close_attempt(session, attempt, row.status if paused else "interrupted", back.message)
    data: dict[str, Any] = {"status": row.status, "checkpoint_step": row.checkpoint_step}
    if paused:
        append_event(session, row.id, "paused", "info", "The job is paused.", data, attempt.number)
        return JobStatus.PAUSED
    where = f"step {row.checkpoint_step}" if row.checkpoint_step else "its beginning"
    message = f"{back.message}; the job goes on from {where}."
    level: Level = "info" if back.blames is None else "warning"
    append_event(
        session, row.id, "interrupted", level, message, data | {"retry_in_seconds": pause}, attempt.number
    )
    outbox.add(session, row.queue, row.id)
    return JobStatus.QUEUED


def _given_up(row: JobRow, back: Release) -> Outcome:
    poison = row.runner_deaths >= RUNNER_DEATHS
    why = (
        f"its runner died {row.runner_deaths} times by itself"
        if poison
        else f"it lost its worker {row.worker_losses} times"
    )
    return Outcome(
        status=JobStatus.FAILED,
        reason=ReasonCode.RETRIES_EXHAUSTED,
        message=f"{why}, the last time: {back.message}; see the job's log",
    )


def _seconds_of(session: Session, attempt: Attempt, now: datetime) -> float:
    started = session.execute(
        select(AttemptRow.started_at).where(
            AttemptRow.job_id == attempt.job_id, AttemptRow.number == attempt.number
        )
    ).scalar_one_or_none()
    return max(0.0, (now - started).total_seconds()) if started else 0.0


def _close_attempt(session: Session, attempt: Attempt, outcome: str, reason: str | None) -> None:
    session.execute(
        update(AttemptRow)
        .where(AttemptRow.job_id == attempt.job_id, AttemptRow.number == attempt.number)
        .values(finished_at=database_time(session), outcome=outcome, reason=reason)
        .execution_options(synchronize_session=False)
    )


def _append_outcome(session: Session, attempt: Attempt, outcome: Outcome) -> None:
    levels: dict[JobStatus, Level] = {JobStatus.SUCCEEDED: "info", JobStatus.CANCELLED: "info"}
    level = levels.get(outcome.status, "error")
    message = outcome.message or f"The job has {outcome.status}."
    data = {"status": outcome.status} | ({"code": outcome.reason} if outcome.reason else {})
    append_event(session, attempt.job_id, str(outcome.status), level, message, data, attempt.number)
