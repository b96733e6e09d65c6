"""A job's live events, through lost connections and restarts of the service."""

import json
import time
from collections.abc import Callable, Iterator

import httpx

from clipwise.client.errors import RateLimited, ServiceFailed, UnexpectedAnswer
from clipwise.client.sse import Message, messages
from clipwise.client.transport import Transport, backoff
from clipwise.wire.jobs import Event, JobProgressed

QUIET_SECONDS = 60.0
"""A stream that says nothing for so long, not even a comment, is taken for dead."""


def follow(
    transport: Transport,
    job_id: str,
    *,
    after: int,
    reconnects: int,
    is_over: Callable[[int], bool],
) -> Iterator[Event | JobProgressed]:
    """Yield every event of a job after number `after`, once and in order, and its progress between them.

    Ends when the service has ended the stream and `is_over` (given the last event's number) agrees.

    Raises:
        ApiError: if the service refuses the stream.
        ServiceUnreachable: after `reconnects` tries in a row that brought nothing.
    """
    last, failures = after, 0
    while True:
        failure: Exception | None = None
        try:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last)}
            path = f"/v1/jobs/{job_id}/events"
            with transport.streaming(path, headers=headers, read_timeout=QUIET_SECONDS) as response:
                for message in messages(response.iter_bytes()):
                    item = _read(message)
                    if item is None or (isinstance(item, Event) and item.id <= last):
                        continue
                    failures = 0
                    if isinstance(item, Event):
                        last = item.id
                    yield item
            if is_over(last):
                return
        except (httpx.TransportError, RateLimited, ServiceFailed) as error:
            failure = error
        if failures >= reconnects:
            if isinstance(failure, httpx.TransportError):
                raise transport.unreachable(failure) from failure
            if failure is not None:
                raise failure
        time.sleep(backoff(min(failures, reconnects)))
        failures += failure is not None


def _read(message: Message) -> Event | JobProgressed | None:
    try:
        what = json.loads(message.data).get("object")
        if what == "event":
            return Event.model_validate_json(message.data)
        if what == "job_progress":
            return JobProgressed.model_validate_json(message.data)
    except (ValueError, AttributeError) as error:
        raise UnexpectedAnswer(
            f"the event stream has a '{message.event}' that this version cannot read; "
            "install the version of the service"
        ) from error
    return None  # what a newer service sends beside them
