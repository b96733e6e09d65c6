"""Jobs: submit, plan, list, look at, and what may be done with one or many of them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from clipwise.jobs.spec import JobSpec
from clipwise.jobs.states import JobStatus
from clipwise.wire.jobs import BulkChange, BulkResult, Deleted, Job, JobChanges, PendingPlan, Plan
from clipwise.wire.listing import Page
from clipwise_api import submission, verbs
from clipwise_api.bodies import JsonRoute
from clipwise_api.caching import etag, not_modified
from clipwise_api.documents import problems
from clipwise_api.selection import job_filter
from clipwise_api.services import (
    After,
    Caller,
    IdempotencyKey,
    IfMatch,
    IfNoneMatch,
    JobId,
    Limit,
    RequestId,
    Services,
)
from clipwise_api.views import jobs as views

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=JsonRoute)


@router.post("", status_code=201, responses=problems(409, 413, 415))
def create_job(
    spec: JobSpec,
    who: Caller,
    services: Services,
    request_id: RequestId,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Job:
    """Submit a job. It is `validating` until its noise is known, then `queued`."""
    job, replayed = submission.create(services, who, spec, idempotency_key, request_id)
    return _made(job, response, replayed=replayed)


@router.post(
    "/validate",
    responses={202: {"model": PendingPlan, "description": "Still computing."}, **problems(413, 415, 503)},
)
async def validate_job(spec: JobSpec, who: Caller, services: Services) -> Plan:
    """Return the plan of a job without creating anything."""
    return await submission.plan(services, who, spec)


@router.get("", responses=problems())
def list_jobs(
    who: Caller,
    services: Services,
    limit: Limit = 20,
    after: After = None,
    status: Annotated[list[JobStatus] | None, Query()] = None,
    dataset: Annotated[str | None, Query(max_length=200, description="Id or name.")] = None,
    model: Annotated[str | None, Query(max_length=200, description="Kind of the model.")] = None,
    queue: Annotated[str | None, Query(max_length=200)] = None,
    parent: Annotated[str | None, Query(max_length=100, description="Made from this job.")] = None,
    created_by: Annotated[str | None, Query(max_length=100, description="Id of a key, or `me`.")] = None,
    tag: Annotated[list[str] | None, Query(max_length=32, description="`key:value`; all must match.")] = None,
    q: Annotated[str | None, Query(max_length=200, description="Part of the name.")] = None,
    sort: Literal["-created_at", "created_at", "name", "-name"] = "-created_at",
) -> Page[Job]:
    """List jobs, the newest first."""
    wanted = job_filter(
        who, "/query", status=status, dataset=dataset, model=model, queue=queue, parent=parent,
        created_by=created_by, tag=tag, q=q,
    )  # fmt: skip
    return views.page(services, who, wanted, limit=limit, after=after, sort=sort)


@router.post("/bulk", responses=problems(409, 413, 415))
def bulk_jobs(
    change: BulkChange,
    who: Caller,
    services: Services,
    request_id: RequestId,
    idempotency_key: IdempotencyKey = None,
) -> BulkResult:
    """Apply a verb to up to a thousand jobs, the oldest first. One that refuses it is listed and stops none.

    With `has_more` ask again with `after`. An `Idempotency-Key` keeps `retry` from making two jobs of one;
    the other verbs can be repeated as they are. An analyst changes only jobs of its own.
    """
    return verbs.bulk(services, who, change, idempotency_key, request_id)


@router.get("/{job_id}", responses={304: {"description": "Not changed."}, **problems(404)})
def get_job(
    job_id: JobId, who: Caller, services: Services, response: Response, if_none_match: IfNoneMatch = None
) -> Job:
    """Return one job. Its `ETag` changes whenever the job does."""
    job = views.one(services, who, job_id)
    not_modified(job, if_none_match)
    return _tagged(job, response)


@router.post("/{job_id}/cancel", responses=problems(404, 409, 412))
def cancel_job(
    job_id: JobId, who: Caller, services: Services, response: Response, if_match: IfMatch = None
) -> Job:
    """Cancel a job: at once while it waits, else as soon as its worker has stopped it."""
    return _tagged(verbs.change(services, who, "cancel", job_id, if_match), response)


@router.post("/{job_id}/pause", responses=problems(404, 409, 412))
def pause_job(
    job_id: JobId, who: Caller, services: Services, response: Response, if_match: IfMatch = None
) -> Job:
    """Pause a job: at once while it waits, else as soon as its worker has written a checkpoint."""
    return _tagged(verbs.change(services, who, "pause", job_id, if_match), response)


@router.post("/{job_id}/resume", responses=problems(404, 409, 412))
def resume_job(
    job_id: JobId, who: Caller, services: Services, response: Response, if_match: IfMatch = None
) -> Job:
    """Put a paused job back into its queue; it goes on from its last checkpoint."""
    return _tagged(verbs.change(services, who, "resume", job_id, if_match), response)


@router.post("/{job_id}/retry", status_code=201, responses=problems(404, 409, 412))
def retry_job(
    job_id: JobId,
    who: Caller,
    services: Services,
    request_id: RequestId,
    response: Response,
    if_match: IfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> Job:
    """Submit a job that failed or was cancelled again: a new one, whose `parent` names this one."""
    job, replayed = verbs.retry(services, who, job_id, if_match, idempotency_key, request_id)
    return _made(job, response, replayed=replayed)


@router.post("/{job_id}/clone", status_code=201, responses=problems(404, 409, 412, 413, 415))
def clone_job(
    job_id: JobId,
    changes: JobChanges,
    who: Caller,
    services: Services,
    request_id: RequestId,
    response: Response,
    if_match: IfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> Job:
    """Submit a new job with this one's specification, changed by a JSON merge patch (RFC 7396).

    A null removes a field. Pointers of errors are into the changed specification.
    """
    job, replayed = verbs.clone(services, who, job_id, changes, if_match, idempotency_key, request_id)
    return _made(job, response, replayed=replayed)


@router.delete("/{job_id}", responses=problems(404, 409, 412))
def delete_job(job_id: JobId, who: Caller, services: Services, if_match: IfMatch = None) -> Deleted:
    """Delete a finished job with everything that it left."""
    return verbs.delete(services, who, job_id, if_match)


def _tagged(job: Job, response: Response) -> Job:
    response.headers["ETag"] = etag(job)
    return job


def _made(job: Job, response: Response, *, replayed: bool) -> Job:
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return _tagged(job, response)
