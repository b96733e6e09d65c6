"""A job's live events and lines, through lost connections and restarts of the service."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

import httpx

from clipwise.client.errors import RateLimited, ServiceFailed, UnexpectedAnswer
from clipwise.client.sse import Message, messages
from clipwise.client.transport import Transport, backoff
from clipwise.wire.jobs import Event, JobProgressed, LogLine
from clipwise.wire.listing import WireObject

T = TypeVar("T", bound=WireObject)

QUIET_SECONDS = 60.0
"""A stream that says nothing for so long, not even a comment, is taken for dead."""
EVENTS: Final[Mapping[str, type[Event | JobProgressed]]] = {"event": Event, "job_progress": JobProgressed}
LINES: Final[Mapping[str, type[LogLine]]] = {"log_line": LogLine}
"""What a stream has, by the name of the object; what a newer service sends beside them is passed over."""


def follow(
    transport: Transport,
    path: str,
    kinds: Mapping[str, type[T]],
    *,
    after: int,
    reconnects: int,
    is_over: Callable[[int], bool],
) -> Iterator[T]:
    """Yield what a stream has after number `after`, once and in order, and what has no number between.

    Ends when the service has ended the stream and `is_over` (given the last number) agrees.

    Raises:
        ApiError: if the service refuses the stream.
        ServiceUnreachable: after `reconnects` tries in a row that brought nothing.
    """
    last, failures = after, 0
    while True:
        failure: Exception | None = None
        try:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last)}
            with transport.streaming(path, headers=headers, read_timeout=QUIET_SECONDS) as response:
                for message in messages(response.iter_bytes()):
                    item = _read(message, kinds)
                    number = item.id if isinstance(item, Event | LogLine) else None
                    if item is None or (number is not None and number <= last):
                        continue
                    failures = 0
                    last = last if number is None else number
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


def _read(message: Message, kinds: Mapping[str, type[T]]) -> T | None:
    try:
        kind = kinds.get(json.loads(message.data).get("object"))
        return None if kind is None else kind.model_validate_json(message.data)
    except (ValueError, AttributeError) as error:
        raise UnexpectedAnswer(
            f"the stream has a '{message.event}' that this version cannot read; "
            "install the version of the service"
        ) from error
