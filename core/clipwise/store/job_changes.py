"""What the api changes about jobs: the plan that they waited for, cancel, delete."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from clipwise.jobs.states import JobStatus, ReasonCode, require_verb
from clipwise.store import orphans, outbox
from clipwise.store.events import append_event
from clipwise.store.jobs import JobRecord
from clipwise.store.tables import ArtifactRow, JobRow

AT_ONCE = frozenset({JobStatus.VALIDATING, JobStatus.QUEUED, JobStatus.PAUSED})


def planned(session: Session, job_id: str, plan: Mapping[str, Any]) -> bool:
    """Queue a job whose plan is known now; False if it is not waiting for one any more."""
    changes = {"status": JobStatus.QUEUED, "plan": dict(plan), "steps": plan["steps"]}
    row = _leave_validating(session, job_id, changes)
    if row is None:
        return False
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
    now = datetime.now(UTC)
    job.cancel_requested_at = now
    job.version += 1
    job.reason_code, job.reason_message = ReasonCode.USER_CANCELLED, "cancelled on request"
    if status in AT_ONCE:
        job.status, job.phase, job.finished_at = JobStatus.CANCELLED, None, now
        data = {"status": JobStatus.CANCELLED, "code": ReasonCode.USER_CANCELLED}
        append_event(session, job.id, "cancelled", "info", "The job was cancelled before it ran.", data)
    else:
        job.status = JobStatus.CANCELLING
        data = {"status": JobStatus.CANCELLING}
        append_event(
            session, job.id, "cancelling", "info", "The job's worker was asked to stop it.", data, job.attempt
        )


def remove(session: Session, record: JobRecord) -> None:
    """Delete a job that has ended, with all of its rows; its files are deleted after the commit.

    Raises:
        IllegalTransition: if it has not ended.
    """
    job = record.job
    require_verb("delete", job.id, JobStatus(job.status))
    files = session.scalars(select(ArtifactRow.key).where(ArtifactRow.job_id == job.id)).all()
    orphans.add(session, files)
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
