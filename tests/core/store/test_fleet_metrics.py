"""The service in numbers, on rows whose numbers are known."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, insert
from tests.job_rows import AddJob

from clipwise.jobs.states import JobStatus, ReasonCode
from clipwise.store import fleet_metrics
from clipwise.store.fleet_metrics import OTHER_QUEUES, QUEUES, SECONDS, Now, Totals
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import AttemptRow, DeviceRow, OutboxRow, WorkerRow

AddAttempt = Callable[..., None]


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def now(engine: Engine) -> Now:
    with reading(engine) as session:
        return fleet_metrics.now(session)


def totals(engine: Engine) -> Totals:
    with reading(engine) as session:
        return fleet_metrics.totals(session)


def add_worker(engine: Engine, worker_id: str, **changes: Any) -> None:
    row: dict[str, Any] = {
        "id": worker_id,
        "host": "h1",
        "pid": 1,
        "queues": ["cpu"],
        "slots": 2,
        "kinds": {},
        "versions": {},
        "devices": [],
        "started_at": ago(100),
        "heartbeat_at": ago(5),
    }
    with transaction(engine) as session:
        session.add(WorkerRow(**row | changes))


@pytest.fixture
def add_attempt(engine: Engine) -> AddAttempt:
    """Return a function that writes an attempt which waited and ran for so long."""

    def add(
        job_id: str, number: int, outcome: str | None, *, waited: float | None, ran: float | None
    ) -> None:
        began = ago(10_000)
        with transaction(engine) as session:
            session.add(
                AttemptRow(
                    job_id=job_id,
                    number=number,
                    token=number,
                    worker_id="wkr_1",
                    waited_seconds=waited,
                    started_at=began,
                    finished_at=None if ran is None else began + timedelta(seconds=ran),
                    outcome=outcome,
                )
            )

    return add


def test_an_empty_service_has_zeros_and_no_queue(engine: Engine) -> None:
    found = now(engine)
    assert (found.jobs, found.oldest_seconds, found.workers) == ({}, {}, [])
    assert (found.devices, found.outbox, found.outbox_seconds) == ({"held": 0, "free": 0}, 0, 0.0)
    so_far = totals(engine)
    assert (so_far.ended, so_far.waits, so_far.runs) == ({}, {}, {})
    assert so_far.interruptions == {"runner_died": 0, "worker_lost": 0, "worker_stopped": 0}


def test_open_jobs_are_counted_by_queue_and_status_and_the_oldest_is_found(
    engine: Engine, add_job: AddJob
) -> None:
    add_job(queued_at=ago(30))
    add_job(queued_at=ago(90))
    add_job(queue="gpu", queued_at=None, created_at=ago(50))  # as an earlier version left it
    add_job(queue="gpu", status=JobStatus.RUNNING, queued_at=ago(5_000))
    add_job(status=JobStatus.SUCCEEDED, queued_at=ago(5_000))
    found = now(engine)
    assert found.jobs == {("cpu", "queued"): 2, ("gpu", "queued"): 1, ("gpu", "running"): 1}
    assert found.oldest_seconds["cpu"] == pytest.approx(90, abs=20)
    assert found.oldest_seconds["gpu"] == pytest.approx(50, abs=20)


def test_a_queue_that_is_served_and_empty_is_zero(engine: Engine) -> None:
    add_worker(engine, "wkr_1", queues=["cpu", "gpu"])
    found = now(engine)
    assert found.oldest_seconds == {"cpu": 0.0, "gpu": 0.0}
    assert found.jobs == {("cpu", "queued"): 0, ("gpu", "queued"): 0}


def test_queues_beyond_a_number_are_one_and_those_that_are_served_are_told_apart(
    engine: Engine, add_job: AddJob, add_attempt: AddAttempt
) -> None:
    add_worker(engine, "wkr_1", queues=["z-served"])
    for number in range(QUEUES + 20):
        job_id = add_job(queue=f"a{number:03}", queued_at=ago(100 + number))
        add_attempt(job_id, 1, "interrupted", waited=1.0, ran=1.0)
    add_job(queue="z-served", queued_at=ago(7))
    found, so_far = now(engine), totals(engine)
    for names in ({queue for queue, _ in found.jobs}, set(found.oldest_seconds)):
        assert len(names) == QUEUES + 1
        assert {"z-served", OTHER_QUEUES} <= names
    assert sum(found.jobs.values()) == QUEUES + 21
    assert found.jobs[OTHER_QUEUES, "queued"] == 21
    assert found.oldest_seconds[OTHER_QUEUES] == pytest.approx(100 + QUEUES + 19, abs=20)
    assert len(so_far.waits) <= QUEUES + 1
    assert sum(sum(waits.counts) for waits in so_far.waits.values()) == QUEUES + 20


def test_workers_are_told_apart_by_what_was_heard_of_them(engine: Engine, add_job: AddJob) -> None:
    add_worker(engine, "wkr_alive", slots=4)
    add_worker(engine, "wkr_draining", draining_at=ago(1))
    add_worker(engine, "wkr_silent", heartbeat_at=ago(300), draining_at=ago(301))
    add_worker(engine, "wkr_stopped", stopped_at=ago(1))
    add_worker(engine, "wkr_forgotten", heartbeat_at=ago(3 * 86_400))
    for status in (JobStatus.RUNNING, JobStatus.PAUSING, JobStatus.CANCELLING, JobStatus.SUCCEEDED):
        add_job(status=status, worker_id="wkr_alive")
    workers = {worker.id: worker for worker in now(engine).workers}
    assert {worker_id: worker.state for worker_id, worker in workers.items()} == {
        "wkr_alive": "alive",
        "wkr_draining": "draining",
        "wkr_silent": "silent",
    }
    assert (workers["wkr_alive"].slots, workers["wkr_alive"].busy_slots) == (4, 3)
    assert workers["wkr_draining"].busy_slots == 0
    assert workers["wkr_silent"].heartbeat_age_seconds == pytest.approx(300, abs=20)


def test_devices_of_living_hosts_are_held_or_free(engine: Engine, add_job: AddJob) -> None:
    add_worker(engine, "wkr_1", host="h1")
    add_worker(engine, "wkr_2", host="h2", heartbeat_at=ago(300))
    running = add_job(status=JobStatus.RUNNING, token=7)
    ended = add_job(status=JobStatus.FAILED, token=3)
    holders = {
        ("h1", "a"): (running, 7),
        ("h1", "b"): (running, 6),
        ("h1", "c"): (ended, 3),
        ("h1", "d"): None,
    }
    holders[("h2", "e")] = None
    with transaction(engine) as session:
        for (host, uuid), holder in holders.items():
            job_id, token = holder or (None, None)
            row = {"host": host, "uuid": uuid, "name": "H200", "memory_bytes": 1, "seen_at": ago(1)}
            session.add(DeviceRow(**row, job_id=job_id, token=token))
    assert now(engine).devices == {"held": 1, "free": 3}


def test_the_outbox_has_a_depth_and_an_age(engine: Engine) -> None:
    with transaction(engine) as session:
        session.execute(insert(OutboxRow), [{"queue": "cpu", "created_at": ago(s)} for s in (10, 200)])
    found = now(engine)
    assert found.outbox == 2
    assert found.outbox_seconds == pytest.approx(200, abs=20)


def test_jobs_that_ended_are_counted_by_status_and_reason(engine: Engine, add_job: AddJob) -> None:
    add_job(status=JobStatus.SUCCEEDED)
    add_job(status=JobStatus.SUCCEEDED)
    add_job(status=JobStatus.FAILED, reason_code=ReasonCode.OUT_OF_MEMORY)
    add_job(status=JobStatus.CANCELLED, reason_code=ReasonCode.USER_CANCELLED)
    add_job(status=JobStatus.CANCELLING, reason_code=ReasonCode.USER_CANCELLED)
    assert totals(engine).ended == {
        ("succeeded", ""): 2,
        ("failed", "out_of_memory"): 1,
        ("cancelled", "user_cancelled"): 1,
    }


def test_waits_and_runs_fall_into_their_buckets(
    engine: Engine, add_job: AddJob, add_attempt: AddAttempt
) -> None:
    first, second = add_job(), add_job(queue="gpu")
    add_attempt(first, 1, "interrupted", waited=0.1, ran=59.0)
    add_attempt(first, 2, "succeeded", waited=0.2, ran=1e6)
    add_attempt(first, 3, None, waited=None, ran=None)  # it runs, and an earlier version claimed it
    add_attempt(second, 1, "succeeded", waited=7.0, ran=0.0)
    found = totals(engine)
    assert set(found.waits) == {"cpu", "gpu"}
    assert found.waits["cpu"].counts[:3] == [1, 1, 0]  # a bound belongs to its bucket
    assert sum(found.waits["cpu"].counts) == 2
    assert found.waits["cpu"].total == pytest.approx(0.3)
    assert found.waits["gpu"].counts[SECONDS.index(10)] == 1
    assert set(found.runs) == {("cpu", "interrupted"), ("cpu", "succeeded"), ("gpu", "succeeded")}
    assert found.runs["cpu", "interrupted"].counts[SECONDS.index(60)] == 1
    assert found.runs["cpu", "interrupted"].total == pytest.approx(59.0, abs=0.01)
    assert found.runs["cpu", "succeeded"].counts[-1] == 1
    assert found.runs["gpu", "succeeded"].counts[0] == 1


def test_interruptions_are_counted_by_kind(engine: Engine, add_job: AddJob, add_attempt: AddAttempt) -> None:
    drained = add_job()
    for number in (1, 2, 3):
        add_attempt(drained, number, "interrupted", waited=1.0, ran=1.0)
    unlucky = add_job(status=JobStatus.RUNNING, runner_deaths=1, worker_losses=2)
    for number in (1, 2, 3):
        add_attempt(unlucky, number, "interrupted", waited=1.0, ran=1.0)
    poison = add_job(status=JobStatus.FAILED, reason_code=ReasonCode.RETRIES_EXHAUSTED, runner_deaths=2)
    add_attempt(poison, 1, "interrupted", waited=1.0, ran=1.0)
    add_attempt(poison, 2, "failed", waited=1.0, ran=1.0)
    assert totals(engine).interruptions == {"runner_died": 3, "worker_lost": 2, "worker_stopped": 3}
