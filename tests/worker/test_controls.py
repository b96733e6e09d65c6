from typing import Any, cast

import pytest
from sqlalchemy import Engine, update

from clipwise.jobs.states import JobStatus
from clipwise.store import claims, workers
from clipwise.store.attempts import Attempt
from clipwise.store.claims import Capacity
from clipwise.store.sessions import transaction
from clipwise.store.tables import JobRow
from clipwise.store.workers import WorkerInfo
from clipwise_worker.controls import Controls
from clipwise_worker.stopping import Stopping
from tests.job_rows import AddJob, job_adder

CAPACITY = Capacity(worker_id="wkr_1", queues=["cpu"], kinds=["mlp"])


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
        self.draining = False

    def running(self) -> dict[Attempt, Told]:
        return dict(self.attempts)

    def drain(self, *, draining: bool) -> None:
        self.draining = draining


@pytest.fixture
def add_job(engine: Engine) -> AddJob:
    return job_adder(engine)


def claim(engine: Engine) -> Attempt:
    with transaction(engine) as session:
        claimed = claims.claim(session, CAPACITY)
    assert claimed is not None
    return claimed.attempt


def test_each_attempt_hears_what_concerns_it(engine: Engine, add_job: AddJob) -> None:
    slots = Running()
    for _ in range(4):
        add_job()
        slots.attempts[claim(engine)] = Told()
    going, cancelled, paused, lost = slots.attempts
    wishes = {
        cancelled: {"status": JobStatus.CANCELLING},
        paused: {"status": JobStatus.PAUSING},
        lost: {"token": 9},
    }
    with transaction(engine) as session:
        for attempt, values in wishes.items():
            session.execute(update(JobRow).where(JobRow.id == attempt.job_id).values(**values))
    Controls(engine, "wkr_1", cast("Any", slots)).read()
    assert slots.attempts[going].why == []
    assert slots.attempts[cancelled].why == [Stopping.CANCELLED]
    assert slots.attempts[paused].why == [Stopping.PAUSED]
    assert slots.attempts[lost].why == [Stopping.LOST]


def test_a_worker_hears_that_it_is_to_drain(engine: Engine) -> None:
    with transaction(engine) as session:
        workers.register(
            session,
            WorkerInfo(id="wkr_1", host="here", pid=1, queues=["cpu"], slots=1, kinds={}, versions={}),
        )
    slots = Running()
    controls = Controls(engine, "wkr_1", cast("Any", slots))
    for wanted in (True, False):
        with transaction(engine) as session:
            workers.drain(session, "wkr_1", draining=wanted)
        controls.read()
        assert slots.draining is wanted
