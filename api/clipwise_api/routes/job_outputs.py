"""What a job leaves: events and logs (also as streams), metrics, attempts, checkpoints, artifacts."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from clipwise.wire.jobs import Artifact, Attempt, Checkpoint, Event, LogLine, MetricSeries
from clipwise.wire.listing import Page
from clipwise_api import downloads
from clipwise_api.bodies import JsonRoute
from clipwise_api.documents import Responses, problems
from clipwise_api.event_stream import event_stream, line_stream
from clipwise_api.services import Caller, IfNoneMatch, JobId, Services
from clipwise_api.views import attempts, outputs

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["job outputs"], route_class=JsonRoute)
Number = Annotated[int, Query(ge=0, lt=2**31)]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)]
EVENT_STREAM = "text/event-stream"
LIST_OR_STREAM: Responses = {
    200: {
        "description": "A list, or a stream.",
        "content": {EVENT_STREAM: {"schema": {"type": "string", "description": "Server-sent events."}}},
    },
    204: {"description": "The job has ended, and the client has everything."},
    **problems(404),
}
FILE: Responses = {
    200: {
        "description": "The file.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    304: {"description": "Not changed."},
    **problems(404, 503),
}


@router.get("/events", response_model=Page[Event], responses=LIST_OR_STREAM)
async def list_events(
    job_id: JobId,
    who: Caller,
    services: Services,
    request: Request,
    after: Number = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    last_event_id: LastEventId = None,
) -> Page[Event] | Response:
    """List a job's events; with `Accept: text/event-stream`, stream them until the job has ended."""
    if EVENT_STREAM in request.headers.get("accept", ""):
        start = outputs.resume_point(after, last_event_id)
        view, over = await run_in_threadpool(outputs.stream_view, services, who, job_id, start)
        if over and last_event_id is not None:
            return Response(status_code=204)  # tells a browser not to connect again
        return event_stream(services.streams, job_id, start, who.key_id, view)
    return await run_in_threadpool(outputs.events, services, who, job_id, after, limit)


@router.get("/metrics", responses=problems(404))
def get_metrics(
    job_id: JobId,
    who: Caller,
    services: Services,
    name: Annotated[list[str] | None, Query(max_length=64, description="Repeatable; all without.")] = None,
    after_step: Annotated[int | None, Query(ge=-1, lt=2**62, description="Only later steps.")] = None,
    max_points: Annotated[int, Query(ge=10, le=2000, description="Per metric; extremes are kept.")] = 1000,
) -> dict[str, MetricSeries]:
    """Return a job's metrics over its steps, thinned out on the server; the newest attempt wins."""
    return outputs.metrics(services, who, job_id, name, after_step, max_points)


@router.get("/logs", response_model=Page[LogLine], responses=LIST_OR_STREAM)
async def list_logs(
    job_id: JobId,
    who: Caller,
    services: Services,
    request: Request,
    after: Number = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    tail: Annotated[bool, Query(description="The last lines instead of the first.")] = False,
    last_event_id: LastEventId = None,
) -> Page[LogLine] | Response:
    """List the lines that a job's runner printed, of which the last 10,000 are kept.

    With `Accept: text/event-stream`, stream them until the job has ended; with `tail` from the last `limit`
    ones on.
    """
    if EVENT_STREAM in request.headers.get("accept", ""):
        start = outputs.resume_point(after, last_event_id)
        last = limit if tail and last_event_id is None else None
        start, over = await run_in_threadpool(outputs.stream_of_lines, services, who, job_id, start, last)
        if over and last_event_id is not None:
            return Response(status_code=204)  # tells a browser not to connect again
        return line_stream(services.streams, job_id, start, who.key_id)
    return await run_in_threadpool(outputs.logs, services, who, job_id, after, limit, tail=tail)


@router.get("/attempts", responses=problems(404))
def list_attempts(
    job_id: JobId,
    who: Caller,
    services: Services,
    after: Number = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Page[Attempt]:
    """List a job's attempts: which worker had it, from which step on, and why it ended."""
    return attempts.attempts(services, who, job_id, after, limit)


@router.get("/checkpoints", responses=problems(404))
def list_checkpoints(job_id: JobId, who: Caller, services: Services) -> Page[Checkpoint]:
    """List what a job can go on from, the newest first."""
    return attempts.checkpoints(services, who, job_id)


@router.get("/checkpoints/{step}", response_class=Response, responses=FILE)
def download_checkpoint(
    job_id: JobId,
    step: Annotated[int, Path(ge=0, lt=2**62)],
    who: Caller,
    services: Services,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Download a checkpoint as safetensors; its `ETag` is its SHA-256."""
    return downloads.checkpoint(services, who, job_id, step, if_none_match)


@router.get("/artifacts", responses=problems(404))
def list_artifacts(job_id: JobId, who: Caller, services: Services) -> Page[Artifact]:
    """List the files that a job left."""
    return outputs.artifacts(services, who, job_id)


@router.get("/artifacts/{name}", response_class=Response, responses=FILE)
def download_artifact(
    job_id: JobId, name: str, who: Caller, services: Services, if_none_match: IfNoneMatch = None
) -> Response:
    """Download one file; its `ETag` is its SHA-256."""
    return downloads.artifact(services, who, job_id, name, if_none_match)
