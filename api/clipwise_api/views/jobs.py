"""Jobs on the wire."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from sqlalchemy.orm import Session

from clipwise.errors import InvalidInput, Problem
from clipwise.jobs.states import JobStatus, ReasonCode, allowed_verbs
from clipwise.store import jobs, workers
from clipwise.store.jobs import JobFilter, JobRecord, Sort
from clipwise.store.sessions import reading
from clipwise.store.tables import JobRow
from clipwise.wire.jobs import Job, JobResult, Plan, StatusReason
from clipwise.wire.listing import Page
from clipwise_api.principals import Principal
from clipwise_api.services import ServiceSet
from clipwise_api.views.outputs import SEALED, is_sealed
from clipwise_api.views.progress import privacy_of, progress_of


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Which queues the living workers serve, and with which kinds of models."""

    kinds_of_queues: Sequence[tuple[frozenset[str], frozenset[str]]]

    @classmethod
    def living(cls, session: Session) -> Self:
        """Look at the workers."""
        return cls(
            kinds_of_queues=[(frozenset(w.queues), frozenset(w.kinds)) for w in workers.alive(session)]
        )

    def missing(self, job: JobRow) -> StatusReason | None:
        """Say what a waiting job waits for, where no worker could take it; computed, never stored."""
        serving = [kinds for queues, kinds in self.kinds_of_queues if job.queue in queues]
        if any(job.model_kind in kinds for kinds in serving):
            return None
        lacking = f"has the model kind '{job.model_kind}'" if serving else f"serves the queue '{job.queue}'"
        message = f"no running worker {lacking}; it starts when one does"
        return StatusReason(code=ReasonCode.NO_MATCHING_WORKER, message=message)


def job_view(record: JobRecord, who: Principal, fleet: Fleet | None) -> Job:
    """Return a job as this caller may see it."""
    job = record.job
    status = JobStatus(job.status)
    reason = fleet.missing(job) if fleet is not None and status is JobStatus.QUEUED else None
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
    services: ServiceSet,
    who: Principal,
    *,
    limit: int,
    after: str | None,
    statuses: Sequence[JobStatus],
    dataset: str | None,
    model: str | None,
    tags: Sequence[str],
    search: str | None,
    sort: Sort,
) -> Page[Job]:
    """Return one page of jobs."""
    wanted = JobFilter(
        statuses=statuses, dataset=dataset, model_kind=model, tags=[_tag(tag) for tag in tags], search=search
    )
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


def _tag(text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not colon:
        detail = f"'{text}' is no tag; write key:value"
        raise InvalidInput(detail, (Problem(pointer="/query/tag", detail=detail),))
    return key, value
