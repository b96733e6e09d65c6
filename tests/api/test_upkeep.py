"""What the api does beside its requests, for jobs whose worker is gone."""

import json
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from clipwise.jobs.states import JobStatus
from clipwise.logs import LineFormatter
from clipwise.settings import Settings
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import EventRow, JobRow, OutboxRow
from tests.api.conftest import JOB, Api, start


@pytest.fixture
def written() -> Iterator[list[dict[str, object]]]:
    """What the upkeep logs, as JSON."""
    lines: list[dict[str, object]] = []

    class Written(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(self.format(record)))

    handler = Written()
    handler.setFormatter(LineFormatter("json", "api"))
    logger = logging.getLogger("clipwise_api.upkeep")
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def lose(api: Api, *, status: JobStatus = JobStatus.RUNNING, worker_losses: int = 0) -> str:
    """Submit a job and write down that a worker took it, and was not heard of since."""
    with api.client() as owner:
        job_id: str = owner.post("/v1/jobs", json=JOB).json()["id"]
    changes = {"status": status, "attempt": 1, "token": 1, "worker_id": "wkr_1"}
    with transaction(api.services.engine) as session:
        session.execute(
            update(JobRow)
            .where(JobRow.id == job_id)
            .values(**changes, worker_losses=worker_losses, lease_expires_at=datetime.now(UTC) - timedelta(1))
        )
    return job_id


def until(api: Api, job_id: str, status: JobStatus) -> JobRow:
    deadline = time.monotonic() + 60
    while True:
        with reading(api.services.engine) as session:
            row = session.scalars(select(JobRow).where(JobRow.id == job_id)).one()
        if row.status == status:
            return row
        assert time.monotonic() < deadline, row.status
        time.sleep(0.05)


def test_the_api_puts_a_lost_job_back_says_so_and_wakes_a_worker(
    settings: Settings, written: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipwise_api.upkeep.RELAY_SECONDS", 600.0)  # it sends when it is woken, or never
    running = start(settings.model_copy(update={"retry_seconds": 7.0}))
    try:
        job_id = lose(running)
        row = until(running, job_id, JobStatus.QUEUED)
        assert row.worker_losses == 1
        with reading(running.services.engine) as session:
            (event,) = session.scalars(select(EventRow).where(EventRow.type == "interrupted"))
        assert event.data["retry_in_seconds"] == 7.0  # the service's own setting
        deadline = time.monotonic() + 30
        while _waiting(running) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _waiting(running) == 0
        said = [line for line in written if line.get("job_id") == job_id]
        assert len(said) == 1
        assert said[0]["level"] == "WARNING"
    finally:
        running.stop()


def _waiting(api: Api) -> int:
    with reading(api.services.engine) as session:
        return session.execute(select(func.count()).select_from(OutboxRow)).scalar_one()


def test_the_api_ends_what_can_only_end(api: Api, written: list[dict[str, object]]) -> None:
    cancelled = lose(api, status=JobStatus.CANCELLING)
    exhausted = lose(api, worker_losses=10)
    until(api, cancelled, JobStatus.CANCELLED)
    until(api, exhausted, JobStatus.FAILED)
    deadline = time.monotonic() + 30
    while len(written) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {line["job_id"] for line in written} == {cancelled, exhausted}


def test_two_replicas_do_it_once(settings: Settings) -> None:
    replicas = [start(settings), start(settings)]
    try:
        lost = [lose(replicas[0]) for _ in range(6)]
        for job_id in lost:
            assert until(replicas[1], job_id, JobStatus.QUEUED).worker_losses == 1
        with reading(replicas[0].services.engine) as session:
            interrupted = select(func.count()).where(EventRow.type == "interrupted")
            assert session.execute(interrupted).scalar_one() == 6
    finally:
        for replica in replicas:
            replica.stop()


def test_a_broker_that_hangs_does_not_hold_the_reaper_up(settings: Settings) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        broker = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        running = start(settings.model_copy(update={"broker_url": broker}))
        try:
            job_id = lose(running)
            assert until(running, job_id, JobStatus.QUEUED).worker_losses == 1
        finally:
            running.stop()
