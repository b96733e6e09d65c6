"""Metrics as they are read: the newest attempt wins, and long series are thinned out in the database."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, FromClause, Integer, and_, cast, func, or_, select
from sqlalchemy.orm import Session

from clipwise.store.sessions import planned_by_values
from clipwise.store.spans import METRICS, SPANS, WIDTHS
from clipwise.store.tables import AttemptRow
from clipwise.store.thinning import Reach, thinned, within


@dataclass(frozen=True, kw_only=True)
class Series:
    """One metric over steps, in their order; a value is null where it was not finite."""

    steps: Sequence[int]
    values: Sequence[float | None]
    released: bool


@dataclass(frozen=True, kw_only=True)
class _Extent:
    """One attempt's part of a metric; it begins behind step `start`."""

    attempt: int
    start: int
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
    found: dict[str, Series] = {}
    with planned_by_values(session):
        for name, extents in _extents(session, job_id, names, released_only=released_only).items():
            points = _Points(
                session=session,
                job_id=job_id,
                name=name,
                released_only=released_only,
                reaches=_reaches(extents, after_step),
            ).read(max_points)
            found[name] = Series(
                steps=list(points),
                values=list(points.values()),
                released=all(extent.released for extent in extents),
            )
    return found


def _extents(
    session: Session, job_id: str, names: Sequence[str] | None, *, released_only: bool
) -> dict[str, list[_Extent]]:
    begun = select(AttemptRow.number, AttemptRow.start_step).where(AttemptRow.job_id == job_id)
    starts = dict(session.execute(begun).all())
    # Every point is in a wide span, and of those there are few.
    span = SPANS.c
    known = select(span.name, span.attempt, func.min(cast(span.released, Integer))).where(
        span.job_id == job_id,
        span.width == WIDTHS[-1],
        *([span.name.in_(names)] if names is not None else []),
        *([span.released.is_(True)] if released_only else []),
    )
    extents: dict[str, list[_Extent]] = defaultdict(list)
    grouped = known.group_by(span.name, span.attempt).order_by(span.name, span.attempt)
    for name, attempt, released in session.execute(grouped):
        extents[name].append(_Extent(attempt=attempt, start=starts.get(attempt, 0), released=bool(released)))
    # An attempt that told nothing of a metric has ended the older ones' part of it all the same.
    for name, found in extents.items():
        silent = starts.keys() - {extent.attempt for extent in found}
        extents[name] = found + [
            _Extent(attempt=attempt, start=starts[attempt], released=True) for attempt in silent
        ]
    return extents


def _reaches(extents: Sequence[_Extent], after_step: int | None) -> list[Reach]:
    reaches: list[Reach] = []
    until: int | None = None
    for extent in sorted(extents, key=lambda extent: extent.attempt, reverse=True):
        if until is None or after_step is None or after_step < until:
            reaches.append(Reach(attempt=extent.attempt, after=after_step, until=until))
        until = extent.start if until is None else min(until, extent.start)
    return reaches


@dataclass(frozen=True, kw_only=True)
class _Points:
    """The points of one metric that count."""

    session: Session
    job_id: str
    name: str
    released_only: bool
    reaches: Sequence[Reach]

    def read(self, max_points: int) -> dict[int, float | None]:
        """Return all of them by their steps if they are at most so many, else those that stand for them."""
        point = METRICS.c
        all_of_them = select(point.step, point.value).where(*self._of(METRICS), self._counting())
        first = self.session.execute(all_of_them.order_by(point.step).limit(max_points + 1)).all()
        if len(first) <= max_points:
            return {row.step: row.value for row in first}
        last = self.session.execute(all_of_them.order_by(point.step.desc()).limit(1)).one()
        ends = {row.step: row.value for row in (first[0], last)}
        kept = thinned(
            self.session, self._of(METRICS), self._of(SPANS), self.reaches, (min(ends), max(ends)), max_points
        )
        return dict(sorted((kept | ends).items()))

    def _of(self, table: FromClause) -> list[ColumnElement[bool]]:
        mine = [table.c.job_id == self.job_id, table.c.name == self.name]
        return [*mine, table.c.released.is_(True)] if self.released_only else mine

    def _counting(self) -> ColumnElement[bool]:
        column = METRICS.c
        return or_(
            *(
                and_(column.attempt == reach.attempt, *within(column.step, reach.first, reach.until))
                for reach in self.reaches
            )
        )
