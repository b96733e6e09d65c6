"""Long series: what is read off spans is what the points say."""

import random
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, delete, select

from clipwise.store import claims, metrics, reports, spans
from clipwise.store.attempts import Attempt, Release, release
from clipwise.store.claims import Capacity
from clipwise.store.sessions import reading, transaction
from clipwise.store.spans import Point
from clipwise.store.tables import AttemptRow, JobRow, MetricSpanRow
from clipwise.store.thinning import _grid

CAPACITY = Capacity(worker_id="wkr_1", queues=["cpu"], kinds=["mlp"])


def claim(engine: Engine) -> Attempt:
    with transaction(engine) as session:
        claimed = claims.claim(session, CAPACITY)
    assert claimed is not None
    return claimed.attempt


def again(engine: Engine, attempt: Attempt, start: int) -> Attempt:
    """Interrupt an attempt; the next one begins behind step `start`."""
    with transaction(engine) as session:
        release(session, attempt, Release(message="drained"))
    newer = claim(engine)
    with transaction(engine) as session:
        reports.record_start(session, newer, start)
    return newer


def tell(engine: Engine, attempt: Attempt, points: list[Point]) -> None:
    for first in range(0, len(points), 700):
        with transaction(engine) as session:
            reports.add_metrics(session, attempt, points[first : first + 700])


def shown(
    engine: Engine, job_id: str, after: int | None, most: int, *, released: bool = False
) -> dict[int, float | None]:
    with reading(engine) as session:
        found = metrics.series(
            session, job_id, names=["loss"], after_step=after, max_points=most, released_only=released
        )
    if "loss" not in found:
        return {}
    assert list(found["loss"].steps) == sorted(set(found["loss"].steps))
    return dict(zip(found["loss"].steps, found["loss"].values, strict=True))


def expected(values: dict[int, float | None], most: int) -> dict[int, float | None]:
    """Thin out as the docstring says, slowly."""
    if len(values) <= most:
        return values
    ends = (min(values), max(values))
    grid = _grid(*ends, (most - 2) // 4)
    kept = dict.fromkeys(ends)
    for cell in {step // grid.length for step in values}:
        inside = {step: value for step, value in values.items() if step // grid.length == cell}
        there = [(value, step) for step, value in inside.items() if value is not None]
        nulls = [step for step, value in inside.items() if value is None]
        steps = [step for _, step in (min(there), max(there))] if there else []
        steps += [min(nulls), max(nulls)] if nulls else []
        kept |= dict.fromkeys(steps)
    return {step: values[step] for step in sorted(kept)}


@pytest.mark.parametrize("seed", range(4))
def test_a_long_series_keeps_the_extremes_of_its_cells(
    engine: Engine, add_job: Callable[..., str], seed: int
) -> None:
    draw = random.Random(seed)
    job_id = add_job()
    attempt = claim(engine)
    valid: dict[int, float | None] = {}
    stride, step = draw.choice((1, 1, 3, 50)), 0
    for _ in range(draw.choice((1, 2, 3))):
        steps = range(step + 1, step + draw.randint(1500, 6000) * stride, stride)
        told = {s: draw.choice((None, 0.0, draw.gauss(0, 1), float(s % 5))) for s in steps}
        tell(engine, attempt, [Point(name="loss", step=s, value=v, released=False) for s, v in told.items()])
        valid = {s: v for s, v in valid.items() if s <= step} | told
        step = draw.choice(sorted(told))
        attempt = again(engine, attempt, step)
    valid = {s: v for s, v in valid.items() if s <= step}
    for most in (10, 11, 100, 1000, 2000):
        for after in (None, -1, 0, draw.choice(sorted(valid)), step - 1, step, 2**61):
            counted = {s: v for s, v in sorted(valid.items()) if after is None or s > after}
            found = shown(engine, job_id, after, most)
            assert found == expected(counted, most)
            assert len(found) <= most


def test_a_point_that_was_there_before_keeps_its_place_in_the_spans(
    engine: Engine, add_job: Callable[..., str]
) -> None:
    job_id = add_job()
    attempt = claim(engine)
    first = [Point(name="loss", step=s, value=float(s % 10), released=s % 2 == 0) for s in range(5000)]
    tell(engine, attempt, first)
    other = [Point(name="loss", step=s, value=1e9, released=True) for s in range(2000, 6000)]
    tell(engine, attempt, other)
    values: dict[int, float | None] = {s: float(s % 10) for s in range(5000)}
    values |= dict.fromkeys(range(5000, 6000), 1e9)
    assert shown(engine, job_id, None, 50) == expected(values, 50)
    assert shown(engine, job_id, None, 2000) == expected(values, 2000)
    released = {s: v for s, v in values.items() if s % 2 == 0 or s >= 5000}
    assert shown(engine, job_id, None, 50, released=True) == expected(released, 50)


def test_spans_drawn_up_anew_are_the_same(engine: Engine, add_job: Callable[..., str]) -> None:
    job_id = add_job()
    attempt = claim(engine)
    points = [
        Point(name=name, step=s, value=None if s % 97 == 0 else float(s * 7 % 101), released=s % 3 == 0)
        for s in range(1, 9000)
        for name in ("loss", "norm")
    ]
    tell(engine, attempt, points)

    def written() -> set[tuple[object, ...]]:
        with reading(engine) as session:
            rows = session.execute(select(*MetricSpanRow.__table__.c)).all()
        return {tuple(row) for row in rows}

    before = written()
    assert len(before) > 2 * 2 * 9000 // 64
    with transaction(engine) as session:
        spans.renew(session, job_id, attempt.number, points)
    assert written() == before


def test_spans_go_with_their_job(engine: Engine, add_job: Callable[..., str]) -> None:
    job_id = add_job()
    tell(engine, claim(engine), [Point(name="loss", step=1, value=1.0, released=False)])
    with transaction(engine) as session:
        session.execute(delete(AttemptRow))
        session.execute(delete(JobRow).where(JobRow.id == job_id))
    with reading(engine) as session:
        assert session.scalars(select(MetricSpanRow)).all() == []
