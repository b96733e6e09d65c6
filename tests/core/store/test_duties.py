import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, select, update

from clipwise.store import duties
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import DutyRow


def take(engine: Engine, name: str = "sweep", every_seconds: float = 60.0) -> bool:
    with transaction(engine) as session:
        return duties.take(session, name, every_seconds)


def done(engine: Engine, name: str, seconds_ago: float) -> None:
    with transaction(engine) as session:
        at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
        session.execute(update(DutyRow).where(DutyRow.name == name).values(done_at=at))


def test_a_duty_is_taken_once_and_again_when_it_is_due(engine: Engine) -> None:
    assert take(engine)
    assert not take(engine)
    done(engine, "sweep", 55)
    assert not take(engine)
    done(engine, "sweep", 61)
    assert take(engine)
    assert not take(engine)


def test_duties_do_not_know_each_other(engine: Engine) -> None:
    assert take(engine, "sweep")
    assert take(engine, "reap")
    assert not take(engine, "sweep")


def test_a_duty_whose_work_failed_is_still_to_be_done(engine: Engine) -> None:
    def fail() -> None:
        with transaction(engine) as session:
            assert duties.take(session, "sweep", 60.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert take(engine)


@pytest.mark.parametrize("known", [False, True])
def test_of_eight_at_once_one_takes_it(engine: Engine, known: bool) -> None:
    if known:
        take(engine)
        done(engine, "sweep", 61)
    barrier = threading.Barrier(8)

    def at_once(_: int) -> bool:
        barrier.wait()
        return take(engine)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(at_once, range(8))) == 1
    with reading(engine) as session:
        assert len(session.scalars(select(DutyRow)).all()) == 1


def test_nobody_takes_a_duty_while_another_is_at_it(engine: Engine) -> None:
    assert take(engine)
    done(engine, "sweep", 61)
    at_work, finished = threading.Event(), threading.Event()
    order: list[str] = []

    def work() -> None:
        with transaction(engine) as session:
            assert duties.take(session, "sweep", 60.0)
            at_work.set()
            finished.wait(20)
            order.append("done")

    with ThreadPoolExecutor(2) as pool:
        working = pool.submit(work)
        assert at_work.wait(20)
        late = pool.submit(lambda: (take(engine, every_seconds=0.0), order.append("taken")))
        threading.Timer(0.3, finished.set).start()
        working.result()
        late.result()
    assert order == ["done", "taken"]
