"""What Prometheus is given: by the database for everybody alike, by each process for itself."""

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event, update

from clipwise.jobs.states import JobStatus, ReasonCode
from clipwise.settings import Settings
from clipwise.store.sessions import transaction
from clipwise.store.tables import AttemptRow, JobRow, OutboxRow, WorkerRow
from clipwise_api import fleet_collector
from clipwise_api.fleet_collector import Kept, Rising
from tests.api.conftest import JOB, Api, start
from tests.conftest import ROOT

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every scrape read the database."""
    monkeypatch.setattr(fleet_collector, "KEPT_SECONDS", 0.0)
    monkeypatch.setattr(fleet_collector, "KEPT_TIMES", 0)


def scrape(client: httpx.Client) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation, family.name
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples, key
            samples[key] = sample.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def labels_of(samples: Samples, name: str) -> list[dict[str, str]]:
    return [dict(labels) for found, labels in samples if found == name]


def add_jobs(api: Api, owner: httpx.Client, count: int) -> list[str]:
    return [owner.post("/v1/jobs", json={**JOB, "name": str(n)}).json()["id"] for n in range(count)]


def change(api: Api, job_id: str, **changes: Any) -> None:
    with transaction(api.services.engine) as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(**changes))


def end(api: Api, job_id: str, *, seconds: float = 20.0, waited: float = 3.0) -> None:
    """Write down that a job ran in one attempt, and succeeded."""
    now = datetime.now(UTC)
    change(api, job_id, status=JobStatus.SUCCEEDED, attempt=1, token=1, finished_at=now)
    with transaction(api.services.engine) as session:
        session.add(
            AttemptRow(
                job_id=job_id,
                number=1,
                token=1,
                worker_id="w",
                outcome="succeeded",
                started_at=now - timedelta(seconds=seconds),
                finished_at=now,
                waited_seconds=waited,
            )
        )


@pytest.mark.usefixtures("uncached")
def test_what_the_database_knows(api: Api, owner: httpx.Client) -> None:
    now = datetime.now(UTC)
    worker = {"host": "h", "pid": 1, "kinds": {}, "versions": {}, "devices": [], "started_at": now}
    with transaction(api.services.engine) as session:
        for worker_id, at in (("wkr_1", now), ("wkr_2", now - timedelta(seconds=100))):
            session.add(WorkerRow(id=worker_id, queues=["cpu"], slots=3, heartbeat_at=at, **worker))
    waits, runs, ended, failed = add_jobs(api, owner, 4)
    change(api, waits, queued_at=now - timedelta(seconds=500))
    lease = now + timedelta(seconds=3600)
    change(api, runs, status=JobStatus.RUNNING, worker_id="wkr_1", lease_expires_at=lease, worker_losses=1)
    end(api, ended)
    change(api, failed, status=JobStatus.FAILED, reason_code=ReasonCode.OUT_OF_MEMORY)
    found = scrape(owner)
    assert value(found, "clipwise_jobs", queue="cpu", status="queued") == 1
    assert value(found, "clipwise_jobs", queue="cpu", status="running") == 1
    assert value(found, "clipwise_queue_oldest_wait_seconds", queue="cpu") == pytest.approx(500, abs=60)
    assert value(found, "clipwise_workers", state="alive") == 1
    assert value(found, "clipwise_workers", state="silent") == 1
    assert value(found, "clipwise_worker_heartbeat_age_seconds", worker="wkr_2") == pytest.approx(100, abs=60)
    assert value(found, "clipwise_worker_slots", worker="wkr_1") == 3
    assert value(found, "clipwise_worker_busy_slots", worker="wkr_1") == 1
    assert value(found, "clipwise_devices", state="free") == 0
    assert value(found, "clipwise_outbox_oldest_seconds") >= 0
    assert value(found, "clipwise_jobs_ended_total", status="succeeded", reason="") == 1
    assert value(found, "clipwise_jobs_ended_total", status="failed", reason="out_of_memory") == 1
    assert value(found, "clipwise_interruptions_total", kind="worker_lost") == 1
    run = {"queue": "cpu", "outcome": "succeeded"}
    assert value(found, "clipwise_attempt_run_seconds_bucket", le="10.0", **run) == 0
    assert value(found, "clipwise_attempt_run_seconds_bucket", le="30.0", **run) == 1
    assert value(found, "clipwise_attempt_run_seconds_bucket", le="+Inf", **run) == 1
    assert value(found, "clipwise_attempt_run_seconds_count", **run) == 1
    assert value(found, "clipwise_attempt_run_seconds_sum", **run) == pytest.approx(20, abs=0.1)
    assert value(found, "clipwise_attempt_wait_seconds_sum", queue="cpu") == pytest.approx(3)
    assert value(found, "process_resident_memory_bytes") > 0


@pytest.mark.usefixtures("uncached")
def test_the_outbox_is_seen_while_the_broker_is_away(settings: Settings) -> None:
    running = start(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"}))
    try:
        with running.client() as owner:
            add_jobs(running, owner, 2)
            with transaction(running.services.engine) as session:
                session.execute(
                    update(OutboxRow).values(created_at=datetime.now(UTC) - timedelta(seconds=300))
                )
            found = scrape(owner)
            assert value(found, "clipwise_outbox_messages") == 2
            assert value(found, "clipwise_outbox_oldest_seconds") == pytest.approx(300, abs=60)
    finally:
        running.stop()


@pytest.mark.usefixtures("uncached")
def test_totals_do_not_fall_when_jobs_are_deleted(api: Api, owner: httpx.Client) -> None:
    jobs = add_jobs(api, owner, 3)
    for job_id in jobs:
        end(api, job_id)
    before = scrape(owner)
    for job_id in jobs[:2]:
        assert owner.delete(f"/v1/jobs/{job_id}").status_code == 200
    after = scrape(owner)
    (another,) = add_jobs(api, owner, 1)
    end(api, another)
    later = scrape(owner)
    run = {"queue": "cpu", "outcome": "succeeded"}
    for name, labels in (
        ("clipwise_jobs_ended_total", {"status": "succeeded", "reason": ""}),
        ("clipwise_attempt_run_seconds_count", run),
        ("clipwise_attempt_run_seconds_bucket", {"le": "30.0", **run}),
    ):
        assert [value(found, name, **labels) for found in (before, after, later)] == [3, 3, 4], name
    assert value(after, "clipwise_attempt_run_seconds_sum", **run) == pytest.approx(60, abs=0.5)


@pytest.mark.usefixtures("uncached")
def test_replicas_agree_about_the_service_and_measure_themselves(settings: Settings) -> None:
    replicas = [start(settings), start(settings)]
    try:
        with replicas[0].client() as first, replicas[1].client() as second:
            job_ids = add_jobs(replicas[0], first, 3)
            end(replicas[0], job_ids[0])
            found = [scrape(first), scrape(second)]
        for name in ("clipwise_jobs", "clipwise_jobs_ended_total", "clipwise_attempt_run_seconds_bucket"):
            of_each = [{key: v for key, v in one.items() if key[0] == name} for one in found]
            assert of_each[0] == of_each[1]
            assert of_each[0]
        submitted = {"method": "POST", "route": "/v1/jobs", "status": "2xx"}
        assert value(found[0], "clipwise_http_request_duration_seconds_count", **submitted) == 3
        assert submitted not in labels_of(found[1], "clipwise_http_request_duration_seconds_count")
    finally:
        for replica in replicas:
            replica.stop()


def test_the_labels_of_requests_are_few_whatever_is_asked(owner: httpx.Client) -> None:
    for number in range(40):
        owner.get(f"/v1/jobs/job_{number}")
        owner.get(f"/v1/nowhere/{number}")
        owner.get(f"/some/page/{number}")
        owner.request(("PROPFIND", "BREW", "LOCK", "TRACE")[number % 4], f"/v1/jobs?q={number}")
    found = labels_of(scrape(owner), "clipwise_http_request_duration_seconds_count")
    assert {"method": "GET", "route": "/v1/jobs/{job_id}", "status": "4xx"} in found
    assert {labels["method"] for labels in found} <= {"GET", "(other)"}
    assert {labels["route"] for labels in found} <= {
        *("/v1/jobs/{job_id}", "/v1/jobs", "(none)", "(dashboard)", "/metrics", "/v1/api_keys")
    }
    assert len(found) < 12


def test_open_streams_are_counted_and_do_not_count_as_slow_requests(api: Api, owner: httpx.Client) -> None:
    (job_id,) = add_jobs(api, owner, 1)
    assert value(scrape(owner), "clipwise_event_streams") == 0
    headers = {"Accept": "text/event-stream"}
    begun = time.perf_counter()
    with owner.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as stream:
        lines = stream.iter_lines()
        next(lines)
        first_line_after = time.perf_counter() - begun
        assert value(scrape(owner), "clipwise_event_streams") == 1
        time.sleep(0.5)
    route = {"method": "GET", "route": "/v1/jobs/{job_id}/events", "status": "2xx"}
    deadline = time.monotonic() + 30
    while route not in labels_of(scrape(owner), "clipwise_http_request_duration_seconds_count"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert value(scrape(owner), "clipwise_event_streams") == 0
    # What is measured ends before its first byte; the stream lasted for longer.
    measured = value(scrape(owner), "clipwise_http_request_duration_seconds_sum", **route)
    assert measured <= first_line_after


def test_many_scrapes_ask_the_database_once(api: Api, owner: httpx.Client) -> None:
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "attempts.outcome" in statement:
            statements.append(statement)

    event.listen(api.services.engine, "before_cursor_execute", note)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: scrape(owner), range(24)))
    assert len(statements) == 1


def test_the_metrics_are_asked_for_by_any_name_but_not_without_a_key(api: Api) -> None:
    with api.client(api.key_of("operator")) as operator:
        assert operator.get("/metrics", headers={"Host": "api:8470"}).status_code == 200
        assert operator.get("/metrics", headers={"Origin": "https://evil.example"}).status_code == 403
        assert operator.post("/metrics").status_code == 405
    with api.client(key=None) as nobody:
        assert nobody.get("/metrics", headers={"Host": "api:8470"}).status_code == 401
    with api.client(api.key_of("analyst")) as analyst:
        assert analyst.get("/metrics").status_code == 403


class Source:
    """Counts how often it was read, and by how many at once."""

    def __init__(self) -> None:
        self.reads = 0
        self.at_once = threading.Semaphore(1)

    def read(self) -> int:
        assert self.at_once.acquire(blocking=False), "two read at once"
        self.reads += 1
        time.sleep(0.01)
        self.at_once.release()
        return self.reads


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A clock that stands still until it is moved."""
    now = [100.0]
    monkeypatch.setattr(fleet_collector, "monotonic", lambda: now[0])
    return now


def test_what_was_read_is_kept_for_five_seconds(clock: list[float]) -> None:
    source = Source()
    kept = Kept(source.read)
    assert [kept.get(), kept.get()] == [1, 1]
    clock[0] += 4.9
    assert kept.get() == 1
    clock[0] += 0.2
    assert kept.get() == 2


def test_what_takes_long_to_read_is_kept_for_longer(clock: list[float]) -> None:
    def slow() -> float:
        clock[0] += 3.0
        return clock[0]

    kept = Kept(slow)
    assert kept.get() == 103.0
    clock[0] += 59.0
    assert kept.get() == 103.0
    clock[0] += 2.0
    assert kept.get() == 167.0


def test_of_several_at_once_one_reads() -> None:
    source = Source()
    kept = Kept(source.read)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: kept.get(), range(32))) == {1}


def test_a_source_that_fails_is_asked_again() -> None:
    answers: list[Exception | int] = [RuntimeError(), 7]

    def read() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    kept = Kept(read)
    with pytest.raises(RuntimeError):
        kept.get()
    assert kept.get() == 7


def test_numbers_rise_by_what_is_new_and_never_fall() -> None:
    rising = Rising()
    steps = [(5.0, 50.0), (3.0, 30.0), (4.0, 45.0), (0.0, 0.0), (2.0, 1.0)]
    seen = [rising.of({("a",): step})[("a",)] for step in steps]
    assert seen == [(5.0, 50.0), (5.0, 50.0), (6.0, 65.0), (6.0, 65.0), (8.0, 66.0)]
    assert rising.of({})[("a",)] == (8.0, 66.0)
    assert rising.of({("a",): (1.0, 1.0), ("b",): (2.0, 2.0)}) == {("a",): (9.0, 67.0), ("b",): (2.0, 2.0)}


def test_the_metrics_that_are_written_down_are_those_that_are_given(owner: httpx.Client) -> None:
    owner.get("/v1/jobs")
    given = set(re.findall(r"^# TYPE (clipwise_\w+) ", owner.get("/metrics").text, re.MULTILINE))
    written = set(re.findall(r"\bclipwise_(?!api)\w+", (ROOT / "docs" / "deployment.md").read_text()))
    assert written == given
