import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from clipwise.jobs.states import JobStatus
from clipwise.settings import Settings
from clipwise.store import migration
from clipwise.store.events import append_event
from clipwise.store.sessions import transaction
from clipwise.store.tables import JobRow
from tests.api.conftest import JOB, KEY, Api

SSE = {"Accept": "text/event-stream"}
Message = dict[str, Any]


def messages(response: httpx.Response) -> Iterator[Message]:
    """Read a stream's messages as a browser does."""
    message: Message = {}
    for line in response.iter_lines():
        if not line:
            if "data" in message:
                yield {**message, "data": json.loads(message["data"])}
            message = {}
            continue
        name, _, value = line.partition(": ")
        message[name] = value


def follow(client: httpx.Client, job_id: str, headers: dict[str, str] | None = None) -> list[Message]:
    """Read a stream until the server ends it."""
    with client.stream("GET", f"/v1/jobs/{job_id}/events", headers={**SSE, **(headers or {})}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(messages(response))


def add_events(api: Api, job_id: str, number: int) -> None:
    with transaction(api.services.engine) as session:
        for n in range(number):
            append_event(session, job_id, "note", "info", f"note {n}", {"n": n}, 1)


def advance(api: Api, job_id: str, **columns: Any) -> None:
    with transaction(api.services.engine) as session:
        row = session.get_one(JobRow, job_id)
        for name, value in columns.items():
            setattr(row, name, value)
        row.version += 1


def test_a_stream_shows_events_and_progress_and_ends_with_the_job(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    found: queue.Queue[Message | None] = queue.Queue()

    def read() -> None:
        with api.client() as client:
            for message in follow(client, job_id):
                found.put(message)
        found.put(None)

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.5)
    add_events(api, job_id, 3)
    owned = {"status": JobStatus.RUNNING, "lease_expires_at": datetime.now(UTC) + timedelta(hours=1)}
    advance(api, job_id, **owned, phase="training", step=4, epsilon=0.5, delta=1e-5)
    time.sleep(0.6)
    owner.post(f"/v1/jobs/{job_id}/cancel")
    with transaction(api.services.engine) as session:
        append_event(session, job_id, "cancelled", "info", "stopped")
        session.get_one(JobRow, job_id).status = JobStatus.CANCELLED
    thread.join(10)
    assert not thread.is_alive()
    got = list(iter(found.get, None))
    events = [m for m in got if "id" in m]
    assert [m["id"] for m in events] == [str(n) for n in range(1, 8)]
    assert [m["data"]["type"] for m in events] == [
        "submitted", "queued", "note", "note", "note", "cancelling", "cancelled",
    ]  # fmt: skip
    moves = [m["data"] for m in got if m.get("event") == "progress"]
    assert moves[0]["status"] == "queued"
    training = next(m for m in moves if m["phase"] == "training")
    assert training["progress"]["step"] == 4
    assert training["privacy"] == {"epsilon": 0.5, "delta": 1e-5}
    assert moves[-1]["status"] == "cancelled"
    assert got[-1]["data"]["type"] == "cancelled"


def test_a_stream_resumes_without_gap_or_repetition(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    stop, written = threading.Event(), 0

    def write() -> None:
        nonlocal written
        while not stop.is_set():
            add_events(api, job_id, 7)
            written += 7

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[int] = []
    try:
        for _ in range(6):
            headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
            with (
                api.client() as client,
                client.stream("GET", f"/v1/jobs/{job_id}/events", headers={**SSE, **headers}) as response,
            ):
                # The connection breaks in the middle, again and again.
                for count, message in enumerate(m for m in messages(response) if "id" in m):
                    seen.append(int(message["id"]))
                    if count == 40:
                        break
    finally:
        stop.set()
        writer.join()
    owner.post(f"/v1/jobs/{job_id}/cancel")
    seen += [int(m["id"]) for m in follow(owner, job_id, {"Last-Event-ID": str(seen[-1])}) if "id" in m]
    assert seen == list(range(1, written + 4))
    # The query parameter does the same, for clients that cannot set headers.
    listed = owner.get(f"/v1/jobs/{job_id}/events", params={"after": seen[-3]}).json()
    assert [event["id"] for event in listed["data"]] == seen[-2:]


def test_a_browser_that_has_everything_is_told_not_to_come_back(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    owner.post(f"/v1/jobs/{job_id}/cancel")
    last = [m for m in follow(owner, job_id) if "id" in m][-1]["id"]
    done = owner.get(f"/v1/jobs/{job_id}/events", headers={**SSE, "Last-Event-ID": last})
    assert (done.status_code, done.content) == (204, b"")
    for wrong in ("x", "-1", "1e3", "9" * 19):
        answer = owner.get(f"/v1/jobs/{job_id}/events", headers={**SSE, "Last-Event-ID": wrong})
        assert answer.status_code == 422
    assert owner.get("/v1/jobs/job_none/events", headers=SSE).status_code == 404


def test_a_reader_that_does_not_keep_up_loses_nothing(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    with owner.stream("GET", f"/v1/jobs/{job_id}/events", headers=SSE) as response:
        read = messages(response)
        next(read)
        for _ in range(6):
            add_events(api, job_id, 500)
            time.sleep(0.3)
        (subscription,) = api.services.streams._open
        assert len(subscription._items) < 2000
        with api.client() as other:
            other.post(f"/v1/jobs/{job_id}/cancel")
        assert [int(m["id"]) for m in read if "id" in m] == list(range(1, 3004))


def test_a_deleted_jobs_stream_ends_and_a_revoked_keys_stream_too(
    api: Api, owner: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipwise_api.streams.POLLS_BETWEEN_KEY_CHECKS", 2)
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    key = owner.post("/v1/api_keys", json={"name": "x", "role": "analyst"}).json()
    with (
        api.client(key["secret"]) as client,
        client.stream("GET", f"/v1/jobs/{job_id}/events", headers=SSE) as response,
    ):
        read = messages(response)
        next(read)
        owner.delete(f"/v1/api_keys/{key['id']}")
        list(read)  # it ends
    with owner.stream("GET", f"/v1/jobs/{job_id}/events", headers=SSE) as response:
        read = messages(response)
        next(read)
        with transaction(api.services.engine) as session:
            session.delete(session.get_one(JobRow, job_id))
        list(read)


def test_leaving_clients_are_forgotten(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    for _ in range(3):
        with api.client() as client, client.stream("GET", f"/v1/jobs/{job_id}/events", headers=SSE) as r:
            next(messages(r))
    deadline = time.monotonic() + 5
    while len(api.services.streams) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(api.services.streams) == 0


async def _open_streams(url: str, job_id: str, number: int) -> tuple[httpx.AsyncClient, list[httpx.Response]]:
    limits = httpx.Limits(max_connections=None)
    client = httpx.AsyncClient(
        base_url=url, headers={"Authorization": f"Bearer {KEY}"}, limits=limits, trust_env=False, timeout=30
    )
    opened = []
    for _ in range(number):
        request = client.build_request("GET", f"/v1/jobs/{job_id}/events", headers=SSE)
        opened.append(await client.send(request, stream=True))
    return client, opened


def test_200_streams_lose_nothing_and_hold_no_request_up(api: Api, owner: httpx.Client) -> None:
    job_id = owner.post("/v1/jobs", json=JOB).json()["id"]
    ready, stop = threading.Event(), threading.Event()
    received = [0] * 200

    def hold() -> None:
        async def run() -> None:
            client, opened = await _open_streams(api.url, job_id, 200)

            async def count(place: int, response: httpx.Response) -> None:
                async for line in response.aiter_lines():
                    received[place] += line.startswith("id:")

            tasks = [asyncio.create_task(count(n, response)) for n, response in enumerate(opened)]
            ready.set()
            while not stop.is_set():
                await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for response in opened:
                await response.aclose()
            await client.aclose()

        asyncio.run(run())

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert ready.wait(30)
        assert len(api.services.streams) == 200
        for n in range(60):
            if n % 10 == 0:
                add_events(api, job_id, 1)
            assert owner.get("/v1/queues").status_code == 200
            time.sleep(0.02)
        time.sleep(0.6)
    finally:
        stop.set()
        holder.join(30)
    assert set(received) == {8}


def test_the_process_stops_within_five_seconds_with_50_streams_open(settings: Settings) -> None:
    environment = {
        **os.environ,
        "CLIPWISE_DATA_DIR": str(settings.data_dir),
        "CLIPWISE_DATABASE_URL": settings.database,
        "CLIPWISE_API_KEY": KEY,
        "CLIPWISE_PORT": "0",
    }
    migration.upgrade(settings.database)
    process = subprocess.Popen(
        [sys.executable, "-m", "clipwise_api"], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "listening on" in line)
        url = f"http://127.0.0.1:{line.split()[-1]}"
        log: list[str] = []
        threading.Thread(target=lambda: log.extend(process.stderr or ()), daemon=True).start()
        for _ in range(200):
            try:
                if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.05)

        async def run() -> tuple[float, int]:
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                answer = await client.post("/v1/jobs", json=JOB, headers={"Authorization": f"Bearer {KEY}"})
            client, opened = await _open_streams(url, answer.json()["id"], 50)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            ended = await asyncio.gather(*(response.aread() for response in opened))
            await client.aclose()
            return begun, len(ended)

        begun, ended = asyncio.run(run())
        process.wait(10)
        assert ended == 50  # each stream came to a proper end, none was cut
        assert time.monotonic() - begun < 5
        assert process.returncode == 0
        assert not any("Traceback" in line for line in log), log
        assert KEY not in "".join(log)
    finally:
        process.kill()
        process.wait()


def test_the_first_key_is_never_printed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'clipwise.db'}"
    migration.upgrade(url)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("CLIPWISE_")},
        "CLIPWISE_DATA_DIR": str(tmp_path),
        "CLIPWISE_PORT": "0",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "clipwise_api"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    file = tmp_path / "api_key"
    deadline = time.monotonic() + 20
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert file.read_text().startswith("cw_")
    assert file.read_text().strip() not in output
    assert "Traceback" not in output
