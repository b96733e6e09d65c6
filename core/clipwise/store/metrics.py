"""Metrics as they are read: the newest attempt wins, and long series are thinned out in the database."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Integer, and_, case, cast, func, or_, select
from sqlalchemy.orm import Session

from clipwise.store.tables import AttemptRow, MetricRow


@dataclass(frozen=True, kw_only=True)
class Series:
    """One metric over steps, in their order; a value is null where it was not finite."""

    steps: Sequence[int]
    values: Sequence[float | None]
    released: bool


@dataclass(frozen=True, kw_only=True)
class _Extent:
    """The points of one attempt."""

    attempt: int
    start: int
    points: int
    released: bool


def series(
    session: Session,
    job_id: str,
    *,
    names: Sequence[str] | None,
    after_step: int | None,
    max_points: int,
    released_only: bool,
) -> dict[str, Series]:
    """Return a job's metrics.

    A newer attempt begins behind its checkpoint: what older ones told of later steps does not count.
    A series longer than `max_points` is cut into intervals of equal length, and keeps the smallest and
    the largest value of each with their steps, and its two ends.
    """
    wanted = [MetricRow.job_id == job_id]
    if names is not None:
        wanted.append(MetricRow.name.in_(names))
    if released_only:
        wanted.append(MetricRow.released.is_(True))
    found: dict[str, Series] = {}
    starts = dict(
        session.execute(
            select(AttemptRow.number, AttemptRow.start_step).where(AttemptRow.job_id == job_id)
        ).all()
    )
    for name, extents in _extents(session, wanted, starts).items():
        valid = and_(*wanted, MetricRow.name == name, _newest(extents))
        if after_step is not None:
            valid = and_(valid, MetricRow.step > after_step)
        found[name] = Series(
            **_points(session, valid, extents, max_points),
            released=all(extent.released for extent in extents),
        )
    return found


def _extents(session: Session, wanted: Sequence[Any], starts: Mapping[int, int]) -> dict[str, list[_Extent]]:
    query = (
        select(
            MetricRow.name,
            MetricRow.attempt,
            func.count(),
            func.min(cast(MetricRow.released, Integer)),
        )
        .where(*wanted)
        .group_by(MetricRow.name, MetricRow.attempt)
        .order_by(MetricRow.name, MetricRow.attempt)
    )
    extents: dict[str, list[_Extent]] = defaultdict(list)
    for name, attempt, points, released in session.execute(query):
        start = starts.get(attempt, 0)
        extents[name].append(_Extent(attempt=attempt, start=start, points=points, released=bool(released)))
    # An attempt that told nothing of a metric has ended the older ones' part of it all the same.
    for name, known in extents.items():
        silent = starts.keys() - {extent.attempt for extent in known}
        extents[name] = known + [
            _Extent(attempt=attempt, start=starts[attempt], points=0, released=True) for attempt in silent
        ]
    return extents


def _newest(extents: Sequence[_Extent]) -> ColumnElement[bool]:
    parts: list[ColumnElement[bool]] = []
    until: int | None = None
    for extent in sorted(extents, key=lambda extent: extent.attempt, reverse=True):
        part: ColumnElement[bool] = MetricRow.attempt == extent.attempt
        parts.append(part if until is None else and_(part, MetricRow.step <= until))
        until = extent.start if until is None else min(until, extent.start)
    return or_(*parts)


def _points(session: Session, valid: Any, extents: Sequence[_Extent], max_points: int) -> dict[str, Any]:
    plain = select(MetricRow.step, MetricRow.value).where(valid).order_by(MetricRow.step)
    if sum(extent.points for extent in extents) > max_points:
        bounds = select(func.count(), func.min(MetricRow.step), func.max(MetricRow.step)).where(valid)
        points, first, last = session.execute(bounds).one()
        if points > max_points:
            plain = _thinned(valid, first, last, max_points)
    rows = session.execute(plain).all()
    return {"steps": [row[0] for row in rows], "values": [row[1] for row in rows]}


def _thinned(valid: Any, first: int, last: int, max_points: int) -> Any:
    # Each interval gives at most four points (two extremes, and both ends of its run of nulls).
    intervals = max((max_points - 2) // 4, 1)
    width = max(-(-(last - first + 1) // intervals), 1)
    interval = (MetricRow.step - first) // width
    is_null = case((MetricRow.value.is_(None), 1), else_=0)
    parts = (interval, is_null)
    ranked = (
        select(
            MetricRow.step,
            MetricRow.value,
            func.row_number()
            .over(partition_by=parts, order_by=(MetricRow.value, MetricRow.step))
            .label("lowest"),
            func.row_number()
            .over(partition_by=parts, order_by=(MetricRow.value.desc(), MetricRow.step.desc()))
            .label("highest"),
        )
        .where(valid)
        .subquery()
    )
    kept = or_(ranked.c.lowest == 1, ranked.c.highest == 1, ranked.c.step == first, ranked.c.step == last)
    return select(ranked.c.step, ranked.c.value).where(kept).order_by(ranked.c.step)
