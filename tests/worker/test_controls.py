from collections.abc import Iterator
from typing import Any, cast

import pytest
from sqlalchemy import Engine, select, update

from clipwise.jobs.states import JobStatus
from clipwise.store import attempts, migration
from clipwise.store.attempts import Attempt
from clipwise.store.sessions import connect, reading, transaction
from clipwise.store.tables import JobRow
from clipwise_worker.controls import STRAY_READS, Controls
from clipwise_worker.stopping import Stopping
from tests.job_rows import AddJob, job_adder


class Told:
    """A supervisor, as far as controls know it."""

    def __init__(self) -> None:
        self.why: list[Stopping] = []

    def stop(self, why: Stopping) -> None:
        self.why.append(why)


class Running:
    """Slots, as far as controls know them."""

    def __init__(self) -> None:
        self.attempts: dict[Attempt, Told] = {}

    def running(self) -> dict[Attempt, Told]:
        return dict(self.attempts)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    migration.upgrade(database_url)
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def add_job(engine: Engine) -> AddJob:
    return job_adder(engine)


def claim(engine: Engine) -> Attempt:
    with transaction(engine) as session:
        claimed = attempts.claim(session, "wkr_1", ["cpu"], ["mlp"])
    assert claimed is not None
    return claimed.attempt


def status(engine: Engine, attempt: Attempt) -> str:
    with reading(engine) as session:
        return session.execute(select(JobRow.status).where(JobRow.id == attempt.job_id)).scalar_one()


def test_each_attempt_hears_what_concerns_it(engine: Engine, add_job: AddJob) -> None:
    slots = Running()
    for _ in range(3):
        add_job()
        slots.attempts[claim(engine)] = Told()
    going, cancelled, lost = slots.attempts
    with transaction(engine) as session:
        session.execute(
            update(JobRow).where(JobRow.id == cancelled.job_id).values(status=JobStatus.CANCELLING)
        )
        session.execute(update(JobRow).where(JobRow.id == lost.job_id).values(token=9))
    Controls(engine, "wkr_1", cast("Any", slots)).read()
    assert slots.attempts[going].why == []
    assert slots.attempts[cancelled].why == [Stopping.CANCELLED]
    assert slots.attempts[lost].why == [Stopping.LOST]


def test_an_attempt_that_runs_in_no_slot_is_ended_but_not_at_once(engine: Engine, add_job: AddJob) -> None:
    slots = Running()
    add_job()
    stray = claim(engine)
    add_job()
    slow = claim(engine)
    controls = Controls(engine, "wkr_1", cast("Any", slots))
    for _ in range(STRAY_READS - 1):
        controls.read()
    slots.attempts[slow] = Told()
    assert status(engine, stray) == "running"
    controls.read()
    controls.read()
    assert status(engine, stray) == "failed"
    assert status(engine, slow) == "running"
    assert slots.attempts[slow].why == []
