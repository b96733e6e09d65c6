"""Jobs on the wire."""

from datetime import datetime

from clipwise.jobs.states import OWNED, JobStatus, ReasonCode, allowed_verbs
from clipwise.store import jobs
from clipwise.store.jobs import JobFilter, JobRecord, Sort
from clipwise.store.sessions import reading
from clipwise.store.tables import JobRow
from clipwise.wire.jobs import Job, JobParent, JobResult, Plan, StatusReason
from clipwise.wire.listing import Page
from clipwise_api.fleet import Fleet
from clipwise_api.principals import Principal
from clipwise_api.services import ServiceSet
from clipwise_api.views.outputs import SEALED, is_sealed
from clipwise_api.views.progress import privacy_of, progress_of


def job_view(record: JobRecord, who: Principal, fleet: Fleet | None) -> Job:
    """Return a job as this caller may see it."""
    job = record.job
    status = JobStatus(job.status)
    waiting = fleet if status is JobStatus.QUEUED else None
    reason = waiting.missing(job) if waiting is not None else None
    if job.reason_code is not None:
        sealed = status is JobStatus.FAILED and is_sealed(record, who)
        message = SEALED if sealed else job.reason_message or ""
        reason = StatusReason(code=ReasonCode(job.reason_code), message=message)
    return Job(
        id=job.id,
        name=job.name,
        status=status,
        phase=job.phase,
        status_reason=reason,
        progress=progress_of(job),
        plan=Plan.model_validate(job.plan) if job.plan else None,
        privacy=privacy_of(job),
        result=_result(record, who),
        spec=job.spec,
        dataset_id=job.dataset_id,
        attempt=job.attempt,
        interruptions=job.runner_deaths + job.worker_losses,
        checkpoint_step=job.checkpoint_step,
        priority=job.priority,
        parent=_parent(job),
        worker_id=job.worker_id if status in OWNED else None,
        retry_at=_retry_at(job, waiting) if waiting is not None else None,
        tags=job.spec.get("tags", {}),
        allowed=list(allowed_verbs(status)),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def one(services: ServiceSet, who: Principal, job_id: str) -> Job:
    """Return one job."""
    with reading(services.engine) as session:
        record = jobs.get(session, job_id)
        return job_view(record, who, Fleet.living(session))


def page(
    services: ServiceSet, who: Principal, wanted: JobFilter, *, limit: int, after: str | None, sort: Sort
) -> Page[Job]:
    """Return one page of jobs."""
    with reading(services.engine) as session:
        records, cursor = jobs.page(session, wanted, sort=sort, limit=limit, after=after)
        waiting = any(record.job.status == JobStatus.QUEUED for record in records)
        fleet = Fleet.living(session) if waiting else None
    data = [job_view(record, who, fleet) for record in records]
    return Page(data=data, has_more=cursor is not None, next_cursor=cursor)


def _result(record: JobRecord, who: Principal) -> JobResult | None:
    if record.job.result is None:
        return None
    result = JobResult.model_validate(record.job.result)
    return result if result.released or who.is_owner or not record.private else None


def _parent(job: JobRow) -> JobParent | None:
    if job.parent_id is None:
        return None
    return JobParent.model_validate({"id": job.parent_id, "verb": job.parent_verb})


def _retry_at(job: JobRow, fleet: Fleet) -> datetime | None:
    return job.not_before if job.not_before is not None and job.not_before > fleet.now else None
