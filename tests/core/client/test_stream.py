"""Server-sent events: as bytes, and through lost connections."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipwise.client import Client, ResourceNotFound, ServiceFailed, ServiceUnreachable, UnexpectedAnswer
from clipwise.client.sse import Message, messages
from clipwise.wire.jobs import Event, JobProgressed
from tests.core.client.conftest import HANG_UP, Answer, Script, problem

STREAM = (
    b": hello\r\n\r\nid: 1\nevent: event\ndata: {\ndata: }\n\n"
    b"retry: 5\rdata:x\r\rid: 2\ndata: \xe2\x80\xa8y\n\ndata: cut"
)


def test_the_fields_of_a_stream() -> None:
    assert list(messages([STREAM])) == [
        Message(event="event", data="{\n}", id="1"),
        Message(event="message", data="x", id="1"),
        Message(event="message", data="\u2028y", id="2"),
    ]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_where_the_bytes_are_cut_changes_nothing(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[low:high] for low, high in pairwise(edges)]
    assert list(messages(pieces)) == list(messages([STREAM]))


def event(number: int) -> bytes:
    data = {"id": number, "object": "event", "type": "log", "level": "info", "message": "m", "data": {}}
    data |= {"attempt": 1, "created_at": "2026-01-01T00:00:00.000Z"}
    return f"id: {number}\nevent: event\ndata: {json.dumps(data)}\n\n".encode()


PROGRESS = {
    "object": "job_progress",
    "status": "running",
    "phase": "training",
    "progress": {"step": 5, "steps": 10},
    "privacy": {"epsilon": 0.5, "delta": 1e-5},
}
PROGRESSED = f"event: progress\ndata: {json.dumps(PROGRESS)}\n\n".encode()
EMPTY = {"object": "list", "data": [], "has_more": False}


def stream(*parts: bytes, cut: bool = False) -> Answer:
    return Answer(200, b"".join(parts), {"Content-Type": "text/event-stream"}, cut=cut)


def test_a_lost_stream_goes_on_where_it_was(
    server: Script, client: Client, job_document: Callable[..., dict[str, Any]]
) -> None:
    newer = b'event: later\ndata: {"object": "invented_later"}\n\n'
    server.play(
        stream(event(1), PROGRESSED, event(2), b'data: {"obj', cut=True),
        HANG_UP,
        problem(503),
        stream(event(2), newer, event(3)),
        Answer(200, job_document("succeeded")),
        Answer(200, EMPTY),
    )
    found = list(client.stream("job_1"))
    assert [item.id for item in found if isinstance(item, Event)] == [1, 2, 3]
    progressed = [item for item in found if isinstance(item, JobProgressed)]
    assert [item.progress.step for item in progressed if item.progress] == [5]
    assert [seen.headers.get("Last-Event-ID") for seen in server.seen[:4]] == ["0", "2", "2", "2"]


def test_a_stream_that_ends_before_the_job_is_opened_again(
    server: Script, client: Client, job_document: Callable[..., dict[str, Any]]
) -> None:
    server.play(
        stream(event(1)),
        Answer(200, job_document("running")),
        stream(event(2)),
        Answer(200, job_document("succeeded")),
        Answer(200, EMPTY),
    )
    assert [item.id for item in client.stream("job_1") if isinstance(item, Event)] == [1, 2]


def test_it_gives_up(server: Script, client: Client) -> None:
    server.play(HANG_UP)
    with pytest.raises(ServiceUnreachable):
        list(client.stream("job_1"))
    server.play(problem(500))
    with pytest.raises(ServiceFailed):
        list(client.stream("job_1"))


def test_a_job_that_is_not_there(server: Script, client: Client) -> None:
    server.play(problem(404))
    with pytest.raises(ResourceNotFound):
        list(client.stream("job_1"))
    assert len(server.seen) == 1


def test_a_message_that_cannot_be_read(server: Script, client: Client) -> None:
    server.play(stream(b"data: {\n\n"))
    with pytest.raises(UnexpectedAnswer):
        list(client.stream("job_1"))


def line(number: int) -> bytes:
    data = {"id": number, "object": "log_line", "stream": "stdout", "line": f"line {number}\u2028"}
    data |= {"attempt": 1, "created_at": "2026-01-01T00:00:00.000Z"}
    return f"event: log\nid: {number}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def test_lines_go_on_where_they_were(
    server: Script, client: Client, job_document: Callable[..., dict[str, Any]]
) -> None:
    server.play(
        stream(line(7), line(8), b'data: {"obj', cut=True),
        HANG_UP,
        stream(line(8), PROGRESSED, line(9)),
        Answer(200, job_document("running")),
        stream(line(10)),
        Answer(200, job_document("succeeded")),
        Answer(200, EMPTY),
    )
    assert [(one.id, one.line) for one in client.stream_logs("job_1")] == [
        (number, f"line {number}\u2028") for number in (7, 8, 9, 10)
    ]
    asked = [seen for seen in server.seen if "text/event-stream" in seen.headers.get("Accept", "")]
    assert {seen.path for seen in asked} == {"/v1/jobs/job_1/logs"}
    assert [seen.headers["Last-Event-ID"] for seen in asked] == ["0", "8", "8", "9"]
