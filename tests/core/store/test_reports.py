from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, func, select

from clipwise.errors import StaleToken
from clipwise.store import attempts, reports
from clipwise.store.attempts import Attempt
from clipwise.store.reports import Line, Point
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import EventRow, JobRow, LogLineRow, MetricRow


@pytest.fixture
def attempt(engine: Engine, add_job: Callable[..., str]) -> Attempt:
    add_job()
    with transaction(engine) as session:
        claimed = attempts.claim(session, "wkr_1", ["cpu"], ["mlp"])
    assert claimed is not None
    return claimed.attempt


def lines(*texts: str) -> list[Line]:
    return [Line(stream="stdout", text=text, at=datetime.now(UTC)) for text in texts]


def test_points_are_written_once_however_often_they_are_sent(engine: Engine, attempt: Attempt) -> None:
    points = [Point(name="loss", step=step, value=1.0 / step, released=False) for step in range(1, 1001)]
    points += [Point(name="accuracy", step=1, value=None, released=True), points[0]]
    for _ in range(2):
        with transaction(engine) as session:
            reports.add_metrics(session, attempt, points)
    with reading(engine) as session:
        assert session.execute(select(func.count()).select_from(MetricRow)).scalar_one() == 1001
        none = session.execute(select(MetricRow).where(MetricRow.name == "accuracy")).scalar_one()
        tenth = session.execute(select(MetricRow).where(MetricRow.step == 10)).scalar_one()
    assert (none.value, none.released) == (None, True)
    assert (tenth.value, tenth.released, tenth.attempt) == (0.1, False, 1)


def test_progress_is_in_the_job(engine: Engine, attempt: Attempt) -> None:
    with transaction(engine) as session:
        reports.record_progress(
            session,
            attempt,
            step=3,
            steps=10,
            samples_per_second=50.0,
            eta_seconds=7.0,
            epsilon=0.5,
            delta=1e-5,
        )
    with transaction(engine) as session:
        reports.record_progress(session, attempt, step=4, steps=10)
    with reading(engine) as session:
        job = session.execute(select(JobRow)).scalar_one()
    assert (job.step, job.steps, job.epsilon, job.delta) == (4, 10, 0.5, 1e-5)
    assert job.version == 4


def test_a_phase_is_in_the_job_and_an_event(engine: Engine, attempt: Attempt) -> None:
    with transaction(engine) as session:
        reports.set_phase(session, attempt, "training")
        reports.add_event(session, attempt, "warning", "warning", "careful")
    with reading(engine) as session:
        assert session.execute(select(JobRow.phase)).scalar_one() == "training"
        types = session.execute(select(EventRow.type).order_by(EventRow.id)).scalars().all()
    assert types == ["started", "phase", "warning"]


def test_lines_are_numbered_cut_and_storable(engine: Engine, attempt: Attempt) -> None:
    with transaction(engine) as session:
        reports.add_logs(session, attempt, lines("one", "nul \x00 and half \ud800", "x" * 20_000))
        reports.add_logs(session, attempt, lines("four"))
    with reading(engine) as session:
        rows = session.execute(select(LogLineRow).order_by(LogLineRow.id)).scalars().all()
    assert [row.id for row in rows] == [1, 2, 3, 4]
    assert rows[1].line == "nul \N{REPLACEMENT CHARACTER} and half ?"
    assert len(rows[2].line) == reports.LOG_LINE_CHARACTERS


def test_a_flood_of_lines_is_dropped_and_the_last_line_says_so(
    engine: Engine, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "LOG_LINES", 5)
    for batch in (["1", "2", "3"], ["4", "5", "6"], ["7"]):
        with transaction(engine) as session:
            reports.add_logs(session, attempt, lines(*batch))
    with reading(engine) as session:
        kept = session.execute(select(LogLineRow.line).order_by(LogLineRow.id)).scalars().all()
    assert kept == ["1", "2", "3", "4", "no more than 5 lines are kept of a job; the rest is dropped"]


def test_nothing_is_written_with_a_token_that_is_not_current(engine: Engine, attempt: Attempt) -> None:
    stale = Attempt(job_id=attempt.job_id, number=attempt.number, token=attempt.token - 1)
    point = Point(name="loss", step=1, value=1.0, released=False)
    writes = [
        lambda session: reports.set_phase(session, stale, "training"),
        lambda session: reports.record_progress(session, stale, step=1, steps=2),
        lambda session: reports.add_metrics(session, stale, [point]),
        lambda session: reports.add_logs(session, stale, lines("late")),
        lambda session: reports.add_event(session, stale, "warning", "warning", "late"),
    ]
    for write in writes:
        with pytest.raises(StaleToken), transaction(engine) as session:
            write(session)
    with reading(engine) as session:
        job = session.execute(select(JobRow)).scalar_one()
        assert (job.phase, job.step, job.version, job.last_event_id) == ("starting", None, 2, 1)
        for table in (MetricRow, LogLineRow):
            assert session.execute(select(func.count()).select_from(table)).scalar_one() == 0
