"""Long series, thinned out in the database: the extremes of cells of equal length, read off spans."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, case, func, null, select, union_all
from sqlalchemy.orm import Session

from clipwise.store.spans import METRICS, SPANS, WIDTHS

MOST_OF_A_CELL = 4
"""Two extremes, and both ends of its run of nulls."""
ENDS = 2


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The steps for which an attempt counts: behind `after`, up to `until`; without a bound if null."""

    attempt: int
    after: int | None
    until: int | None

    @property
    def first(self) -> int | None:
        """The first step that counts."""
        return None if self.after is None else self.after + 1


class _Grid(NamedTuple):
    """Cells of `length` steps, counted from step 0, that are made of spans of `width` steps."""

    width: int
    length: int


def thinned(
    session: Session,
    conditions: Sequence[Any],
    span_conditions: Sequence[Any],
    reaches: Sequence[Reach],
    ends: tuple[int, int],
    max_points: int,
) -> dict[int, float | None]:
    """Return the extremes of a series by their steps, at most `max_points` without its two ends.

    Args:
        session: an open session.
        conditions: which points are meant, apart from their attempts and steps.
        span_conditions: the same of spans.
        reaches: the attempts that count.
        ends: the first and the last step.
        max_points: how many points there may be, with the ends.
    """
    grid = _grid(*ends, (max_points - ENDS) // MOST_OF_A_CELL)
    parts = [
        part for reach in reaches for part in _parts(grid, reach, tuple(conditions), tuple(span_conditions))
    ]
    if not parts:
        return {}
    points: dict[int, float | None] = {}
    for row in session.execute(_extremes(parts)):
        if row.lowest is not None:
            points[row.lowest_step] = row.lowest
            points[row.highest_step] = row.highest
        if row.first_null is not None:
            points[row.first_null] = points[row.last_null] = None
    return points


def _grid(first: int, last: int, cells: int) -> _Grid:
    """Return the finest grid whose cells from the first to the last step are at most so many."""
    shortest = max(-(-(last - first + 1) // cells), 1)
    width = max((width for width in (1, *WIDTHS) if width <= shortest), default=1)
    length = -(-shortest // width) * width
    while last // length - first // length >= cells:
        length += width
    return _Grid(width, length)


def _parts(
    grid: _Grid, reach: Reach, conditions: tuple[Any, ...], span_conditions: tuple[Any, ...]
) -> Iterator[Select[Any]]:
    """Yield what an attempt has: whole spans, and the points at the edges of its reach that fill none."""
    start, end = reach.first, reach.until
    if start is not None and end is not None and start > end:
        return
    points = (*conditions, METRICS.c.attempt == reach.attempt)
    if grid.width == 1:
        yield _points(grid, points, start, end)
        return
    whole_from = None if start is None else -(-start // grid.width)
    whole_to = None if end is None else (end + 1) // grid.width - 1
    if whole_from is not None and whole_to is not None and whole_from > whole_to:
        yield _points(grid, points, start, end)
        return
    yield _whole(grid, (*span_conditions, SPANS.c.attempt == reach.attempt), whole_from, whole_to)
    if start is not None and whole_from is not None and start < whole_from * grid.width:
        yield _points(grid, points, start, whole_from * grid.width - 1)
    if end is not None and whole_to is not None and end >= (whole_to + 1) * grid.width:
        yield _points(grid, points, (whole_to + 1) * grid.width, end)


def _points(grid: _Grid, conditions: Sequence[Any], start: int | None, end: int | None) -> Select[Any]:
    point = METRICS.c
    nothing = case((point.value.is_(None), point.step), else_=null())
    return select(
        (point.step // grid.length).label("cell"),
        point.value.label("lowest"),
        point.step.label("lowest_step"),
        point.value.label("highest"),
        point.step.label("highest_step"),
        nothing.label("first_null"),
        nothing.label("last_null"),
    ).where(*conditions, *within(point.step, start, end))


def _whole(grid: _Grid, conditions: Sequence[Any], start: int | None, end: int | None) -> Select[Any]:
    span = SPANS.c
    return select(
        (span.number // (grid.length // grid.width)).label("cell"),
        span.lowest,
        span.lowest_step,
        span.highest,
        span.highest_step,
        span.first_null,
        span.last_null,
    ).where(*conditions, span.width == grid.width, *within(span.number, start, end))


def within(column: ColumnElement[int], start: int | None, end: int | None) -> Iterator[ColumnElement[bool]]:
    """Yield the bounds that there are, both included."""
    if start is not None:
        yield column >= start
    if end is not None:
        yield column <= end


def _extremes(parts: Sequence[Select[Any]]) -> Select[Any]:
    part = union_all(*parts).subquery()
    # A window and no join: whatever the database expects of the number of rows, it sorts them once.
    seen = (
        select(
            part,
            func.min(part.c.lowest).over(partition_by=part.c.cell).label("least"),
            func.max(part.c.highest).over(partition_by=part.c.cell).label("most"),
        )
        .subquery()
        .c
    )
    # Of equal values the first one is the lowest and the last one is the highest.
    return select(
        seen.least.label("lowest"),
        func.min(case((seen.lowest == seen.least, seen.lowest_step))).label("lowest_step"),
        seen.most.label("highest"),
        func.max(case((seen.highest == seen.most, seen.highest_step))).label("highest_step"),
        func.min(seen.first_null).label("first_null"),
        func.max(seen.last_null).label("last_null"),
    ).group_by(seen.cell, seen.least, seen.most)
