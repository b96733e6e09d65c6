from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from clipwise.errors import NotFound
from clipwise.store.events import append_event
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import EventRow


def test_ids_count_up_within_each_job(engine: Engine, add_job: Callable[..., str]) -> None:
    first, second = add_job(), add_job()
    with transaction(engine) as session:
        assert append_event(session, first, "submitted", "info", "submitted") == 1
        assert append_event(session, first, "warning", "warning", "careful", {"field": "x"}, 1) == 2
        assert append_event(session, second, "submitted", "info", "submitted") == 1
    with reading(engine) as session:
        row = session.execute(select(EventRow).where(EventRow.job_id == first, EventRow.id == 2)).scalar_one()
        assert (row.level, row.message, row.data, row.attempt) == ("warning", "careful", {"field": "x"}, 1)


def test_a_rolled_back_event_leaves_no_gap(engine: Engine, add_job: Callable[..., str]) -> None:
    job = add_job()
    with Session(engine) as session:
        assert append_event(session, job, "submitted", "info", "submitted") == 1
        session.rollback()
    with transaction(engine) as session:
        assert append_event(session, job, "submitted", "info", "submitted") == 1


def test_many_writers_of_one_job_leave_no_gap_and_no_double(
    engine: Engine, add_job: Callable[..., str]
) -> None:
    job = add_job()

    def append(_: int) -> int:
        with transaction(engine) as session:
            return append_event(session, job, "note", "info", "said")

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(append, range(40))) == list(range(1, 41))


def test_an_unknown_job_has_no_events(engine: Engine) -> None:
    with pytest.raises(NotFound, match="job_none"), transaction(engine) as session:
        append_event(session, "job_none", "submitted", "info", "submitted")
