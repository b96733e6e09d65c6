"""A job's events as server-sent events (the HTML standard, section 9.2)."""

from collections.abc import AsyncIterator, Callable
from functools import lru_cache

from starlette.responses import StreamingResponse

from clipwise.jobs.states import JobStatus
from clipwise.store.job_feed import Watched
from clipwise.store.tables import EventRow
from clipwise.wire.jobs import Event, JobProgressed
from clipwise_api.streams import Streams, Subscription
from clipwise_api.views.progress import privacy_of, progress_of

HEARTBEAT_SECONDS = 15.0
RECONNECT_MILLISECONDS = 1000

EventView = Callable[[EventRow], Event]


class EventStream(StreamingResponse):
    """Streams a job's events until it has ended, the client leaves, or the server stops."""

    def __init__(self, streams: Streams, job_id: str, after: int, key_id: str, view: EventView) -> None:
        super().__init__(
            _frames(streams, job_id, after, key_id, view),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"},
        )


async def _frames(
    streams: Streams, job_id: str, after: int, key_id: str, view: EventView
) -> AsyncIterator[bytes]:
    subscription = streams.subscribe(job_id, after, key_id)
    try:
        yield f"retry: {RECONNECT_MILLISECONDS}\n\n".encode()
        while True:
            items = await subscription.next(HEARTBEAT_SECONDS)
            if items:
                yield b"".join(_frame(item, view) for item in items)
            elif not subscription.ended:
                yield b": still here\n\n"
            if _is_over(subscription):
                return
    finally:
        streams.unsubscribe(subscription)


def _is_over(subscription: Subscription) -> bool:
    return subscription.ended and subscription.is_empty


def _frame(item: EventRow | Watched, view: EventView) -> bytes:
    if isinstance(item, Watched):
        return _progress_frame(item)
    return f"id: {item.id}\ndata: {view(item).model_dump_json()}\n\n".encode()


@lru_cache(maxsize=256)
def _progress_frame(job: Watched) -> bytes:
    # The same for every stream of the job, so written once.
    moved = JobProgressed(
        status=JobStatus(job.status), phase=job.phase, progress=progress_of(job), privacy=privacy_of(job)
    )
    return f"event: progress\ndata: {moved.model_dump_json()}\n\n".encode()
