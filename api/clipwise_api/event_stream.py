"""A job's events, and the lines of its runner, as server-sent events (the HTML standard, section 9.2)."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TypeVar

from sqlalchemy.orm import Session
from starlette.responses import StreamingResponse

from clipwise.jobs.states import JobStatus
from clipwise.store import job_feed
from clipwise.store.job_feed import Span, Watched
from clipwise.store.reports import LOG_LINES
from clipwise.store.tables import EventRow
from clipwise.wire.jobs import Event, JobProgressed
from clipwise_api.streams import Feed, Streams, Subscription
from clipwise_api.views.log_lines import line_view
from clipwise_api.views.progress import privacy_of, progress_of

T = TypeVar("T")

HEARTBEAT_SECONDS = 15.0
RECONNECT_MILLISECONDS = 1000

EventView = Callable[[EventRow], Event]
EventItem = EventRow | Watched


def _line_frames(session: Session, spans: Sequence[Span]) -> Mapping[Span, Sequence[bytes]]:
    # Everyone who may see a line sees the same, so that it is written once for all streams.
    return {
        span: [f"event: log\nid: {r.id}\ndata: {line_view(r).model_dump_json()}\n\n".encode() for r in rows]
        for span, rows in job_feed.lines_in(session, spans).items()
    }


EVENTS: Feed[EventItem] = Feed(
    newest=lambda job: job.last_event_id,
    gone=lambda _: 0,
    read=job_feed.events_in,
    progress=lambda job: job,
)
LINES: Feed[bytes] = Feed(
    newest=lambda job: job.last_log_id,
    gone=lambda job: job.last_log_id - LOG_LINES,
    read=_line_frames,
    progress=None,
)


class LiveStream(StreamingResponse):
    """Streams a feed of a job until the job has ended, the client leaves, or the server stops."""

    def __init__(
        self,
        streams: Streams,
        feed: Feed[T],
        job_id: str,
        after: int,
        key_id: str,
        write: Callable[[T], bytes],
    ) -> None:
        super().__init__(
            _frames(streams, feed, job_id, after, key_id, write),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"},
        )


def event_stream(streams: Streams, job_id: str, after: int, key_id: str, view: EventView) -> LiveStream:
    """Return a job's events after number `after`, and its progress between them."""
    return LiveStream(streams, EVENTS, job_id, after, key_id, partial(_event_frame, view=view))


def line_stream(streams: Streams, job_id: str, after: int, key_id: str) -> LiveStream:
    """Return the lines of a job's runner after number `after`."""
    return LiveStream(streams, LINES, job_id, after, key_id, lambda frame: frame)


async def _frames(
    streams: Streams,
    feed: Feed[T],
    job_id: str,
    after: int,
    key_id: str,
    write: Callable[[T], bytes],
) -> AsyncIterator[bytes]:
    subscription = streams.subscribe(feed, job_id, after, key_id)
    try:
        yield f"retry: {RECONNECT_MILLISECONDS}\n\n".encode()
        while True:
            items = await subscription.next(HEARTBEAT_SECONDS)
            if items:
                yield b"".join(write(item) for item in items)
            elif not subscription.ended:
                yield b": still here\n\n"
            if _is_over(subscription):
                return
    finally:
        streams.unsubscribe(subscription)


def _is_over(subscription: Subscription[T]) -> bool:
    return subscription.ended and subscription.is_empty


def _event_frame(item: EventItem, view: EventView) -> bytes:
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
