"""A job's lines as a stream, and what the poller asks for many of them."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event

from clipwise.jobs.states import JobStatus
from clipwise.store import reports
from clipwise.store.attempts import Attempt
from clipwise.store.reports import Line
from clipwise.store.sessions import transaction
from tests.api.conftest import CSV, JOB, KEY, SCHEMA, Api
from tests.api.held_jobs import claim, finish
from tests.api.test_streams import SSE, Message, messages


def write(api: Api, attempt: Attempt, *texts: str) -> None:
    now = datetime.now(UTC)
    with transaction(api.services.engine) as session:
        reports.add_logs(session, attempt, [Line(stream="stdout", text=text, at=now) for text in texts])


def end(api: Api, attempt: Attempt) -> None:
    finish(api, attempt, status=JobStatus.SUCCEEDED, result={"metrics": {}, "released": True})


def numbers(found: list[Message]) -> list[int]:
    assert {message["event"] for message in found} <= {"log"}
    assert [int(message["id"]) for message in found] == [message["data"]["id"] for message in found]
    return [message["data"]["id"] for message in found]


def follow(client: httpx.Client, job_id: str, last: int | None = None, **params: Any) -> list[Message]:
    """Read a stream of lines until the server ends it."""
    headers = SSE if last is None else {**SSE, "Last-Event-ID": str(last)}
    with client.stream("GET", f"/v1/jobs/{job_id}/logs", headers=headers, params=params) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(messages(response))


def test_lines_are_streamed_until_the_job_is_over(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    attempt = claim(api)
    write(api, attempt, "first", 'a\nline "with" \x1b[31m more')
    with owner.stream("GET", f"/v1/jobs/{job_id}/logs", headers=SSE) as response:
        read = messages(response)
        first, second = next(read), next(read)
        assert (first["event"], first["id"], first["data"]["line"]) == ("log", "1", "first")
        assert second["data"]["line"] == 'a\nline "with" \x1b[31m more'
        assert (first["data"]["object"], first["data"]["attempt"]) == ("log_line", 1)
        write(api, attempt, "third")
        assert next(read)["data"]["line"] == "third"
        write(api, attempt, *(f"line {n}" for n in range(4, 1500)))
        end(api, attempt)
        assert numbers(list(read)) == list(range(4, 1500))
    listed = owner.get(f"/v1/jobs/{job_id}/logs", params={"limit": 2}).json()
    assert [first["data"], second["data"]] == listed["data"]


def test_a_stream_of_lines_resumes_without_gap_or_repetition(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    attempt, stop, written = claim(api), threading.Event(), 0

    def keep_writing() -> None:
        nonlocal written
        while not stop.is_set():
            write(api, attempt, *(f"line {written + n}" for n in range(1, 8)))
            written += 7

    writer = threading.Thread(target=keep_writing)
    writer.start()
    seen: list[int] = []
    try:
        for _ in range(5):
            headers = {**SSE, "Last-Event-ID": str(seen[-1])} if seen else SSE
            with (
                api.client() as client,
                client.stream("GET", f"/v1/jobs/{job_id}/logs", headers=headers) as response,
            ):
                for count, message in enumerate(messages(response)):
                    seen.append(message["data"]["id"])
                    if count == 40:
                        break
    finally:
        stop.set()
        writer.join()
    end(api, attempt)
    seen += numbers(follow(owner, job_id, last=seen[-1]))
    assert seen == list(range(1, written + 1))
    assert numbers(follow(owner, job_id, after=seen[-4])) == seen[-3:]
    assert numbers(follow(owner, job_id, tail=True, limit=5)) == seen[-5:]
    # What a browser says when it connects again counts for more than where it began.
    assert numbers(follow(owner, job_id, last=seen[-3], tail=True, limit=5)) == seen[-2:]
    done = owner.get(f"/v1/jobs/{job_id}/logs", headers={**SSE, "Last-Event-ID": str(seen[-1])})
    assert (done.status_code, done.content) == (204, b"")
    wrong = owner.get(f"/v1/jobs/{job_id}/logs", headers={**SSE, "Last-Event-ID": "x"})
    assert wrong.json()["errors"][0]["pointer"] == "/header/Last-Event-ID"


def test_a_stream_begins_at_the_first_line_that_is_kept(
    api: Api, owner: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("clipwise.store.reports", "clipwise_api.event_stream"):
        monkeypatch.setattr(f"{module}.LOG_LINES", 40)
    monkeypatch.setattr("clipwise.store.reports._LOG_SWEEP", 1)
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    attempt = claim(api)
    for start in range(0, 700, 10):
        write(api, attempt, *(f"line {start + n}" for n in range(1, 11)))
    end(api, attempt)
    kept = list(range(661, 701))
    assert numbers(follow(owner, job_id)) == kept
    assert numbers(follow(owner, job_id, last=3)) == kept
    assert numbers(follow(owner, job_id, last=690)) == kept[-10:]
    assert numbers(follow(owner, job_id, tail=True, limit=1000)) == kept
    assert [line["id"] for line in owner.get(f"/v1/jobs/{job_id}/logs").json()["data"]] == kept


def test_a_job_that_printed_nothing_has_a_stream_that_ends(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    owner.post(f"/v1/jobs/{job_id}/cancel")
    assert follow(owner, job_id) == []
    assert owner.get("/v1/jobs/job_none/logs", headers=SSE).status_code == 404


def test_lines_of_private_data_are_streamed_to_owners_only(api: Api, owner: httpx.Client) -> None:
    data = {"name": "people", "schema": json.dumps(SCHEMA), "visibility": "private"}
    assert owner.post("/v1/datasets", data=data, files={"file": ("x", CSV.encode())}).status_code == 201
    plain = {"dataset": "people", "model": {"kind": "logistic"}, "training": {"steps": 3, "batch_size": 8}}
    job_id = owner.post("/v1/jobs", json={**JOB, **plain}).json()["id"]
    attempt = claim(api)
    write(api, attempt, "a row's value")
    end(api, attempt)
    with api.client(api.key_of("analyst")) as analyst:
        for headers in (SSE, {**SSE, "Last-Event-ID": "0"}, {**SSE, "Last-Event-ID": "1"}):
            refused = analyst.get(f"/v1/jobs/{job_id}/logs", headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert numbers(follow(owner, job_id)) == [1]


@contextmanager
def counted(engine: Engine) -> Iterator[list[str]]:
    """Give the statements that the poller's thread sends meanwhile."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.current_thread().name.startswith("streams"):
            sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


class Held:
    """Open streams of lines, and how many lines each has had."""

    def __init__(self, url: str, job_ids: list[str]) -> None:
        self.received = [0] * len(job_ids)
        self._url, self._job_ids = url, job_ids
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._hold()))

    def __enter__(self) -> "Held":
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def wait_for(self, number: int) -> None:
        deadline = time.monotonic() + 60
        while set(self.received) != {number}:
            assert time.monotonic() < deadline, sorted(set(self.received))
            time.sleep(0.05)

    async def _hold(self) -> None:
        headers = {"Authorization": f"Bearer {KEY}", **SSE}
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=self._url, headers=headers, limits=limits, trust_env=False, timeout=60
        ) as client:
            opened = [
                await client.send(client.build_request("GET", f"/v1/jobs/{job_id}/logs"), stream=True)
                for job_id in self._job_ids
            ]

            async def count(place: int, response: httpx.Response) -> None:
                async for line in response.aiter_lines():
                    self.received[place] += line.startswith("id:")

            tasks = [asyncio.create_task(count(n, response)) for n, response in enumerate(opened)]
            self._ready.set()
            while not self._stop.is_set():
                await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for response in opened:
                await response.aclose()


def test_500_streams_ask_no_more_than_one(api: Api, owner: httpx.Client) -> None:
    job_ids = [owner.post("/v1/jobs", json={**JOB, "name": f"{n}"}).json()["id"] for n in range(5)]
    held = {attempt.job_id: attempt for attempt in (claim(api) for _ in job_ids)}
    write(api, held[job_ids[0]], "before")
    everyone = [job_ids[n % 5] for n in range(500)]
    for job_id in job_ids[1:]:
        write(api, held[job_id], "before")
    with Held(api.url, everyone) as streams:
        assert len(api.services.streams) == 500
        streams.wait_for(1)
        with counted(api.services.engine) as sent:
            for n in range(4):
                for attempt in held.values():
                    write(api, attempt, f"line {n}", "and another one")
                assert owner.get("/v1/queues").status_code == 200
            streams.wait_for(9)
            quiet = len(sent)
            time.sleep(1)
        watching = [statement for statement in sent if "job_logs" not in statement]
        lines = [statement for statement in sent if "job_logs" in statement]
        # Each look is one query for all of the jobs, and one more for all of their new lines together.
        assert 1 <= len(lines) <= 8
        assert len(lines) < len(watching) < 60
        # Where nothing is new no lines are asked for.
        assert not any("job_logs" in statement for statement in sent[quiet:])


def test_who_has_a_long_way_to_go_holds_nobody_up(
    api: Api, owner: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At one line a look whoever begins at the beginning is on its way for minutes.
    monkeypatch.setattr("clipwise_api.streams.ITEMS_AT_ONCE", 1)
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    attempt = claim(api)
    write(api, attempt, *(f"line {n}" for n in range(1, 6001)))
    url = f"/v1/jobs/{job_id}/logs"
    with (
        owner.stream("GET", url, headers={**SSE, "Last-Event-ID": "6000"}) as live,
        api.client() as client,
        client.stream("GET", url, headers=SSE) as late,
    ):
        assert next(messages(late))["data"]["id"] == 1
        write(api, attempt, "news")
        assert next(messages(live))["data"]["line"] == "news"
