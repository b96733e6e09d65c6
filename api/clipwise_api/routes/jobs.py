"""Jobs: submit, plan, list, look at, cancel, delete."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from clipwise.jobs.spec import JobSpec
from clipwise.jobs.states import JobStatus
from clipwise.wire.jobs import Deleted, Job, PendingPlan, Plan
from clipwise.wire.listing import Page
from clipwise_api import submission
from clipwise_api.bodies import JsonRoute
from clipwise_api.caching import etag, not_modified
from clipwise_api.documents import problems
from clipwise_api.services import After, Caller, IdempotencyKey, IfMatch, IfNoneMatch, JobId, Limit, Services
from clipwise_api.views import jobs as views

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=JsonRoute)


@router.post("", status_code=201, responses=problems(409, 413, 415))
def create_job(
    spec: JobSpec, who: Caller, services: Services, response: Response, idempotency_key: IdempotencyKey = None
) -> Job:
    """Submit a job. It is `validating` until its noise is known, then `queued`."""
    job, replayed = submission.submit(services, who, spec, idempotency_key)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return job


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
    tag: Annotated[list[str] | None, Query(max_length=32, description="`key:value`; all must match.")] = None,
    q: Annotated[str | None, Query(max_length=200, description="Part of the name.")] = None,
    sort: Literal["-created_at", "created_at", "name", "-name"] = "-created_at",
) -> Page[Job]:
    """List jobs, the newest first."""
    return views.page(
        services, who, limit=limit, after=after, statuses=status or [], dataset=dataset, model=model,
        tags=tag or [], search=q, sort=sort,
    )  # fmt: skip


@router.get("/{job_id}", responses={304: {"description": "Not changed."}, **problems(404)})
def get_job(
    job_id: JobId, who: Caller, services: Services, response: Response, if_none_match: IfNoneMatch = None
) -> Job:
    """Return one job. Its `ETag` changes whenever the job does."""
    job = views.one(services, who, job_id)
    response.headers["ETag"] = etag(job)
    not_modified(job, if_none_match)
    return job


@router.post("/{job_id}/cancel", responses=problems(404, 409, 412))
def cancel_job(job_id: JobId, who: Caller, services: Services, if_match: IfMatch = None) -> Job:
    """Cancel a job: at once while it waits, else as soon as its worker has stopped it."""
    return submission.cancel(services, who, job_id, if_match)


@router.delete("/{job_id}", responses=problems(404, 409, 412))
def delete_job(job_id: JobId, who: Caller, services: Services, if_match: IfMatch = None) -> Deleted:
    """Delete a finished job with everything that it left."""
    return submission.delete(services, who, job_id, if_match)
