"""What the reaper does, with moments written into rows: no test waits for one to pass."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, delete, func, select, update
from tests.job_rows import AddJob

from clipwise.errors import StaleToken
from clipwise.jobs.recovery import DEFAULT_RECOVERY, WORKER_LOSSES, Recovery
from clipwise.jobs.states import JobStatus, ReasonCode
from clipwise.store import attempts, claims, leases, outbox, reaper
from clipwise.store.attempts import Attempt, Outcome
from clipwise.store.claims import Capacity
from clipwise.store.reaper import STUCK_PAUSE_SECONDS, STUCK_SECONDS, WAKE_SECONDS, Reaped
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import AttemptRow, DutyRow, EventRow, JobRow, OutboxRow

Claim = Callable[..., Attempt]


@pytest.fixture
def claim(engine: Engine, add_job: AddJob) -> Claim:
    """Return a function that queues a job, has a worker claim it, and then changes its row."""

    def make(
        *, attempt_changes: dict[str, Any] | None = None, job: dict[str, Any] | None = None, **changes: Any
    ) -> Attempt:
        add_job(**(job or {}))
        with transaction(engine) as session:
            claimed = claims.claim(session, Capacity(worker_id="wkr_1", queues=["cpu"], kinds=["mlp"]))
            assert claimed is not None
            attempt = claimed.attempt
            if changes:
                session.execute(update(JobRow).where(JobRow.id == attempt.job_id).values(**changes))
            if attempt_changes:
                session.execute(
                    update(AttemptRow).where(AttemptRow.job_id == attempt.job_id).values(**attempt_changes)
                )
            session.execute(delete(OutboxRow))
        return attempt

    return make


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def reap(engine: Engine, recovery: Recovery = DEFAULT_RECOVERY, every_seconds: float = 0.0) -> Reaped:
    with transaction(engine) as session:
        return reaper.reap(session, recovery, every_seconds)


def job(engine: Engine, attempt: Attempt | str) -> JobRow:
    job_id = attempt if isinstance(attempt, str) else attempt.job_id
    with reading(engine) as session:
        return session.scalars(select(JobRow).where(JobRow.id == job_id)).one()


def attempt_row(engine: Engine, attempt: Attempt) -> AttemptRow:
    with reading(engine) as session:
        return session.scalars(select(AttemptRow).where(AttemptRow.job_id == attempt.job_id)).one()


def last_event(engine: Engine, attempt: Attempt | str) -> EventRow:
    row = job(engine, attempt)
    with reading(engine) as session:
        return session.scalars(
            select(EventRow).where(EventRow.job_id == row.id, EventRow.id == row.last_event_id)
        ).one()


def messages(engine: Engine) -> list[str]:
    with reading(engine) as session:
        return list(session.scalars(select(OutboxRow.queue).order_by(OutboxRow.id)))


def test_a_lease_that_holds_is_left_alone(engine: Engine, claim: Claim) -> None:
    attempt = claim()
    assert not reap(engine)
    assert job(engine, attempt).status == JobStatus.RUNNING


def test_an_expired_lease_goes_back_with_a_pause_an_event_and_a_message(engine: Engine, claim: Claim) -> None:
    attempt = claim(lease_expires_at=ago(1), checkpoint_step=600, worker_losses=2)
    reaped = reap(engine, Recovery(first_seconds=5.0))
    assert (reaped.interrupted, reaped.ended) == ([attempt.job_id], [])
    row = job(engine, attempt)
    assert (row.status, row.phase, row.worker_id) == (JobStatus.QUEUED, "interrupted", None)
    assert (row.worker_losses, row.runner_deaths) == (3, 0)
    assert row.lease_expires_at is None
    assert row.not_before is not None
    assert timedelta(0) < row.not_before - datetime.now(UTC) <= timedelta(seconds=20)
    event = last_event(engine, attempt)
    assert (event.type, event.level, event.attempt) == ("interrupted", "warning", 1)
    assert event.data == {"status": "queued", "checkpoint_step": 600, "retry_in_seconds": 20.0}
    assert "600" in event.message
    assert (attempt_row(engine, attempt).outcome, attempt_row(engine, attempt).reason) == (
        "interrupted",
        "the worker was lost",
    )
    assert attempt_row(engine, attempt).finished_at is not None
    assert messages(engine) == ["cpu"]
    assert reap(engine).interrupted == []


def test_whoever_lost_its_job_can_write_no_more(engine: Engine, claim: Claim) -> None:
    attempt = claim(lease_expires_at=ago(1))
    reap(engine)
    with transaction(engine) as session:
        assert leases.renew(session, [attempt], 45.0) == set()
    with pytest.raises(StaleToken), transaction(engine) as session:
        attempts.finish(session, attempt, Outcome(status=JobStatus.SUCCEEDED))


@pytest.mark.parametrize(
    ("was", "becomes", "event"),
    [
        (JobStatus.CANCELLING, JobStatus.CANCELLED, "cancelled"),
        (JobStatus.PAUSING, JobStatus.PAUSED, "paused"),
    ],
)
def test_an_expired_lease_ends_as_people_wished(
    engine: Engine, claim: Claim, was: JobStatus, becomes: JobStatus, event: str
) -> None:
    wished = {"cancel_requested_at": ago(2), "pause_requested_at": ago(2)}
    attempt = claim(status=was, lease_expires_at=ago(1), **wished)
    reaped = reap(engine)
    expected = [attempt.job_id]
    assert (reaped.interrupted, reaped.ended) == (
        (expected, []) if becomes == JobStatus.PAUSED else ([], expected)
    )
    assert job(engine, attempt).status == becomes
    assert last_event(engine, attempt).type == event
    assert messages(engine) == []


def test_a_lease_that_an_earlier_version_never_wrote_is_over(engine: Engine, claim: Claim) -> None:
    attempt = claim(lease_expires_at=None)
    assert reap(engine).interrupted == [attempt.job_id]


def test_the_eleventh_lost_worker_is_the_last(engine: Engine, claim: Claim) -> None:
    assert WORKER_LOSSES == 10
    patient = claim(lease_expires_at=ago(1), worker_losses=9)
    assert reap(engine).interrupted == [patient.job_id]
    with transaction(engine) as session:
        session.execute(delete(JobRow))
    attempt = claim(lease_expires_at=ago(1), worker_losses=10)
    assert reap(engine).ended == [attempt.job_id]
    row = job(engine, attempt)
    assert (row.status, row.reason_code) == (JobStatus.FAILED, ReasonCode.RETRIES_EXHAUSTED)
    assert "11 times" in str(row.reason_message)
    assert last_event(engine, attempt).data["code"] == "retries_exhausted"
    assert attempt_row(engine, attempt).outcome == "failed"


LIMITED = {"spec": {"model": {"kind": "mlp"}, "limits": {"max_runtime_seconds": 60}}}


@pytest.mark.parametrize(
    ("before", "running", "over"),
    [(0.0, 60 + STUCK_SECONDS - 5, False), (0.0, 60 + STUCK_SECONDS + 1, True), (50.0, 60.0, True)],
)
def test_an_attempt_beyond_its_runtime_and_grace_is_ended(
    engine: Engine, claim: Claim, before: float, running: float, over: bool
) -> None:
    attempt = claim(job=LIMITED, ran_seconds=before, attempt_changes={"started_at": ago(running)})
    reaped = reap(engine)
    assert reaped.ended == ([attempt.job_id] if over else [])
    row = job(engine, attempt)
    assert row.status == (JobStatus.FAILED if over else JobStatus.RUNNING)
    if over:
        assert row.reason_code == ReasonCode.MAX_RUNTIME_EXCEEDED
        assert row.ran_seconds >= before + running
        assert "raise it" in str(row.reason_message)


def test_a_job_without_limits_runs_for_ever(engine: Engine, claim: Claim) -> None:
    claim(attempt_changes={"started_at": ago(1e8)})
    assert not reap(engine)


@pytest.mark.parametrize(
    ("status", "asked", "becomes"),
    [
        (JobStatus.CANCELLING, "cancel_requested_at", JobStatus.CANCELLED),
        (JobStatus.PAUSING, "pause_requested_at", JobStatus.PAUSED),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_a_worker_that_does_not_stop_loses_the_job(
    engine: Engine, claim: Claim, status: JobStatus, asked: str, becomes: JobStatus, late: bool
) -> None:
    patience = STUCK_PAUSE_SECONDS if status == JobStatus.PAUSING else STUCK_SECONDS
    attempt = claim(status=status, **{asked: ago(patience + (1 if late else -5))})
    reaped = reap(engine)
    assert reaped.interrupted + reaped.ended == ([attempt.job_id] if late else [])
    row = job(engine, attempt)
    assert row.status == (becomes if late else status)
    assert (row.worker_losses, row.runner_deaths) == (0, 0)


def test_a_job_that_waited_too_long_fails_and_others_wait_on(engine: Engine, add_job: AddJob) -> None:
    late = add_job(wait_until=ago(1))
    patient, endless = add_job(wait_until=ago(-60)), add_job()
    paused = add_job(status=JobStatus.PAUSED, wait_until=ago(1))
    reaped = reap(engine)
    assert reaped.ended == [late]
    row = job(engine, late)
    assert (row.status, row.reason_code) == (JobStatus.FAILED, ReasonCode.NO_MATCHING_WORKER)
    assert row.finished_at is not None
    assert "'cpu'" in str(row.reason_message)
    assert last_event(engine, late).data == {"status": "failed", "code": "no_matching_worker"}
    assert {job(engine, one).status for one in (patient, endless)} == {JobStatus.QUEUED}
    assert job(engine, paused).status == JobStatus.PAUSED


def test_queues_with_something_to_claim_are_woken_every_ten_seconds(engine: Engine, add_job: AddJob) -> None:
    add_job(queue="cpu")
    add_job(queue="cpu")
    add_job(queue="gpu")
    add_job(queue="told")
    add_job(queue="later", not_before=ago(-60))
    add_job(queue="now", not_before=ago(1))
    add_job(queue="asleep", status=JobStatus.PAUSED)
    with transaction(engine) as session:
        outbox.add(session, "told")
    assert reap(engine).woken == ["cpu", "gpu", "now"]
    assert sorted(messages(engine)) == ["cpu", "gpu", "now", "told"]
    with transaction(engine) as session:
        session.execute(delete(OutboxRow))
    assert reap(engine).woken == []
    set_duty(engine, "wake", ago(WAKE_SECONDS - 2))
    assert reap(engine).woken == []
    set_duty(engine, "wake", ago(WAKE_SECONDS + 1))
    assert reap(engine).woken == ["cpu", "gpu", "now", "told"]


def set_duty(engine: Engine, name: str, done_at: datetime) -> None:
    with transaction(engine) as session:
        session.execute(update(DutyRow).where(DutyRow.name == name).values(done_at=done_at))


def test_who_comes_too_early_does_nothing(engine: Engine, claim: Claim) -> None:
    assert not reap(engine, every_seconds=60.0)
    attempt = claim(lease_expires_at=ago(1))
    assert not reap(engine, every_seconds=60.0)
    set_duty(engine, "reap", ago(61))
    assert reap(engine, every_seconds=60.0).interrupted == [attempt.job_id]


def test_of_eight_that_reap_at_once_one_acts_and_nothing_is_done_twice(engine: Engine, claim: Claim) -> None:
    lost = [claim(lease_expires_at=ago(1)).job_id for _ in range(12)]
    barrier = threading.Barrier(8)

    def at_once(_: int) -> Reaped:
        barrier.wait()
        return reap(engine, every_seconds=60.0)

    with ThreadPoolExecutor(8) as pool:
        acted = [reaped for reaped in pool.map(at_once, range(8)) if reaped]
    assert len(acted) == 1
    assert sorted(acted[0].interrupted) == sorted(lost)
    with reading(engine) as session:
        interrupted = select(func.count()).where(EventRow.type == "interrupted")
        assert session.execute(interrupted).scalar_one() == 12
        assert set(session.scalars(select(JobRow.worker_losses))) == {1}
        assert session.execute(select(func.count()).select_from(OutboxRow)).scalar_one() == 12


def test_reaping_again_and_again_at_once_does_nothing_twice_either(engine: Engine, claim: Claim) -> None:
    for _ in range(12):
        claim(lease_expires_at=ago(1))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: reap(engine).interrupted, range(24)))
    assert len([job_id for one in found for job_id in one]) == 12
    with reading(engine) as session:
        assert set(session.scalars(select(JobRow.worker_losses))) == {1}


def test_a_job_that_somebody_changes_now_is_left_for_the_next_time(postgres_url: str) -> None:
    from tests.job_rows import job_adder

    from clipwise.store import migration
    from clipwise.store.sessions import connect

    migration.upgrade(postgres_url)
    engine = connect(postgres_url)
    add = job_adder(engine)
    held, free = (add(status=JobStatus.RUNNING, attempt=1, token=1, worker_id="wkr_1") for _ in range(2))
    with transaction(engine) as session:
        session.get(JobRow, held, with_for_update=True)
        assert reap(engine).interrupted == [free]
    assert reap(engine).interrupted == [held]
    engine.dispose()


def test_workers_that_are_gone_for_certain_give_up_what_they_have_and_no_more(
    engine: Engine, claim: Claim
) -> None:
    gone, other = claim(), claim(worker_id="wkr_2")
    with transaction(engine) as session:
        given_up = reaper.give_up(session, ["wkr_1"], "its host was started again")
    assert given_up == [gone.job_id]
    assert job(engine, gone).status == JobStatus.QUEUED
    assert attempt_row(engine, gone).reason == "its host was started again"
    assert job(engine, other).status == JobStatus.RUNNING
