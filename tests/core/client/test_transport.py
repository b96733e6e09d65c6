"""Requests over a bad line, against a real server that misbehaves."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipwise.client import (
    Client,
    InvalidRequest,
    RequestConflict,
    RequestForbidden,
    RequestUnauthenticated,
    ResourceNotFound,
    ServiceFailed,
    ServiceUnreachable,
    UnexpectedAnswer,
    WaitTimeout,
)
from clipwise.errors import ClipwiseError, ConfigurationError, InvalidSpec
from tests.conftest import free_port
from tests.core.client.conftest import HANG_UP, KEY, Answer, Script, problem

SPEC = {"dataset": "digits", "model": {"kind": "mlp"}, "training": {"steps": 3}}
JobDocument = Callable[..., dict[str, Any]]


def test_a_create_is_sent_again_under_one_key(
    server: Script, client: Client, job_document: JobDocument
) -> None:
    server.play(HANG_UP, problem(503), problem(502), Answer(201, job_document()))
    assert client.submit(SPEC).id == "job_1"
    keys = [seen.headers["Idempotency-Key"] for seen in server.seen]
    assert len(keys) == 4
    assert len(set(keys)) == 1
    assert {seen.body for seen in server.seen} == {server.seen[0].body}


def test_two_creates_have_two_keys(server: Script, client: Client, job_document: JobDocument) -> None:
    server.play(Answer(201, job_document()))
    client.submit(SPEC)
    client.submit(SPEC)
    assert len({seen.headers["Idempotency-Key"] for seen in server.seen}) == 2


def test_retry_after_is_waited_for(server: Script, client: Client, job_document: JobDocument) -> None:
    server.play(Answer(429, {}, {"Retry-After": "0.4"}), Answer(200, job_document()))
    begun = time.monotonic()
    client.job("job_1")
    assert time.monotonic() - begun >= 0.4


def test_an_error_of_ours_is_not_tried_again(server: Script, client: Client) -> None:
    server.play(problem(500))
    with pytest.raises(ServiceFailed):
        client.job("job_1")
    assert len(server.seen) == 1


def test_retries_end(server: Script, client: Client) -> None:
    server.play(problem(503))
    with pytest.raises(ServiceFailed, match="what and how"):
        client.job("job_1")
    assert len(server.seen) == 5


def test_a_deletion_that_may_have_happened_is_not_repeated(server: Script, client: Client) -> None:
    server.play(HANG_UP)
    with pytest.raises(ServiceUnreachable):
        client.delete("job_1")
    assert len(server.seen) == 1


def test_nothing_listens() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with (
        Client(url, api_key=KEY, retries=1) as client,
        pytest.raises(ServiceUnreachable, match="up"),
    ):
        client.models()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, RequestUnauthenticated),
        (403, RequestForbidden),
        (404, ResourceNotFound),
        (409, RequestConflict),
        (412, RequestConflict),
        (413, InvalidRequest),
        (415, InvalidRequest),
        (422, InvalidRequest),
        (500, ServiceFailed),
    ],
)
def test_each_status_has_its_error(
    server: Script, client: Client, status: int, kind: type[ClipwiseError]
) -> None:
    server.play(problem(status))
    with pytest.raises(kind) as raised:
        client.job("job_1")
    assert raised.value.code == "some_code"
    assert raised.value.detail == "what and how"


def test_an_error_names_fields_and_places(server: Script, client: Client) -> None:
    errors = [{"pointer": "/training/steps", "detail": "too few", "code": "ge"}]
    server.play(problem(422, errors=errors, row=7, column="age"))
    with pytest.raises(InvalidRequest) as raised:
        client.submit(SPEC)
    assert [(p.pointer, p.detail, p.code) for p in raised.value.problems] == [
        ("/training/steps", "too few", "ge")
    ]
    assert (raised.value.row, raised.value.column, raised.value.request_id) == (7, "age", "r1")


def test_somebody_elses_page_is_an_error_without_it(server: Script, client: Client) -> None:
    server.play(Answer(418, b"<html>teapot</html>"))
    with pytest.raises(ClipwiseError, match="418"):
        client.job("job_1")


def test_a_redirect_is_not_followed_with_the_key(server: Script, client: Client) -> None:
    server.play(Answer(307, {}, {"Location": "http://elsewhere.example/"}))
    with pytest.raises(ClipwiseError, match="307"):
        client.job("job_1")
    assert len(server.seen) == 1


def test_an_answer_that_is_none(server: Script, client: Client) -> None:
    server.play(Answer(200, {"id": "job_1"}))
    with pytest.raises(UnexpectedAnswer, match="version"):
        client.job("job_1")


def test_a_field_that_a_newer_service_adds_is_ignored(
    server: Script, client: Client, job_document: JobDocument
) -> None:
    server.play(Answer(200, job_document(invented_later=1)))
    assert client.job("job_1").id == "job_1"


def test_plan_waits_while_it_is_computed(server: Script, client: Client) -> None:
    pending = Answer(202, {"object": "pending_plan", "detail": "d", "retry_after": 0}, {"Retry-After": "0"})
    plan = {"steps": 3, "training_size": 10, "sampling_rate": 0.1, "expected_batch_size": 1.0}
    server.play(pending, pending, Answer(200, plan))
    assert client.plan(SPEC).steps == 3
    assert len(server.seen) == 3
    server.play(Answer(202, {}, {"Retry-After": "20"}))
    with pytest.raises(WaitTimeout):
        client.plan(SPEC, timeout=0.1)


def test_cancelling_twice_is_cancelling(server: Script, client: Client, job_document: JobDocument) -> None:
    server.play(problem(409), Answer(200, job_document("cancelling")))
    assert client.cancel("job_1").status == "cancelling"
    server.play(problem(409, allowed=["delete"]), Answer(200, job_document("succeeded")))
    with pytest.raises(RequestConflict) as raised:
        client.cancel("job_1")
    assert raised.value.allowed == ("delete",)


def test_waiting(server: Script, client: Client, job_document: JobDocument) -> None:
    running = Answer(200, job_document())
    server.play(running, running, Answer(200, job_document("failed")))
    assert client.wait("job_1").status == "failed"
    server.play(running)
    with pytest.raises(WaitTimeout, match="running"):
        client.wait("job_1", timeout=0.3)


def test_pages_are_read_as_far_as_needed(server: Script, client: Client, job_document: JobDocument) -> None:
    first = {"object": "list", "data": [job_document(id="job_a")], "has_more": True, "next_cursor": "c1"}
    second = {"object": "list", "data": [job_document(id="job_b")], "has_more": False}
    server.play(Answer(200, first), Answer(200, second))
    assert [job.id for job in client.jobs(status=["queued", "running"], tags=["a:b"])] == ["job_a", "job_b"]
    assert "status=queued&status=running" in server.seen[0].path
    assert "after=c1" in server.seen[1].path
    server.play(Answer(200, first))
    assert [job.id for job in client.jobs(limit=1)] == ["job_a"]
    assert len(server.seen) == 1


def test_an_upload_is_sent_whole_again(server: Script, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("age,label\n" + "30,1\n" * 50_000)
    server.play(problem(503), problem(422, row=2, column="age"))
    with pytest.raises(InvalidRequest):
        client.add_dataset(file, schema={"target": "label"}, max_rows_per_person=1)
    first, second = server.seen
    assert first.body == second.body
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert b'name="name"\r\n\r\npeople\r\n' in first.body
    assert b'{"target": "label"}' in first.body
    assert b'filename="people.csv"' in first.body


def test_what_is_no_json_is_refused_before_it_is_sent(server: Script, client: Client) -> None:
    server.play(Answer())
    with pytest.raises(InvalidSpec, match="JSON"):
        client.submit({**SPEC, "clipping": {"max_norm": float("nan")}})
    assert not server.seen


def test_an_id_stays_one_part_of_the_path(server: Script, client: Client) -> None:
    server.play(problem(404))
    with pytest.raises(ResourceNotFound):
        client.job("../workers?x=1#y")
    assert server.seen[0].path == "/v1/jobs/..%2Fworkers%3Fx%3D1%23y"


def test_the_key_is_sent_and_shown_nowhere(
    server: Script, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.play(problem(401))
    with pytest.raises(RequestUnauthenticated) as raised:
        client.job("job_1")
    assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"
    shown = [
        repr(client),
        repr(vars(client)),
        repr(client._transport.location),
        repr(raised.value),
        caplog.text,
    ]
    shown.append(repr(client._transport._http.headers))
    assert not [text for text in shown if KEY in text]
    assert KEY not in server.seen[0].path


def test_a_key_that_cannot_be_one_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as raised:
        Client("http://127.0.0.1:1", api_key="sécret key\n")
    assert "cret" not in str(raised.value)
