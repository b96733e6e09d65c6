"""What the api changes about jobs: the plan that they waited for, cancel, pause, resume, delete."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from clipwise.jobs.states import JobStatus, ReasonCode, require_verb
from clipwise.store import checkpoints, orphans, outbox
from clipwise.store.attempts import wait_until
from clipwise.store.events import append_event
from clipwise.store.jobs import JobRecord
from clipwise.store.sessions import database_time
from clipwise.store.tables import ArtifactRow, JobRow

AT_ONCE = frozenset({JobStatus.VALIDATING, JobStatus.QUEUED, JobStatus.PAUSED})


def planned(session: Session, job_id: str, plan: Mapping[str, Any]) -> bool:
    """Queue a job whose plan is known now; False if it is not waiting for one any more."""
    now = database_time(session)
    changes = {"status": JobStatus.QUEUED, "plan": dict(plan), "steps": plan["steps"], "queued_at": now}
    row = _leave_validating(session, job_id, changes)
    if row is None:
        return False
    row.wait_until = wait_until(row.spec, now)
    append_event(session, job_id, "queued", "info", f"The job waits in queue '{row.queue}'.")
    outbox.add(session, row.queue, job_id)
    return True


def refused(session: Session, job_id: str, code: ReasonCode, message: str) -> bool:
    """Fail a job that has no plan; False if it is not waiting for one any more."""
    changes = {
        "status": JobStatus.FAILED,
        "reason_code": code,
        "reason_message": message,
        "finished_at": datetime.now(UTC),
    }
    row = _leave_validating(session, job_id, changes)
    if row is None:
        return False
    data = {"status": JobStatus.FAILED, "code": code}
    append_event(session, job_id, "failed", "error", message, data)
    return True


def cancel(session: Session, job: JobRow) -> None:
    """Cancel a job: at once while no worker has it, else by asking its worker.

    `job` must be locked. A job that is being cancelled already stays as it is.

    Raises:
        IllegalTransition: if it has ended.
    """
    status = JobStatus(job.status)
    if status is JobStatus.CANCELLING:
        return
    require_verb("cancel", job.id, status)
    now = database_time(session)
    job.cancel_requested_at = now
    job.version += 1
    job.reason_code, job.reason_message = ReasonCode.USER_CANCELLED, "cancelled on request"
    if status in AT_ONCE:
        job.status, job.phase, job.finished_at = JobStatus.CANCELLED, None, now
        job.not_before, job.wait_until = None, None
        data = {"status": JobStatus.CANCELLED, "code": ReasonCode.USER_CANCELLED}
        append_event(session, job.id, "cancelled", "info", "The job was cancelled before it ran.", data)
    else:
        job.status = JobStatus.CANCELLING
        data = {"status": JobStatus.CANCELLING}
        append_event(
            session, job.id, "cancelling", "info", "The job's worker was asked to stop it.", data, job.attempt
        )


def pause(session: Session, job: JobRow) -> None:
    """Pause a job: at once while it waits, else as soon as its worker has written a checkpoint.

    `job` must be locked. A job that is pausing or paused already stays as it is.

    Raises:
        IllegalTransition: if its status does not allow it.
    """
    status = JobStatus(job.status)
    if status in (JobStatus.PAUSING, JobStatus.PAUSED):
        return
    require_verb("pause", job.id, status)
    job.version += 1
    job.pause_requested_at = database_time(session)
    if status is JobStatus.QUEUED:
        job.status, job.phase, job.queued_at, job.wait_until, job.not_before = (
            JobStatus.PAUSED, None, None, None, None,
        )  # fmt: skip
        append_event(session, job.id, "paused", "info", "The job is paused.", {"status": JobStatus.PAUSED})
    else:
        job.status = JobStatus.PAUSING
        data = {"status": JobStatus.PAUSING}
        message = "The job's worker was asked to write a checkpoint and stop."
        append_event(session, job.id, "pausing", "info", message, data, job.attempt)


def resume(session: Session, job: JobRow) -> None:
    """Put a paused job back into its queue; it goes on from its last checkpoint.

    `job` must be locked. A job that waits already stays as it is.

    Raises:
        IllegalTransition: if its status does not allow it.
    """
    if job.status == JobStatus.QUEUED:
        return
    require_verb("resume", job.id, JobStatus(job.status))
    now = database_time(session)
    job.version += 1
    job.status, job.queued_at, job.wait_until = JobStatus.QUEUED, now, wait_until(job.spec, now)
    job.pause_requested_at = None
    data = {"status": JobStatus.QUEUED, "checkpoint_step": job.checkpoint_step}
    append_event(session, job.id, "resumed", "info", f"The job waits in queue '{job.queue}'.", data)
    outbox.add(session, job.queue, job.id)


def remove(session: Session, record: JobRecord) -> None:
    """Delete a job that has ended, with all of its rows; its files are deleted after the commit.

    Raises:
        IllegalTransition: if it has not ended.
    """
    job = record.job
    require_verb("delete", job.id, JobStatus(job.status))
    files = session.scalars(select(ArtifactRow.key).where(ArtifactRow.job_id == job.id)).all()
    orphans.add(session, files)
    checkpoints.end(session, job.id, None)
    session.execute(delete(JobRow).where(JobRow.id == job.id).execution_options(synchronize_session=False))
    session.expunge(job)


def _leave_validating(session: Session, job_id: str, changes: Mapping[str, Any]) -> JobRow | None:
    return session.execute(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.status == JobStatus.VALIDATING)
        .values(version=JobRow.version + 1, **changes)
        .returning(JobRow)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
