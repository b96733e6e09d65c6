"""What a job leaves: events (also as a stream), metrics, logs, artifacts."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from clipwise.wire.jobs import Artifact, Event, LogLine, MetricSeries
from clipwise.wire.listing import Page
from clipwise_api import downloads
from clipwise_api.bodies import JsonRoute
from clipwise_api.documents import problems
from clipwise_api.event_stream import EventStream
from clipwise_api.services import Caller, IfNoneMatch, JobId, Services
from clipwise_api.views import outputs

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["job outputs"], route_class=JsonRoute)
Number = Annotated[int, Query(ge=0, lt=2**31)]
ENDED = {"description": "The job has ended, and the client has every event."}
STREAM = {"text/event-stream": {"schema": {"type": "string", "description": "Server-sent events."}}}


@router.get(
    "/events",
    response_model=Page[Event],
    responses={
        200: {"description": "A list, or a stream.", "content": STREAM},
        204: {"description": "The job has ended, and the client has every event."},
        **problems(404),
    },
)
async def list_events(
    job_id: JobId,
    who: Caller,
    services: Services,
    request: Request,
    after: Number = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)] = None,
) -> Page[Event] | Response:
    """List a job's events; with `Accept: text/event-stream`, stream them until the job has ended."""
    if "text/event-stream" in request.headers.get("accept", ""):
        start = outputs.resume_point(after, last_event_id)
        view, over = await run_in_threadpool(outputs.stream_view, services, who, job_id, start)
        if over and last_event_id is not None:
            return Response(status_code=204)  # tells a browser not to connect again
        return EventStream(services.streams, job_id, start, who.key_id, view)
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


@router.get("/logs", responses=problems(404))
def list_logs(
    job_id: JobId,
    who: Caller,
    services: Services,
    after: Number = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    tail: Annotated[bool, Query(description="The last lines instead of the first.")] = False,
) -> Page[LogLine]:
    """List the lines that a job's runner printed."""
    return outputs.logs(services, who, job_id, after, limit, tail=tail)


@router.get("/artifacts", responses=problems(404))
def list_artifacts(job_id: JobId, who: Caller, services: Services) -> Page[Artifact]:
    """List the files that a job left."""
    return outputs.artifacts(services, who, job_id)


@router.get(
    "/artifacts/{name}",
    response_class=Response,
    responses={
        200: {
            "description": "The file.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        304: {"description": "Not changed."},
        **problems(404, 503),
    },
)
def download_artifact(
    job_id: JobId, name: str, who: Caller, services: Services, if_none_match: IfNoneMatch = None
) -> Response:
    """Download one file; its `ETag` is its SHA-256."""
    return downloads.artifact(services, who, job_id, name, if_none_match)
