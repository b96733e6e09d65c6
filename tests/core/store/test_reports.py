from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, func, select

from clipwise.errors import StaleToken
from clipwise.store import attempts, charges, checkpoints, claims, reports
from clipwise.store.attempts import Attempt
from clipwise.store.checkpoints import NewCheckpoint, Policy
from clipwise.store.claims import Capacity
from clipwise.store.reports import Line
from clipwise.store.sessions import reading, transaction
from clipwise.store.spans import Point
from clipwise.store.tables import EventRow, JobRow, LogLineRow, MetricRow, OrphanFileRow


@pytest.fixture
def attempt(engine: Engine, add_job: Callable[..., str]) -> Attempt:
    add_job()
    with transaction(engine) as session:
        claimed = claims.claim(session, Capacity(worker_id="wkr_1", queues=["cpu"], kinds=["mlp"]))
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


def test_a_report_is_begun_once(engine: Engine, attempt: Attempt) -> None:
    with transaction(engine) as session:
        assert reports.begin(session, attempt, 1)
    for number, is_new in ((1, False), (2, True), (1, False), (2, False), (3, True)):
        with transaction(engine) as session:
            assert reports.begin(session, attempt, number) is is_new
    stale = Attempt(job_id=attempt.job_id, number=attempt.number, token=attempt.token - 1)
    with pytest.raises(StaleToken), transaction(engine) as session:
        reports.begin(session, stale, 4)


def test_progress_is_in_the_job(engine: Engine, attempt: Attempt) -> None:
    with transaction(engine) as session:
        reports.record_progress(
            session,
            attempt,
            step=3,
            steps=10,
            samples_per_second=50.0,
            eta_seconds=7.0,
        )
        charges.charge(session, attempt, 3, epsilon=0.5, delta=1e-5)
    with transaction(engine) as session:
        reports.record_progress(session, attempt, step=4, steps=10)
    with reading(engine) as session:
        job = session.execute(select(JobRow)).scalar_one()
    assert (job.step, job.steps, job.epsilon, job.delta) == (4, 10, 0.5, 1e-5)
    assert (job.version, job.charged_steps) == (5, 3)


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


def test_of_a_flood_of_lines_the_last_ones_are_kept(
    engine: Engine, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "LOG_LINES", 5)
    monkeypatch.setattr(reports, "_LOG_SWEEP", 2)
    for batch in (["1", "2", "3"], ["4", "5", "6"], ["7"], ["8"]):
        with transaction(engine) as session:
            reports.add_logs(session, attempt, lines(*batch))
    with reading(engine) as session:
        kept = session.execute(select(LogLineRow.id, LogLineRow.line).order_by(LogLineRow.id)).all()
    assert [tuple(row) for row in kept] == [(number, str(number)) for number in range(4, 9)]


def test_an_attempt_that_goes_on_voids_what_earlier_ones_told_of_later_steps(
    engine: Engine, attempt: Attempt
) -> None:
    from clipwise.store import metrics
    from clipwise.store.attempts import Release

    def tell(owner: Attempt, value: float, *steps: int) -> None:
        with transaction(engine) as session:
            told = [Point(name="loss", step=step, value=value, released=False) for step in steps]
            reports.add_metrics(session, owner, told)

    tell(attempt, 1.0, 1, 2, 3, 4, 5)
    with transaction(engine) as session:
        attempts.release(session, attempt, Release(message="drained"))
    with transaction(engine) as session:
        second = claims.claim(session, Capacity(worker_id="wkr_2", queues=["cpu"], kinds=["mlp"]))
        assert second is not None
        reports.record_start(session, second.attempt, 2)

    def shown() -> list[tuple[int, float | None]]:
        with reading(engine) as session:
            found = metrics.series(
                session, attempt.job_id, names=None, after_step=None, max_points=100, released_only=False
            )
        return list(zip(found["loss"].steps, found["loss"].values, strict=True))

    assert shown() == [(1, 1.0), (2, 1.0)]
    tell(second.attempt, 2.0, 4)
    assert shown() == [(1, 1.0), (2, 1.0), (4, 2.0)]


def kept_steps(engine: Engine) -> list[tuple[int, int]]:
    with reading(engine) as session:
        rows = checkpoints.newest_first(session, session.scalars(select(JobRow.id)).one())
        return [(row.attempt, row.step) for row in rows]


def keep(engine: Engine, attempt: Attempt, step: int, loss: float | None = None, **policy: bool) -> None:
    new = NewCheckpoint(step=step, key=f"jobs/x/{attempt.number}/{step}", size=1, sha256="aa", loss=loss)
    with transaction(engine) as session:
        checkpoints.add(session, attempt, new, Policy(keep_last=2, keep_best=policy.get("best", False)))


def orphaned(engine: Engine) -> list[str]:
    with reading(engine) as session:
        return sorted(session.scalars(select(OrphanFileRow.key)))


def test_the_last_checkpoints_are_kept_and_the_best(engine: Engine, attempt: Attempt) -> None:
    for step, loss in ((1, 0.5), (2, 0.2), (3, 0.4), (4, 0.3), (5, None)):
        keep(engine, attempt, step, loss, best=True)
    assert kept_steps(engine) == [(1, 5), (1, 4), (1, 2)]
    assert orphaned(engine) == ["jobs/x/1/1", "jobs/x/1/3"]
    with transaction(engine) as session:
        checkpoints.end(session, attempt.job_id, Policy(keep_last=2, keep_best=True))
    assert kept_steps(engine) == [(1, 2)]


def test_a_checkpoint_of_the_last_attempt_goes_before_later_steps_of_earlier_ones(
    engine: Engine, attempt: Attempt
) -> None:
    from clipwise.store.attempts import Release

    keep(engine, attempt, 10)
    keep(engine, attempt, 20)
    with transaction(engine) as session:
        attempts.release(session, attempt, Release(message="drained"))
        second = claims.claim(session, Capacity(worker_id="wkr_2", queues=["cpu"], kinds=["mlp"]))
    assert second is not None
    with pytest.raises(StaleToken):
        keep(engine, attempt, 30)
    keep(engine, second.attempt, 15)
    assert kept_steps(engine) == [(2, 15), (1, 20)]
    with reading(engine) as session:
        assert session.scalars(select(JobRow.checkpoint_step)).one() == 15
    with transaction(engine) as session:
        checkpoints.drop(session, second.attempt, checkpoints.newest_first(session, attempt.job_id)[0])
    assert kept_steps(engine) == [(1, 20)]
    with reading(engine) as session:
        assert session.scalars(select(JobRow.checkpoint_step)).one() == 20


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
